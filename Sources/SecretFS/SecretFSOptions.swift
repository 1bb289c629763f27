/// How a keyring's tree is shown and what the control directory tells about its server.
public struct SecretFSOptions: Sendable {
    public enum CacheMode: Sendable {
        /// What was read stays in the kernel's page cache until it changes or is revoked.
        case kernel
        /// No plaintext in the page cache: every read comes here.
        case none
    }

    public var cacheMode = CacheMode.kernel
    /// Everything is shown as owned by them (`-o uid=`, `-o gid=`); what is stored stays.
    public var uid: UInt32?
    public var gid: UInt32?
    /// Taken off the modes of what is created, besides the caller's own mask.
    public var umask: UInt32 = 0
    public var isReadOnly = false
    /// Who owns the control directory: the mount's owner.
    public var ownerUID: UInt32
    public var ownerGID: UInt32
    public var mountpoint = ""
    /// How many servers this mount has had.
    public var generation = 1
    /// Letterlock's version, for `status`.
    public var programVersion = ""
    /// The guardian's process, if there is one.
    public var guardianProcess: Int32?

    public init(ownerUID: UInt32, ownerGID: UInt32) {
        self.ownerUID = ownerUID
        self.ownerGID = ownerGID
    }
}
