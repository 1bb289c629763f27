internal import Sodium

/// The lifecycle's record: what is in it before it is sealed.
///
///     format 4 | primary 4 | min_decryption 4 | min_encryption 4 | flags 4 |
///     auto_rotate_period 8 | disable_after 8 | destroy_after 8 | last rotation 12 | versions 4
///
/// and for each version
///
///     version 4 | state 1 | has key 1 | has deadline 1 | is retired 1 | created 12 | changed 12 | deadline 12 |
///     retired 12 | reason length 2 | reason | sealed key 72, if it has one
struct LifecycleCoding {
    static let format: UInt32 = 1
    /// More than any keyring reaches by rotating every hour for a century.
    static let versionLimit: UInt32 = 1_000_000

    let storeID: StoreID
    /// Seals each version's key by itself, so that no listing of states needs a key in the clear.
    let key: SecretKey

    func encode(_ lifecycle: KeyLifecycle, _ keys: [KEKVersion: SecretKey]) -> [UInt8] {
        var writer = ByteWriter()
        writer.put(Self.format)
        writer.put(lifecycle.primary.rawValue)
        writer.put(lifecycle.minDecryption.rawValue)
        writer.put(lifecycle.minEncryption.rawValue)
        writer.put(UInt32(lifecycle.deletionAllowed ? 1 : 0))
        writer.put(lifecycle.autoRotatePeriod)
        writer.put(lifecycle.disableAfter)
        writer.put(lifecycle.destroyAfter)
        writer.put(lifecycle.lastRotation)
        writer.put(UInt32(lifecycle.records.count))
        for record in lifecycle.records {
            let key = keys[record.version]
            writer.put(record.version.rawValue)
            writer.put(record.state.rawValue)
            writer.put(UInt8(key == nil ? 0 : 1))
            writer.put(UInt8(record.destroyAt == nil ? 0 : 1))
            writer.put(UInt8(record.retired == nil ? 0 : 1))
            writer.put(record.created)
            writer.put(record.changed)
            writer.put(record.destroyAt ?? Timestamp(seconds: 0))
            writer.put(record.retired ?? Timestamp(seconds: 0))
            writer.putCounted(Array((record.reason ?? "").utf8))
            if let key { writer.put(seal(key, of: record.version)) }
        }
        return writer.bytes
    }

    /// - Throws: `.damaged` for what no Letterlock has written.
    func decode(_ bytes: UnsafeRawBufferPointer) throws(KeyringError) -> (KeyLifecycle, [KEKVersion: SecretKey]) {
        var reader = ByteReader(bytes)
        guard let format = reader.number(UInt32.self) else { throw .damaged("the key lifecycle is too short") }
        guard format <= Self.format else { throw .newerFormat(format) }
        guard let primary = reader.number(UInt32.self), let minDecryption = reader.number(UInt32.self),
            let minEncryption = reader.number(UInt32.self), let flags = reader.number(UInt32.self),
            let autoRotatePeriod = reader.number(Int64.self), let disableAfter = reader.number(Int64.self),
            let destroyAfter = reader.number(Int64.self), let lastRotation = reader.timestamp(),
            let count = reader.number(UInt32.self), (1...Self.versionLimit).contains(count),
            (1...count).contains(primary)
        else { throw .damaged("the key lifecycle is malformed") }
        var records: [KEKRecord] = []
        var keys: [KEKVersion: SecretKey] = [:]
        for number in 1...count {
            let (record, key) = try version(KEKVersion(rawValue: number), &reader)
            records.append(record)
            keys[record.version] = key
        }
        guard reader.remaining == 0 else { throw .damaged("the key lifecycle is too long") }
        var lifecycle = KeyLifecycle(
            primary: KEKVersion(rawValue: primary), lastRotation: lastRotation, records: records)
        lifecycle.minDecryption = KEKVersion(rawValue: minDecryption)
        lifecycle.minEncryption = KEKVersion(rawValue: minEncryption)
        lifecycle.deletionAllowed = flags & 1 != 0
        lifecycle.autoRotatePeriod = autoRotatePeriod
        lifecycle.disableAfter = disableAfter
        lifecycle.destroyAfter = destroyAfter
        guard lifecycle.isConsistent else { throw .damaged("the key lifecycle contradicts itself") }
        return (lifecycle, keys)
    }

    private func version(_ expected: KEKVersion, _ reader: inout ByteReader) throws(KeyringError)
        -> (KEKRecord, SecretKey?)
    {
        guard let number = reader.number(UInt32.self), number == expected.rawValue,
            let state = reader.number(UInt8.self).flatMap(KEKState.init(rawValue:)),
            let hasKey = reader.number(UInt8.self), let hasDeadline = reader.number(UInt8.self),
            let isRetired = reader.number(UInt8.self), let created = reader.timestamp(),
            let changed = reader.timestamp(),
            let deadline = reader.timestamp(), let retired = reader.timestamp(),
            let reason = reader.counted(limit: KeyLifecycle.reasonLimit)
        else { throw .damaged("KEK version \(expected) is malformed") }
        let record = KEKRecord(
            version: expected, created: created, state: state, changed: changed,
            retired: isRetired == 0 ? nil : retired,
            reason: reason.isEmpty ? nil : String(decoding: reason, as: UTF8.self),
            destroyAt: hasDeadline == 0 ? nil : deadline)
        guard hasKey != 0 else {
            guard state == .destroyed else { throw .damaged("KEK version \(expected) has no key") }
            return (record, nil)
        }
        guard state != .destroyed, let sealed = reader.take(SealedKey.byteCount) else {
            throw .damaged("KEK version \(expected) is malformed")
        }
        return (record, try open(sealed, of: expected))
    }

    // MARK: Keys

    private func seal(_ kek: SecretKey, of version: KEKVersion) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: SealedKey.byteCount) { buffer, count in
            withBinding(version) { data in
                key.withKey { key in
                    let wrapping = key.bytes
                    kek.withKey { kek in
                        SealedKey.seal(
                            kek.bytes, into: UnsafeMutableRawBufferPointer(buffer), associatedData: data,
                            under: BorrowedKey(wrapping))
                    }
                }
            }
            count = SealedKey.byteCount
        }
    }

    private func open(_ sealed: UnsafeRawBufferPointer, of version: KEKVersion) throws(KeyringError) -> SecretKey {
        try withScratchKey { (kek: UnsafeMutableRawBufferPointer) throws(KeyringError) -> SecretKey in
            let isOpen = withBinding(version) { data in
                key.withKey { SealedKey.open(sealed, into: kek, associatedData: data, under: $0) }
            }
            guard isOpen else { throw .damaged("KEK version \(version) does not authenticate") }
            do { return try SecretKey(copying: UnsafeRawBufferPointer(kek)) } catch { throw .cannotLock }
        }
    }

    private func withBinding<R>(_ version: KEKVersion, _ body: (UnsafeRawBufferPointer) -> R) -> R {
        storeID.withUnsafeBytes { store in
            withUnsafeBytes(of: version.rawValue.littleEndian) { number in
                withAssociatedData("letterlock kek 1", [store, number], body)
            }
        }
    }
}
