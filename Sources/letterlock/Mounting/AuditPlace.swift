import Access
import Keyring
import SecretTree

/// Where a keyring's audit log is and how strictly it is kept, as the last mount was told: sealed in the keyring itself, for
/// those who change it while nobody serves it.
///
///     format 1 | mode 1 | flags 1 | place 1 | history length 2 | history | path length 2 | path
struct AuditPlace: Equatable {
    enum File: Equatable {
        /// In the state directory.
        case usual
        case none
        case path(String)
    }

    var mode = AuditLog.Mode.failClosed
    var file = File.usual
    var usesSyslog = false
    var hidesPaths = false

    /// As it is where no mount was told anything.
    init() {}

    init(_ options: MountOptions) {
        mode = options.audit
        usesSyslog = options.auditsToSyslog
        hidesPaths = options.auditPaths == .hmac
        switch options.auditLog {
        case "none": file = .none
        case let path?: file = .path(path)
        case nil: file = .usual
        }
    }

    // MARK: In the keyring

    /// What the keyring remembers. What was remembered in another history of it, as before a restore, is no place of its own.
    init(rememberedIn opened: OpenKeyring) throws {
        guard let document = try opened.tree.document(.audit) else { return }
        guard let (place, history) = Self.decode(document.bytes) else {
            throw Failure(
                "what the keyring remembers of its audit log makes no sense",
                hint: "was it written by a newer letterlock?", code: .integrity)
        }
        if history == opened.keyring.historyName { self = place }
    }

    /// Has the keyring remember it, if it does not already: also in the place of what was tampered with, which was told at
    /// its opening. What cannot be written remembers nothing.
    func remember(in opened: OpenKeyring) throws {
        guard !opened.tree.isReadOnly else { return }
        let bytes = encoded(history: opened.keyring.historyName)
        let known = try? opened.tree.document(.audit)
        guard known?.bytes != bytes else { return }
        _ = try opened.tree.replace(.audit, with: bytes, now: .now())
    }

    private static let format: UInt8 = 1
    private static let modes: [AuditLog.Mode] = [.failClosed, .bestEffort, .off]

    func encoded(history: String) -> [UInt8] {
        let (place, path): (UInt8, String) =
            switch file {
            case .usual: (0, "")
            case .none: (1, "")
            case .path(let path): (2, path)
            }
        let flags: UInt8 = (usesSyslog ? 1 : 0) | (hidesPaths ? 2 : 0)
        var bytes: [UInt8] = [Self.format, UInt8(Self.modes.firstIndex(of: mode) ?? 0), flags, place]
        for text in [history, path] {
            bytes += [UInt8(truncatingIfNeeded: text.utf8.count), UInt8(truncatingIfNeeded: text.utf8.count >> 8)]
            bytes += text.utf8
        }
        return bytes
    }

    /// - Returns: nil for what `encoded` does not make.
    static func decode(_ bytes: [UInt8]) -> (place: AuditPlace, history: String)? {
        guard bytes.count >= 4, bytes[0] == format, modes.indices.contains(Int(bytes[1])), bytes[2] < 4 else {
            return nil
        }
        var rest = bytes[4...]
        func text() -> String? {
            guard rest.count >= 2 else { return nil }
            let count = Int(rest[rest.startIndex]) | Int(rest[rest.startIndex + 1]) << 8
            rest = rest.dropFirst(2)
            guard rest.count >= count, let text = String(validating: rest.prefix(count), as: UTF8.self) else {
                return nil
            }
            rest = rest.dropFirst(count)
            return text
        }
        guard let history = text(), let path = text(), rest.isEmpty else { return nil }
        var place = AuditPlace()
        place.mode = modes[Int(bytes[1])]
        place.usesSyslog = bytes[2] & 1 != 0
        place.hidesPaths = bytes[2] & 2 != 0
        switch bytes[3] {
        case 0 where path.isEmpty: place.file = .usual
        case 1 where path.isEmpty: place.file = .none
        case 2 where path.hasPrefix("/") && !path.utf8.contains(0): place.file = .path(path)
        default: return nil
        }
        return (place, history)
    }
}
