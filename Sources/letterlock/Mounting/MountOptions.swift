import Access

/// The `-o` options of a mount, from the command line, from fstab, or as mount(8) hands them over.
struct MountOptions: Equatable {
    enum Cache: String { case none, kernel }
    enum AuditPaths: String { case clear, hmac }

    var isReadOnly = false
    /// Nil: as the mount's owner would expect (others may enter what root mounts).
    var allowOther: Bool?
    var uid: UInt32?
    var gid: UInt32?
    /// Narrows what is created, octal.
    var umask: UInt32?
    var cache = Cache.kernel
    /// Seconds without use after which the keyring is locked.
    var idleLock: Int64?
    /// Seconds after which the key service is asked again, and for which it may then say nothing.
    var lease: Int64?
    var leaseGrace: Int64?
    /// Seconds for which what opened the keyring opens it once more without being asked.
    var unlockCache: Int64?
    var audit = AuditLog.Mode.failClosed
    /// The audit log's file; `none` for no file; nil for its usual place.
    var auditLog: String?
    var auditsToSyslog = false
    var auditPaths = AuditPaths.clear
    /// Commands are run when values change. Nil: if they are of nobody else than whom they would run as.
    var runsHooks: Bool?
    var keyService: String?
    var passphraseFile: String?
    var acceptsRollback = false
    var allowsUnlockedMemory = false
    /// What the kernel itself is told, beyond `ro`: `nosuid`, `noexec`, …
    var kernelOptions: [String] = []

    init() {}

    init(parsing texts: [String]) throws(Failure) {
        for text in texts { for option in Self.split(text) { try take(option) } }
    }

    private mutating func take(_ option: String) throws(Failure) {
        let parts = option.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        let name = String(parts[0])
        let value = parts.count > 1 ? String(parts[1]) : nil
        switch (name, value) {
        case ("ro", nil): isReadOnly = true
        case ("rw", nil): isReadOnly = false
        case ("allow_other", nil): allowOther = true
        case ("noallow_other", nil): allowOther = false
        case ("default_permissions", nil): break  // always so
        case ("uid", let value?): uid = try Self.number(value, radix: 10, of: option)
        case ("gid", let value?): gid = try Self.number(value, radix: 10, of: option)
        case ("umask", let value?):
            let mask = try Self.number(value, radix: 8, of: option)
            guard mask <= 0o777 else { throw Self.wrong(option) }
            umask = mask
        case ("cache", let value?):
            guard let cache = Cache(rawValue: value) else { throw Self.wrong(option) }
            self.cache = cache
        case ("idle_lock", let value?), ("idle-lock", let value?):
            guard let seconds = Self.seconds(value) else { throw Self.wrong(option) }
            idleLock = seconds == 0 ? nil : seconds
        case ("lease", let value?):
            guard let seconds = Self.seconds(value) else { throw Self.wrong(option) }
            lease = seconds == 0 ? nil : seconds
        case ("lease_grace", let value?):
            guard let seconds = Self.seconds(value) else { throw Self.wrong(option) }
            leaseGrace = seconds
        case ("unlock-cache", let value?), ("unlock_cache", let value?):
            guard let seconds = Self.seconds(value), seconds <= Self.longestUnlockCache else {
                throw Self.wrong("unlock-cache=\(value)")
            }
            unlockCache = seconds == 0 ? nil : seconds
        case ("audit", let value?):
            guard let mode = AuditLog.Mode(rawValue: value) else { throw Self.wrong(option) }
            audit = mode
        case ("audit-log", let value?):
            guard value == "none" || value.hasPrefix("/") else { throw Self.wrong(option) }
            auditLog = value
        case ("audit-syslog", nil): auditsToSyslog = true
        case ("audit-paths", let value?):
            guard let paths = AuditPaths(rawValue: value) else { throw Self.wrong(option) }
            auditPaths = paths
        case ("hooks", let value?):
            guard ["on", "off"].contains(value) else { throw Self.wrong(option) }
            runsHooks = value == "on"
        case ("key-service", let value?): keyService = value
        case ("passphrase-file", let value?): passphraseFile = value
        case ("accept-rollback", nil): acceptsRollback = true
        case ("allow-unlocked-memory", nil): allowsUnlockedMemory = true
        case ("fsname", _?), ("subtype", _?), ("comment", _?): break
        case _ where Self.forTheKernel.contains(option): kernelOptions.append(option)
        case _ where Self.forOthers.contains(option) || option.hasPrefix("x-") || option.hasPrefix("X-"):
            break
        default: throw Self.wrong(option)
        }
    }

    private static let longestUnlockCache: Int64 = 86_400

    private static let forTheKernel: Set = [
        "nosuid", "suid", "nodev", "dev", "noexec", "exec", "noatime", "atime", "sync", "async", "dirsync",
    ]

    /// Options that mount(8), systemd or the boot act on, or that every file system takes without any effect.
    private static let forOthers: Set = [
        "defaults", "auto", "noauto", "user", "nouser", "users", "nousers", "owner", "group", "nofail",
        "_netdev",
        "_rnetdev", "relatime", "norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime",
        "nodiratime", "diratime", "nodirsync", "silent", "loud", "noiversion", "nomand",
    ]

    private static func wrong(_ option: String) -> Failure {
        let name = option.split(separator: "=", maxSplits: 1).first.map(String.init) ?? option
        let known = [
            "uid", "gid", "umask", "cache", "idle_lock", "lease", "lease_grace", "unlock-cache", "audit", "audit-log",
            "audit-paths",
            "hooks", "key-service", "passphrase-file",
        ]
        guard known.contains(name) else {
            return Failure(
                "unknown mount option '\(option)'", hint: "see 'letterlock mount --help' for the options",
                code: .usage)
        }
        let hint =
            switch name {
            case "umask": "three octal digits, as in umask=027"
            case "audit": "audit=fail-closed, audit=best-effort or audit=off"
            case "audit-log": "a path from the root on, or audit-log=none"
            case "audit-paths": "either audit-paths=clear or audit-paths=hmac"
            case "hooks": "either hooks=on or hooks=off"
            case "cache": "either cache=none or cache=kernel"
            case "lease", "lease_grace": "seconds, or a time as in \(name)=1h"
            case "unlock-cache": "seconds, or a time as in unlock-cache=15m; at most 24h, 0 for none"
            case "idle_lock": "seconds, or a time as in idle_lock=15m; 0 for never"
            case "uid", "gid": "a number, as in \(name)=1000"
            default: "\(name)=VALUE"
            }
        return Failure("mount option '\(option)' has no such value", hint: hint, code: .usage)
    }

    /// `900`, `90s`, `15m`, `8h`, `1d`; nil for anything else.
    private static func seconds(_ text: String) -> Int64? {
        let units: [Character: Int64] = ["s": 1, "m": 60, "h": 3600, "d": 86400]
        let unit = text.last.flatMap { units[$0] }
        let digits = unit == nil ? text[...] : text.dropLast()
        guard !digits.isEmpty, digits.allSatisfy({ $0.isASCII && $0.isNumber }), let count = Int64(digits),
            count <= 365 * 86400
        else { return nil }
        return count * (unit ?? 1)
    }

    private static func number(_ text: String, radix: Int, of option: String) throws(Failure) -> UInt32 {
        // 4294967295 is -1, which chown(2) takes for "leave alone".
        guard text.first?.isNumber == true, let value = UInt32(text, radix: radix), value != .max else {
            throw wrong(option)
        }
        return value
    }

    /// Splits at commas; `\,` is a comma inside an option, as libfuse has it.
    static func split(_ text: String) -> [String] {
        var options = [""]
        var escaped = false
        for character in text {
            if escaped {
                options[options.count - 1].append(character)
                escaped = false
            } else if character == "\\" {
                escaped = true
            } else if character == "," {
                options.append("")
            } else {
                options[options.count - 1].append(character)
            }
        }
        return options.filter { !$0.isEmpty }
    }
}

extension MountOptions {
    private static func escaped(_ text: String) -> String {
        text.replacing("\\", with: "\\\\").replacing(",", with: "\\,")
    }

    /// The options that the server's command line gets: what is told otherwise (the key) is left out.
    var texts: [String] {
        var texts = kernelOptions
        if isReadOnly { texts.append("ro") }
        if let allowOther { texts.append(allowOther ? "allow_other" : "noallow_other") }
        if let uid { texts.append("uid=\(uid)") }
        if let gid { texts.append("gid=\(gid)") }
        if let umask { texts.append("umask=\(String(umask, radix: 8))") }
        texts.append("cache=\(cache.rawValue)")
        if let idleLock { texts.append("idle_lock=\(idleLock)") }
        if let lease { texts.append("lease=\(lease)") }
        if let leaseGrace { texts.append("lease_grace=\(leaseGrace)") }
        if let unlockCache { texts.append("unlock-cache=\(unlockCache)") }
        texts.append("audit=\(audit.rawValue)")
        if let auditLog { texts.append("audit-log=" + Self.escaped(auditLog)) }
        if auditsToSyslog { texts.append("audit-syslog") }
        if auditPaths == .hmac { texts.append("audit-paths=hmac") }
        if let runsHooks { texts.append(runsHooks ? "hooks=on" : "hooks=off") }
        if acceptsRollback { texts.append("accept-rollback") }
        if allowsUnlockedMemory { texts.append("allow-unlocked-memory") }
        return texts
    }
}
