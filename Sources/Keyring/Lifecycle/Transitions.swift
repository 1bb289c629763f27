/// Commands to the state machine. Each does all of it, or throws and changes nothing.
extension KeyLifecycle {
    /// A new version becomes primary, the old primary enabled.
    ///
    /// - Parameter expected: The version that the caller takes for the latest; nil for any.
    @discardableResult
    public mutating func rotate(ifLatest expected: KEKVersion? = nil, now: Timestamp) throws(LifecycleError)
        -> KEKVersion
    {
        if let expected, expected != latest { throw .staleLatest }
        guard latest.rawValue < LifecycleCoding.versionLimit else { throw .outOfRange }
        let version = KEKVersion(rawValue: latest.rawValue + 1)
        records.append(KEKRecord(version: version, created: now, state: .enabled, changed: now))
        makePrimary(version, now)
        lastRotation = now
        return version
    }

    /// An enabled version becomes primary again.
    public mutating func promote(_ version: KEKVersion, now: Timestamp) throws(LifecycleError) {
        switch try existing(version) {
        case .primary: return
        case .enabled: break
        case .decryptOnly: throw .outOfRange
        default: throw .notPermitted
        }
        guard version >= minDecryption else { throw .outOfRange }
        makePrimary(version, now)
    }

    /// Ends all use of a version until it is enabled. Asking for what is so already is no mistake, here and below.
    public mutating func disable(_ version: KEKVersion, now: Timestamp) throws(LifecycleError) {
        switch try existing(version) {
        case .primary: throw .isPrimary
        case .enabled, .decryptOnly: set(version, .disabled, now)
        case .disabled: return
        case .compromised, .pendingDestruction, .destroyed: throw .notPermitted
        }
    }

    /// Takes `disable` back, but never for what was compromised once.
    public mutating func enable(_ version: KEKVersion, now: Timestamp) throws(LifecycleError) {
        switch try existing(version) {
        case .primary: throw .isPrimary
        case .enabled, .decryptOnly: return
        case .disabled where self[version]?.reason == nil: set(version, .enabled, now)
        case .disabled, .compromised, .pendingDestruction, .destroyed: throw .notPermitted
        }
    }

    /// Denies every reader what the version guards; only re-encryption may still unwrap with it.
    public mutating func compromise(_ version: KEKVersion, reason: String, now: Timestamp) throws(LifecycleError) {
        guard !reason.isEmpty, reason.utf8.count <= Self.reasonLimit else { throw .outOfRange }
        switch try existing(version) {
        case .primary: throw .isPrimary
        case .enabled, .decryptOnly, .disabled: set(version, .compromised, now)
        case .compromised: return
        case .pendingDestruction, .destroyed: throw .notPermitted
        }
        records[Int(version.rawValue) - 1].reason = reason
    }

    /// Sets the day on which the key is erased for good; until then nothing can be done with it.
    ///
    /// - Parameters:
    ///   - days: 7 to 30.
    ///   - files: How many files the version still guards; more than none needs `force`.
    public mutating func scheduleDestruction(
        of version: KEKVersion, days: Int, force: Bool, files: Int, now: Timestamp
    ) throws(LifecycleError) {
        let state = try existing(version)
        guard Self.destructionDays.contains(days) else { throw .outOfRange }
        switch state {
        case .primary: throw .isPrimary
        case .pendingDestruction, .destroyed: throw .notPermitted
        case .enabled, .decryptOnly, .disabled, .compromised: break
        }
        guard deletionAllowed else { throw .notPermitted }
        guard files == 0 || force else { throw .filesRemain(files) }
        set(version, .pendingDestruction, now)
        records[Int(version.rawValue) - 1].destroyAt = now.adding(seconds: Int64(days) * 86_400)
    }

    /// A version whose destruction was scheduled is disabled instead.
    public mutating func cancelDestruction(of version: KEKVersion, now: Timestamp) throws(LifecycleError) {
        guard try existing(version) == .pendingDestruction else { throw .notPermitted }
        set(version, .disabled, now)
        records[Int(version.rawValue) - 1].destroyAt = nil
    }

    /// Destroys the versions whose day has come.
    ///
    /// - Returns: which ones.
    @discardableResult
    public mutating func destroyDue(now: Timestamp) -> [KEKVersion] {
        let due = records.filter { $0.state == .pendingDestruction && ($0.destroyAt ?? now) <= now }.map(\.version)
        for version in due { set(version, .destroyed, now) }
        return due
    }

    // MARK: Settings

    public mutating func setMinDecryption(_ version: KEKVersion) throws(LifecycleError) {
        let limit = minEncryption.rawValue == 0 ? primary : minEncryption
        guard version >= .first, version <= limit else { throw .outOfRange }
        minDecryption = version
    }

    /// - Parameter version: 0 for no bound.
    public mutating func setMinEncryption(_ version: KEKVersion) throws(LifecycleError) {
        if version.rawValue != 0 {
            guard version >= minDecryption, version <= primary else { throw .outOfRange }
        }
        minEncryption = version
    }

    public mutating func setDeletionAllowed(_ allowed: Bool) { deletionAllowed = allowed }

    /// - Parameter seconds: 0, or at least an hour.
    public mutating func setAutoRotatePeriod(_ seconds: Int64) throws(LifecycleError) {
        guard seconds == 0 || (Self.shortestRotationPeriod...Self.longestPeriod).contains(seconds) else {
            throw .outOfRange
        }
        autoRotatePeriod = seconds
    }

    public mutating func setDisableAfter(_ seconds: Int64) throws(LifecycleError) {
        guard (0...Self.longestPeriod).contains(seconds) else { throw .outOfRange }
        disableAfter = seconds
    }

    public mutating func setDestroyAfter(_ seconds: Int64) throws(LifecycleError) {
        guard (0...Self.longestPeriod).contains(seconds) else { throw .outOfRange }
        destroyAfter = seconds
    }

    // MARK: Inside

    private func existing(_ version: KEKVersion) throws(LifecycleError) -> KEKState {
        guard let state = state(of: version) else { throw .noSuchVersion }
        guard state != .destroyed else { throw .destroyed }
        return state
    }

    private mutating func makePrimary(_ version: KEKVersion, _ now: Timestamp) {
        set(primary, .enabled, now)
        records[Int(primary.rawValue) - 1].retired = now
        set(version, .enabled, now)
        records[Int(version.rawValue) - 1].retired = nil
        primary = version
    }

    private mutating func set(_ version: KEKVersion, _ state: KEKState, _ now: Timestamp) {
        let index = Int(version.rawValue) - 1
        records[index].state = state
        records[index].changed = now
    }
}
