import SecretTree

/// What `status` and `metrics` say of the lease of the unsealed keys.
extension SecretFSOptions {
    public struct LeaseReport: Sendable {
        /// Seconds.
        public var length: Int64
        public var grace: Int64
        /// Negative in the time of grace.
        public var secondsLeft: Int64
        /// Why it could not be renewed, if so.
        public var trouble: String?

        public init(length: Int64, grace: Int64, secondsLeft: Int64, trouble: String?) {
            self.length = length
            self.grace = grace
            self.secondsLeft = secondsLeft
            self.trouble = trouble
        }

        var isInGrace: Bool { secondsLeft <= 0 && trouble != nil }
        /// Until the keyring is locked, if the key service goes on saying nothing.
        var secondsToLocking: Int64 { max(0, secondsLeft + grace) }
    }

    var leaseDocument: JSON {
        guard let lease = leaseReport?() else { return .null }
        return .object([
            ("seconds", .number(Int(lease.length))), ("seconds_left", .number(Int(max(0, lease.secondsLeft)))),
            ("grace_seconds", .number(Int(lease.grace))), ("state", lease.isInGrace ? "grace" : "granted"),
            ("locks_in", lease.isInGrace ? .number(Int(lease.secondsToLocking)) : .null),
            ("reason", .optional(lease.isInGrace ? lease.trouble : nil)),
        ])
    }

    var leaseProblems: [JSON] {
        guard let lease = leaseReport?(), lease.isInGrace else { return [] }
        return [
            .text(
                "the lease of the keys is over and cannot be renewed: \(lease.trouble ?? ""); "
                    + "the keyring is locked in \(lease.secondsToLocking) s")
        ]
    }
}

extension MetricsText {
    /// Nothing where there is no lease.
    mutating func add(_ lease: SecretFSOptions.LeaseReport?) {
        guard let lease else { return }
        begin(
            "lease_seconds_left", .gauge, "Seconds until the key service is asked again; negative in the time of grace."
        )
        sample("lease_seconds_left", lease.secondsLeft)
        begin("lease_grace", .gauge, "1 while the key service does not answer and the lease of the keys is over.")
        sample("lease_grace", lease.isInGrace ? 1 : 0)
        begin(
            "lease_locks_in_seconds", .gauge, "Seconds until the keyring is locked if the key service does not answer.")
        sample("lease_locks_in_seconds", lease.secondsToLocking)
    }
}
