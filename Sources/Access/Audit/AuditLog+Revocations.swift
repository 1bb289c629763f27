/// A revocation that has ended, as its report tells it.
public struct AuditRevocation: Sendable {
    public var version: UInt32
    public var successor: UInt32?
    public var reason: String
    public var state: String
    public var started: String
    public var ended: String
    public var files: UInt64
    public var reencrypted: UInt64
    public var failed: UInt64

    public init(
        version: UInt32, successor: UInt32?, reason: String, state: String, started: String, ended: String,
        files: UInt64,
        reencrypted: UInt64, failed: UInt64
    ) {
        (self.version, self.successor, self.reason, self.state) = (version, successor, reason, state)
        (self.started, self.ended) = (started, ended)
        (self.files, self.reencrypted, self.failed) = (files, reencrypted, failed)
    }
}

extension AuditLog {
    /// So many readers are told of one by one.
    private static let reportedReaderLimit = 1024

    /// Puts a revocation's report in the log, all of it or nothing: a record of what was done, and one for each reader.
    public func report(_ revocation: AuditRevocation, _ readership: AuditReadership, verdict: String)
        throws(AuditFailure)
    {
        let rows = readership.rows
        var text = AuditText()
        text.addTime()
        text.add(",\"type\":\"revocation\"")
        text.add("keyring", options.keyring)
        text.add("kek_version", number: revocation.version)
        if let successor = revocation.successor { text.add("primary", number: successor) }
        text.add("why", revocation.reason)
        text.add("state", revocation.state)
        text.add("started", revocation.started)
        text.add("ended", revocation.ended)
        text.add("files", number: revocation.files)
        text.add("reencrypted", number: revocation.reencrypted)
        text.add("failed", number: revocation.failed)
        text.add("unwraps", number: readership.unwraps)
        text.add("readers", number: rows.count)
        text.add("left_out", number: readership.leftOut)
        text.add("unread_files", number: readership.unreadFiles)
        text.add("log", verdict)
        var bodies = [text.bytes]
        for row in rows.prefix(Self.reportedReaderLimit) {
            var text = AuditText()
            text.addTime()
            text.add(",\"type\":\"revocation-reader\"")
            text.add("keyring", options.keyring)
            text.add("kek_version", number: revocation.version)
            text.add(row)
            bodies.append(text.bytes)
        }
        try append(bodies)
    }
}

extension AuditReadership.Row {
    /// Its members as JSON, without braces.
    public var members: [UInt8] {
        var text = AuditText()
        text.add(self)
        return Array(text.bytes.dropFirst())
    }
}

extension AuditText {
    /// Texts that come from the log are escaped already.
    fileprivate mutating func add(_ row: AuditReadership.Row) {
        func addAsIs(_ name: StaticString, _ value: [UInt8]) {
            begin(name)
            append(UInt8(ascii: "\""))
            append(value)
            append(UInt8(ascii: "\""))
        }
        addAsIs("path", row.path)
        add("uid", number: row.uid)
        add("pid", number: row.pid)
        if let exe = row.exe { addAsIs("exe", exe) }
        if let unit = row.unit { addAsIs("unit", unit) }
        add("unwraps", number: row.unwraps)
        add("since", number: row.since)
        addAsIs("first", row.first)
        addAsIs("last", row.last)
    }
}
