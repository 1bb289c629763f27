public import Sodium

extension AuditLog {
    public enum Mode: String, Sendable {
        /// What cannot be recorded does not happen.
        case failClosed = "fail-closed"
        /// What cannot be recorded is counted.
        case bestEffort = "best-effort"
        case off
    }

    public struct Options: Sendable {
        public var mode = Mode.failClosed
        /// The file; nil for none.
        public var path: String?
        public var usesSyslog = false
        public var hidesPaths = false
        public var keyring = ""
        /// The store's id.
        public var store = ""
        /// Where the last record is remembered from one mount to the next; nil for nowhere.
        public var headPath: String?
        /// This process took over from another one that had the log open.
        public var takesOver = false
        public var version = ""
        /// Why it is opened, unless this process took over.
        public var opening = "mount"
        /// What opened the keyring was not asked for, as it had been kept.
        public var isFromCache = false
        /// How many threads may wait long for a device that does not answer.
        public var waiterLimit = 2

        public init() {}
    }

    /// What the log needs of the keyring, as long as that is unlocked.
    public struct Keys: Sendable {
        let signing: SigningKey
        let paths: SecretKey

        public init(signing: SigningKey, paths: SecretKey) {
            self.signing = signing
            self.paths = paths
        }
    }
}
