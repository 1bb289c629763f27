/// The states of a keyring's KEK versions and the transitions between them: pure logic, the clock is a parameter.
///
/// Always: there is one primary, it is readable, numbers are never used twice, and
/// 1 ≤ min_decryption ≤ min_encryption (0: no bound) ≤ latest, with the primary at or above both.
public struct KeyLifecycle: Sendable, Equatable {
    public internal(set) var primary: KEKVersion
    public internal(set) var minDecryption = KEKVersion.first
    /// 0: every enabled version may become primary.
    public internal(set) var minEncryption = KEKVersion(rawValue: 0)
    public internal(set) var deletionAllowed = false
    /// Seconds between rotations; 0: never by itself.
    public internal(set) var autoRotatePeriod: Int64 = 0
    /// Seconds after which a version that is not primary is disabled; 0: never.
    public internal(set) var disableAfter: Int64 = 0
    /// Seconds after which such a version's destruction is scheduled; 0: never.
    public internal(set) var destroyAfter: Int64 = 0
    public internal(set) var lastRotation: Timestamp
    /// Version N at N - 1. The primary and decrypt-only versions stand here as enabled, which they amount to without
    /// `primary` and `minEncryption`.
    var records: [KEKRecord]

    /// The longest reason that is kept, in bytes.
    public static let reasonLimit = 1024
    public static let destructionDays = 7...30
    public static let shortestRotationPeriod: Int64 = 3600
    /// A hundred years: the longest of all periods.
    public static let longestPeriod: Int64 = 100 * 366 * 86_400

    /// Version 1, primary.
    public init(now: Timestamp) {
        primary = .first
        lastRotation = now
        records = [KEKRecord(version: .first, created: now, state: .enabled, changed: now)]
    }

    init(primary: KEKVersion, lastRotation: Timestamp, records: [KEKRecord]) {
        self.primary = primary
        self.lastRotation = lastRotation
        self.records = records
    }

    /// All versions, destroyed ones too, the oldest first, each in the state that it amounts to.
    public var versions: [KEKRecord] { records.map(shown) }

    public var latest: KEKVersion { KEKVersion(rawValue: UInt32(records.count)) }

    public subscript(version: KEKVersion) -> KEKRecord? {
        guard version.rawValue >= 1, version <= latest else { return nil }
        return shown(records[Int(version.rawValue) - 1])
    }

    private func shown(_ record: KEKRecord) -> KEKRecord {
        var record = record
        if record.version == primary {
            record.state = .primary
        } else if record.state == .enabled, record.version < minEncryption {
            record.state = .decryptOnly
        }
        return record
    }

    /// What a version's state amounts to; nil if there is no such version.
    public func state(of version: KEKVersion) -> KEKState? {
        if version == primary { return .primary }
        guard version.rawValue >= 1, version <= latest else { return nil }
        let state = records[Int(version.rawValue) - 1].state
        return state == .enabled && version < minEncryption ? .decryptOnly : state
    }

    /// Why a version may not unwrap; nil if it may.
    public func refusal(of version: KEKVersion, forReencryption: Bool = false) -> KeyringError? {
        guard let state = state(of: version) else { return .noSuchVersion }
        switch state {
        case .destroyed: return .destroyed
        case .compromised where forReencryption: return nil
        case .disabled, .compromised, .pendingDestruction: return .revoked(state)
        case .primary, .enabled, .decryptOnly: return version < minDecryption ? .expired : nil
        }
    }

    /// True if no version refuses to unwrap.
    public var isEverythingReadable: Bool { records.allSatisfy { refusal(of: $0.version) == nil } }

    /// When the next rotation is due; nil: never.
    public var nextRotation: Timestamp? {
        guard autoRotatePeriod > 0 else { return nil }
        return lastRotation.adding(seconds: autoRotatePeriod)
    }

    /// What always holds. A stored lifecycle has to as well.
    var isConsistent: Bool {
        guard state(of: primary) == .primary, records.indices.contains(Int(primary.rawValue) - 1),
            records[Int(primary.rawValue) - 1].state == .enabled
        else { return false }
        let areRecordsSound = records.enumerated().allSatisfy { index, record in
            Int(record.version.rawValue) == index + 1 && record.state != .primary && record.state != .decryptOnly
                && (record.destroyAt != nil) == (record.state == .pendingDestruction || record.state == .destroyed)
                && (record.reason != nil || record.state != .compromised)
        }
        let ceiling = minEncryption.rawValue == 0 ? primary : minEncryption
        let periods = [autoRotatePeriod, disableAfter, destroyAfter]
        return areRecordsSound && minDecryption >= .first && minDecryption <= ceiling && ceiling <= primary
            && periods.allSatisfy { (0...Self.longestPeriod).contains($0) }
            && (autoRotatePeriod == 0 || autoRotatePeriod >= Self.shortestRotationPeriod)
    }
}
