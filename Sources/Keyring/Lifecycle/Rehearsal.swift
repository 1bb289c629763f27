extension KEKState {
    /// - Returns: nil for what is no state's name.
    public init?(name: String) {
        guard let state = Self.allCases.first(where: { $0.name == name }) else { return nil }
        self = state
    }
}

extension KeyLifecycle {
    /// A lifecycle as a listing shows it, to try commands on that shall not be given yet. It has no times of its own.
    ///
    /// - Parameter versions: Version N at N - 1.
    /// - Returns: nil for what no keyring is like.
    public init?(
        rehearsing versions: [(state: KEKState, reason: String?)], minDecryption: KEKVersion, minEncryption: KEKVersion,
        deletionAllowed: Bool, now: Timestamp
    ) {
        guard let primary = versions.firstIndex(where: { $0.state == .primary }) else { return nil }
        let records = versions.enumerated().map { index, version in
            let state = version.state == .primary || version.state == .decryptOnly ? .enabled : version.state
            let hasDeadline = state == .pendingDestruction || state == .destroyed
            return KEKRecord(
                version: KEKVersion(rawValue: UInt32(index + 1)), created: now, state: state, changed: now,
                reason: version.reason, destroyAt: hasDeadline ? now : nil)
        }
        self.init(primary: KEKVersion(rawValue: UInt32(primary + 1)), lastRotation: now, records: records)
        self.minDecryption = minDecryption
        self.minEncryption = minEncryption
        self.deletionAllowed = deletionAllowed
        guard isConsistent else { return nil }
    }
}
