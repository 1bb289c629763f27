internal import Glibc
internal import Sodium

/// What the log tells besides accesses: bodies of records, without their place in the chain.
extension AuditLog {
    func note(_ type: StaticString, _ name: StaticString, _ count: Int) -> [UInt8] {
        var text = AuditText()
        text.addTime()
        text.add(",\"type\":\"")
        text.add(type)
        text.add("\"")
        text.add("keyring", options.keyring)
        text.add(name, number: count)
        return text.bytes
    }

    func opened(_ reason: String) -> [UInt8] {
        var text = AuditText()
        text.addTime()
        text.add(",\"type\":\"opened\"")
        text.add("reason", reason)
        text.add("keyring", options.keyring)
        text.add("store", options.store)
        text.add("mode", options.mode.rawValue)
        if options.isFromCache { text.add(",\"unlock\":\"cache\"") }
        text.add("pid", number: getpid())
        text.add("version", options.version)
        return text.bytes
    }

    /// The keyring was made of a backup: its age is accepted.
    ///
    /// - Parameter seen: The epoch that the keyring was known to have come to; nil if it was not known.
    public func recordRestore(of path: String, epoch: UInt64, seen: UInt64?) throws(AuditFailure) {
        var text = AuditText()
        text.addTime()
        text.add(",\"type\":\"restore\"")
        text.add("keyring", options.keyring)
        text.add("store", options.store)
        text.add("path", path: Array(path.utf8))
        text.add("epoch", number: epoch)
        if let seen { text.add("seen", number: seen) }
        text.add("uid", number: getuid())
        text.add("pid", number: getpid())
        try append([text.bytes])
    }

    func interrupted(_ id: String) -> [UInt8] {
        var text = AuditText()
        text.addTime()
        text.add(",\"type\":\"interrupted\"")
        text.add("id", id)
        text.add("keyring", options.keyring)
        return text.bytes
    }

    func checkpointBody(_ keys: Keys, isLast: Bool) -> [UInt8] {
        var text = AuditText()
        text.addTime()
        text.add(",\"type\":\"checkpoint\"")
        if isLast { text.add("reason", "rotation") }
        text.add("key", bytes: AuditText.hex(keys.signing.publicKey))
        text.add("keyring", options.keyring)
        text.add("store", options.store)
        return text.bytes
    }
}
