import Access
import Fuse
import Keyring
import SecretTree
import Synchronization

/// Who last opened which file to read it, and which value that was: so that after a secret has changed its administrator
/// sees who still goes by the old one. Known since this server has started.
final class ReaderTable: AccessObserver {
    /// A program of a user in a unit; its processes come and go. Most files of a keyring have the same few readers, so
    /// these are kept once.
    private final class Reader: Hashable, Sendable {
        let uid: UInt32
        let exe: String?
        let unit: String?

        init(_ requester: Requester) {
            uid = requester.uid
            exe = requester.process.exe
            unit = requester.process.unit
        }

        func isSame(as requester: Requester) -> Bool {
            uid == requester.uid && exe == requester.process.exe && unit == requester.process.unit
        }

        static func == (one: Reader, other: Reader) -> Bool {
            one === other || one.uid == other.uid && one.exe == other.exe && one.unit == other.unit
        }

        func hash(into hasher: inout Hasher) {
            hasher.combine(uid)
            hasher.combine(exe)
            hasher.combine(unit)
        }
    }

    private struct Reading {
        var reader: Reader
        var pid: Int32
        var time: Timestamp
        /// When the value that was read came to be.
        var value: Timestamp
    }

    private struct Contents {
        var readings: [NodeID: [Reading]] = [:]
        /// Those seen lately, and the last of them.
        var readers: Set<Reader> = []
        var last: Reader?

        mutating func reader(_ requester: Requester) -> Reader {
            if let last, last.isSame(as: requester) { return last }
            if readers.count >= ReaderTable.readerLimit { readers = [] }
            let reader = readers.insert(Reader(requester)).memberAfterInsert
            last = reader
            return reader
        }

        mutating func note(_ reading: Reading, of node: NodeID) {
            guard let index = readings.index(forKey: node) else {
                if readings.count < ReaderTable.fileLimit { readings[node] = [reading] }
                return
            }
            if let place = readings.values[index].firstIndex(where: { $0.reader == reading.reader }) {
                readings.values[index][place] = reading
                return
            }
            if readings.values[index].count >= ReaderTable.readerLimit {
                // Programs that are made for one use each would fill it: the one that was seen longest ago goes.
                readings.values[index].sort { $0.time > $1.time }
                readings.values[index].removeLast()
            }
            readings.values[index].append(reading)
        }
    }

    private static let fileLimit = 16_384
    /// Of one file.
    private static let readerLimit = 64

    private let tree: SecretTree
    private let since = Timestamp.now()
    private let contents = Mutex(Contents())

    init(_ tree: SecretTree) { self.tree = tree }

    func observed(_ event: AccessEvent) {
        guard event.call == .open, event.errno == 0, event.reads, let node = event.node,
            let attributes = try? tree.attributes(of: node)
        else { return }
        contents.withLock { contents in
            let reading = Reading(
                reader: contents.reader(event.requester), pid: event.requester.process.pid, time: .now(),
                value: attributes.valueChanged)
            contents.note(reading, of: node)
        }
    }

    /// For `readers`, in the order of paths.
    func document(_ path: (NodeID) -> [UInt8]?) -> JSON {
        var rows: [(path: String, time: Timestamp, row: JSON)] = []
        for (node, readings) in contents.withLock({ $0.readings }) {
            // What is gone has no readers to speak of.
            guard let attributes = try? tree.attributes(of: node), attributes.linkCount > 0, let path = path(node)
            else {
                contents.withLock { _ = $0.readings.removeValue(forKey: node) }
                continue
            }
            let text = String(decoding: path, as: UTF8.self)
            for reading in readings {
                rows.append(
                    (
                        text, reading.time,
                        .object([
                            ("path", .text(text)), ("uid", .number(Int(reading.reader.uid))),
                            ("pid", .number(Int(reading.pid))),
                            ("exe", .optional(reading.reader.exe)), ("unit", .optional(reading.reader.unit)),
                            ("read", .text(reading.time.rfc3339)), ("value", .text(reading.value.rfc3339)),
                            ("stale", .bool(attributes.valueChanged > reading.value)),
                        ])
                    ))
            }
        }
        rows.sort { ($0.path, $0.time) < ($1.path, $1.time) }
        return .object([("since", .text(since.rfc3339)), ("readers", .array(rows.map(\.row)))])
    }
}
