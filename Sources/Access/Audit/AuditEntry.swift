/// An access as its two records tell it.
public struct AuditEntry: Sendable {
    /// What both records have in common, and a request that the kernel sends again.
    public enum ID: Sendable {
        /// The kernel's number of a request, behind the mount's.
        case request(UInt64)
        case text(String)
    }

    /// What a command is about that names no file of the tree.
    public enum Subject: Sendable {
        /// As `unlock-with` was told it.
        case keyService(String)
        /// A file outside.
        case file(String)
    }

    public var id: ID
    public var call: String
    public var operation: Operation
    public var path: [UInt8]?
    public var newPath: [UInt8]?
    public var requester: Requester
    public var isAllowed: Bool
    public var rule: String
    public var subject: Subject?

    public init(
        id: ID, call: String, operation: Operation, path: [UInt8]?, newPath: [UInt8]?, requester: Requester,
        isAllowed: Bool, rule: String, subject: Subject? = nil
    ) {
        self.id = id
        self.call = call
        self.operation = operation
        self.path = path
        self.newPath = newPath
        self.requester = requester
        self.isAllowed = isAllowed
        self.rule = rule
        self.subject = subject
    }

    /// How it ended.
    public struct Response: Sendable {
        public var errno: Int32
        /// The version that guards what was accessed.
        public var kekVersion: UInt32?

        public init(errno: Int32, kekVersion: UInt32?) {
            self.errno = errno
            self.kekVersion = kekVersion
        }
    }

    /// Its place in the text of a record: what both records have in common.
    func addCommon(to text: inout AuditText, mount: [UInt8], keyring: [UInt8]) {
        switch id {
        case .text(let id): text.add("id", id)
        case .request(let number):
            text.begin("id")
            text.add("\"")
            text.append(mount)
            text.add("-")
            text.add(digits: number, base: 16)
            text.add("\"")
        }
        text.append(keyring)
        text.add("call", call)
        text.add("operation", operation.rawValue)
        if let path { text.add("path", path: path) }
        if let newPath { text.add("new_path", path: newPath) }
        switch subject {
        case .keyService(let service): text.add("key_service", service)
        case .file(let file): text.add("file", path: Array(file.utf8))
        case nil: break
        }
        text.add("uid", number: requester.uid)
        text.add("gid", number: requester.gid)
        text.append(requester.process.auditText)
        text.add("decision", isAllowed ? "allow" : "deny")
        text.add("rule", rule)
    }
}

extension ProcessIdentity {
    /// What records say of a process, put together once: it does not change.
    static func auditText(pid: Int32, exe: String?, isExeVerified: Bool, unit: String?) -> [UInt8] {
        var text = AuditText()
        text.add("pid", number: pid)
        text.add("exe", orNull: exe)
        if exe != nil, !isExeVerified { text.add(",\"exe_verified\":false") }
        text.add("unit", orNull: unit)
        return text.bytes
    }
}

extension AuditText {
    mutating func add(_ response: AuditEntry.Response) {
        if let version = response.kekVersion {
            add("kek_version", number: version)
        } else {
            add(",\"kek_version\":null")
        }
        add("errno", number: response.errno)
    }
}
