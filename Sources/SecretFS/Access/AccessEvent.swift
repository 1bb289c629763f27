import Access
import SecretTree

/// What was called, as records and events name it.
enum AccessCall: String, Sendable {
    case open, create, read, write
    case makeNode = "mknod"
    case makeDirectory = "mkdir"
    case symlink, link, unlink, rmdir, rename
    case setAttributes = "setattr"
    case setXattr = "setxattr"
    case removeXattr = "removexattr"
    case list = "readdir"
    /// A command to a control file.
    case control
}

/// One access that came to its end: refused, failed or done.
struct AccessEvent {
    let call: AccessCall
    let operation: Operation
    /// It was opened to be read, perhaps among other things.
    let reads: Bool
    /// Nil if there is but a name.
    let node: NodeID?
    /// From the mount's root: `/web/key`; nil for a file without a name.
    let path: [UInt8]?
    /// Of a rename or link.
    let newPath: [UInt8]?
    let requester: Requester
    let isAllowed: Bool
    /// The rule that decided; `default` where none did.
    let rule: String
    /// 0 if it was done.
    let errno: Int32
    /// How long it took.
    let nanoseconds: UInt64
}

/// Is told of accesses, on the thread that serves them, before they are answered and under no lock: be quick.
protocol AccessObserver: AnyObject, Sendable {
    func observed(_ event: AccessEvent)
}

/// What is asked for, before it is decided.
struct AccessRequest {
    /// What something is done to.
    enum Subject {
        case node(NodeID)
        /// A name that is made or goes; valid during the call.
        case name(UnsafeRawBufferPointer, in: UInt64)
        case control(ControlNode)
    }

    var call: AccessCall
    /// All of them must be allowed.
    var operations: Operations
    var subject: Subject
    /// Where it goes, of a rename or link.
    var newSubject: Subject?
    /// Both names change places.
    var isExchange = false

    init(_ call: AccessCall, _ operations: Operations, _ subject: Subject, to newSubject: Subject? = nil) {
        self.call = call
        self.operations = operations
        self.subject = subject
        self.newSubject = newSubject
    }

    var node: NodeID? {
        if case .node(let id) = subject { id } else { nil }
    }
}
