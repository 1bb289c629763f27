import Access
import Fuse
import Keyring
import SecretTree
import Synchronization

/// Who last opened which file to read it, and which value that was: so that after a secret has changed its administrator
/// sees who still goes by the old one. Known since this server has started.
final class ReaderTable: AccessObserver {
    /// A program of a user in a unit; its processes come and go.
    private struct Who: Hashable {
        var uid: UInt32
        var exe: String?
        var unit: String?
    }

    private struct Reading {
        var pid: Int32
        var time: Timestamp
        /// When the value that was read came to be.
        var value: Timestamp
    }

    private static let fileLimit = 16_384
    private static let readerLimit = 64

    private let tree: SecretTree
    private let since = Timestamp.now()
    private let files = Mutex<[NodeID: [Who: Reading]]>([:])

    init(_ tree: SecretTree) { self.tree = tree }

    func observed(_ event: AccessEvent) {
        guard event.call == .open, event.errno == 0, event.reads, let node = event.node,
            let attributes = try? tree.attributes(of: node)
        else { return }
        let process = event.requester.process
        let who = Who(uid: event.requester.uid, exe: process.exe, unit: process.unit)
        let reading = Reading(pid: process.pid, time: .now(), value: attributes.valueChanged)
        files.withLock { files in
            if files[node] == nil, files.count >= Self.fileLimit { return }
            var readers = files[node] ?? [:]
            // Programs that are made for one use each would fill it: the one that was seen longest ago goes.
            if readers[who] == nil, readers.count >= Self.readerLimit,
                let oldest = readers.min(by: { $0.value.time < $1.value.time })
            {
                readers[oldest.key] = nil
            }
            readers[who] = reading
            files[node] = readers
        }
    }

    /// For `readers`, in the order of paths.
    func document(_ path: (NodeID) -> [UInt8]?) -> JSON {
        var rows: [(path: String, time: Timestamp, row: JSON)] = []
        for (node, readers) in files.withLock({ $0 }) {
            // What is gone has no readers to speak of.
            guard let attributes = try? tree.attributes(of: node), attributes.linkCount > 0, let path = path(node)
            else {
                files.withLock { _ = $0.removeValue(forKey: node) }
                continue
            }
            let text = String(decoding: path, as: UTF8.self)
            for (who, reading) in readers {
                rows.append(
                    (
                        text, reading.time,
                        .object([
                            ("path", .text(text)), ("uid", .number(Int(who.uid))), ("pid", .number(Int(reading.pid))),
                            ("exe", .optional(who.exe)), ("unit", .optional(who.unit)),
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
