internal import Glibc
internal import Sodium
internal import Synchronization

/// No device takes records.
public struct AuditFailure: Error, Sendable {
    /// Of the last device that was tried; EBUSY if one does not answer.
    public let errno: Int32
}

/// A keyring's audit log: a chain of records, signed every second, on one device at least.
///
/// A record is in the log when `record` returns, or else nothing is. What has to be told afterwards and could not be waits
/// for the device to come back, and goes before everything else.
public final class AuditLog: @unchecked Sendable {
    public let options: Options
    /// In front of every request's number: another one with each mount.
    public let mount: String
    /// `,"keyring":"NAME"`
    private let keyringText: [UInt8]
    private let mountText: [UInt8]
    private let memory: AuditMemory?
    let turnstile: Turnstile
    private let failing = Atomic<Int32>(0)
    private let failures = Atomic(0)
    let keys: Mutex<Keys?>
    private let onChange: @Sendable (_ failing: Int32) -> Void
    private let signer = Signer()

    // Unchecked: all of it belongs to whoever is in the turnstile.
    var head = AuditHead()
    /// What is written, in memory that is used again.
    private var text = AuditText()
    private let file: AuditFile?
    private let syslog: AuditSyslog?
    private var unsigned = 0
    /// What could not be told when it was due.
    private var waiting: [[UInt8]] = []
    private var lost = 0
    /// Records that only the other device has.
    private var missingInFile = 0
    private var reopenings = AuditLog.reopeningsAsked
    private static let waitingLimit = 4096

    /// Opens the log and goes on with its chain.
    ///
    /// - Parameters:
    ///   - memory: What outlives this process.
    ///   - onChange: Told of 0 when the log takes records again, and of an error number when it does not any more.
    /// - Throws: if it takes no record, the mode is fail-closed, and nobody waits for this server already.
    public init(
        _ options: Options, keys: Keys, memory: AuditMemory?, onChange: @escaping @Sendable (_ failing: Int32) -> Void
    ) throws(AuditFailure) {
        self.options = options
        turnstile = Turnstile(waiterLimit: options.waiterLimit)
        self.memory = memory
        self.keys = Mutex(keys)
        self.onChange = onChange
        mount = memory?.mount ?? AuditMemory.newMount()
        var keyring = AuditText()
        keyring.add("keyring", options.keyring)
        keyringText = keyring.bytes
        mountText = Array(mount.utf8)
        file = options.path.map { AuditFile($0) }
        syslog = options.usesSyslog ? AuditSyslog() : nil
        do throws(AuditFailure) { try begin(keys) } catch {
            if options.mode == .failClosed, !options.takesOver { throw error }
        }
        signer.start { [weak self] in self?.checkpoint() ?? true }
        signer.wake()
    }

    deinit { signer.stop() }

    /// 0, or why records are not taken.
    public var failure: Int32 { failing.load(ordering: .relaxed) }

    /// How often no device has taken a record.
    public var failureCount: Int { failures.load(ordering: .relaxed) }

    /// The other half of the key that signs, in hexadecimal; nil while the keyring is locked.
    public var publicKey: String? {
        keys.withLock { $0 }.map { String(decoding: AuditText.hex($0.signing.publicKey), as: UTF8.self) }
    }

    // MARK: Recording

    /// Before something happens, or with `response` after something that can be taken back.
    public func record(_ entry: AuditEntry, response: AuditEntry.Response? = nil) throws(AuditFailure) {
        let entry = hidden(entry)
        do throws(AuditFailure) {
            let passed: Void? = try turnstile.pass { () throws(AuditFailure) in
                do throws(AuditFailure) { try write(entry, response) } catch {
                    if options.mode == .bestEffort { lost += response == nil ? 1 : 2 }
                    throw error
                }
            }
            guard passed != nil else { throw AuditFailure(errno: EBUSY) }
        } catch {
            guard options.mode == .failClosed else { return }
            throw error
        }
    }

    /// After what `record` has told of: what happened cannot be taken back, so this is told as soon as it can be.
    public func respond(_ entry: AuditEntry, errno: Int32, kekVersion: UInt32?) {
        var text = AuditText(capacity: 640)
        text.addTime()
        text.add(",\"type\":\"response\"")
        hidden(entry).addCommon(to: &text, mount: mountText, keyring: keyringText)
        text.add(AuditEntry.Response(errno: errno, kekVersion: kekVersion))
        appendLater(text.bytes)
    }

    /// The answer to a request that an earlier server has carried out.
    public func respond(again id: String) {
        var text = AuditText()
        text.addTime()
        text.add(",\"type\":\"response\"")
        text.add("id", id)
        text.add("keyring", options.keyring)
        text.add(",\"again\":true")
        text.add("errno", number: 0)
        appendLater(text.bytes)
    }

    /// As it may be told.
    private func hidden(_ entry: AuditEntry) -> AuditEntry {
        guard options.hidesPaths else { return entry }
        let key = keys.withLock { $0 }?.paths
        func hide(_ path: [UInt8]) -> [UInt8] {
            guard let key else { return Array("hidden".utf8) }
            let code = path.withUnsafeBytes { path in
                key.withKey { MessageAuthentication.hmacSHA256(path, key: $0) }
            }
            return Array("hmac:".utf8) + AuditText.hex(code)
        }
        var hidden = entry
        hidden.path = entry.path.map(hide)
        hidden.newPath = entry.newPath.map(hide)
        return hidden
    }

    private func appendLater(_ body: [UInt8]) {
        let hadItsTurn = turnstile.pass {
            if waiting.count < Self.waitingLimit { waiting.append(body) } else { lost += 1 }
            try? write()
            return true
        }
        // Whoever does not get his turn leaves it to the next one.
        if hadItsTurn == nil {
            overdue.withLock { $0.append(body) }
            isOverdue.store(true, ordering: .releasing)
        }
        signer.wake()
    }

    /// What came while a device did not answer, and whether there is any.
    private let overdue = Mutex<[[UInt8]]>([])
    private let isOverdue = Atomic(false)

    /// Records of other things than accesses, all of them or none.
    func append(_ bodies: [[UInt8]]) throws(AuditFailure) {
        let passed: Void? = try turnstile.pass { () throws(AuditFailure) in
            try write { next, text in for body in bodies { next.chain(body, into: &text) } }
        }
        guard passed != nil else { throw AuditFailure(errno: EBUSY) }
    }

    // MARK: In the turnstile

    /// An access's records go straight into the text that is written: what both have in common is put together once.
    private func write(_ entry: AuditEntry, _ response: AuditEntry.Response?) throws(AuditFailure) {
        try write { next, text in
            var common: Range<Int> = 0..<0
            next.chain(into: &text) { text in
                text.addTime()
                text.add(",\"type\":\"request\"")
                let start = text.count
                entry.addCommon(to: &text, mount: mountText, keyring: keyringText)
                common = start..<text.count
            }
            guard let response else { return }
            next.chain(into: &text) { text in
                text.repeatTime()
                text.add(",\"type\":\"response\"")
                text.repeat(common)
                text.add(response)
            }
        }
    }

    /// Puts records behind the chain on the devices, after those that wait: all of them, or none.
    ///
    /// - Parameters:
    ///   - checkpoint: A checkpoint's body goes behind them.
    ///   - more: Adds records to what is written.
    private func write(
        checkpoint: [UInt8]? = nil, _ key: SigningKey? = nil,
        _ more: (inout AuditHead, inout AuditText) -> Void = { _, _ in }
    ) throws(AuditFailure) {
        if reopenings != Self.reopeningsAsked { rotate() }
        if isOverdue.load(ordering: .acquiring) {
            isOverdue.store(false, ordering: .relaxed)
            overdue.withLock { overdue in
                waiting += overdue
                overdue = []
            }
        }
        if let file, !file.isOpen { _ = file.open() }
        if checkpoint != nil { file?.lookForCut() }
        var next = head
        // Taken out of the object while it is changed, so that it is not copied.
        var lines = AuditText()
        swap(&lines, &text)
        defer { swap(&lines, &text) }
        lines.removeAll()
        if missingInFile > 0 { next.chain(note("gap", "missing", missingInFile), into: &lines) }
        if lost > 0 { next.chain(note("lost", "records", lost), into: &lines) }
        if file?.wasCut == true { next.chain(opened("cut"), into: &lines) }
        for body in waiting { next.chain(body, into: &lines) }
        more(&next, &lines)
        if let checkpoint, let key {
            next.chain(checkpoint, into: &lines, sign: { key.sign($0) })
        }
        guard next.number > head.number else { return }
        var number: Int32 = file == nil && syslog == nil ? ENODEV : 0
        var isKept = false
        var isInFile = false
        if let file {
            number = lines.withBytes { file.append($0) }
            isInFile = number == 0
            isKept = isInFile
        }
        if let syslog {
            let result = lines.withBytes { syslog.append($0) }
            if result == 0 { isKept = true } else { number = result }
        }
        guard isKept else {
            failures.add(1, ordering: .relaxed)
            change(failing: number)
            throw AuditFailure(errno: number)
        }
        if let file {
            missingInFile = isInFile ? 0 : missingInFile + Int(next.number - head.number)
            if isInFile { file.acknowledgeCut() }
        }
        unsigned = checkpoint == nil ? unsigned + Int(next.number - head.number) : 0
        head = next
        lost = 0
        waiting = []
        memory?.head = head
        change(failing: 0)
        if checkpoint == nil { signer.wake() }
    }

    private func change(failing number: Int32) {
        let before = failing.load(ordering: .relaxed)
        if before != number { failing.store(number, ordering: .relaxed) }
        if (before == 0) != (number == 0) { onChange(number) }
        // Tried again, also if nobody asks for anything.
        if number != 0 { signer.wake() }
    }

    // MARK: Beginning and ending

    /// Finds the end of the chain, and says which requests the last server has left without an answer.
    private func begin(_ keys: Keys) throws(AuditFailure) {
        _ = try turnstile.pass { () throws(AuditFailure) in
            if let file {
                let number = file.open()
                if number != 0, syslog == nil {
                    change(failing: number)
                    throw AuditFailure(errno: number)
                }
                file.dropHalfLine()
            }
            // After a takeover readers wait, and what was in flight comes again under its number: the last hundred or so
            // requests will do.
            let lines = AuditLine.split(file?.tail(options.takesOver ? 128 << 10 : 1 << 20) ?? [])
            let known = memory?.head ?? headOnDisk(keys) ?? AuditHead()
            var reason = options.takesOver ? "takeover" : options.opening
            var bodies: [[UInt8]] = []
            if let last = lines.reversed().lazy.compactMap({ AuditLine($0) }).first {
                head = last.head
                // The server may have died between writing a record and remembering it, and not the other way round.
                if last.number < known.number || last.number == known.number && last.hash != known.hash {
                    head = known
                    reason = "cut"
                }
                bodies = unanswered(lines).map(interrupted)
            } else {
                head = known
                if options.takesOver, memory?.head != nil, file?.isOpen == true { reason = "cut" }
            }
            // Told as soon as it can be, if not now.
            waiting += [opened(reason)] + bodies
            try write()
        }
    }

    /// Requests of the last server without a response. Others are none of this one's: they were so before.
    private func unanswered(_ lines: [ArraySlice<UInt8>]) -> [String] {
        var open: [String] = []
        for line in lines {
            guard let (type, id) = AuditLine.subject(of: line) else { continue }
            switch (type, id) {
            case ("request", let id?): open.append(id)
            case ("response", let id?), ("interrupted", let id?): open.removeAll { $0 == id }
            default: break
            }
        }
        return open
    }

    /// The last record is signed, and the file closed. Records are not taken any more.
    public func close() {
        signer.stop()
        _ = checkpoint()
        // The signing thread may have signed it, and not come to remember it yet.
        let last = turnstile.pass { unsigned == 0 ? head : nil } ?? nil
        if let last, let keys = keys.withLock({ $0 }) { remember(last, keys) }
        _ = turnstile.pass { file?.close() }
    }

    /// The keyring is locked: what is recorded from now on is signed when it is unlocked.
    public func detach() {
        _ = checkpoint()
        keys.withLock { $0 = nil }
    }

    public func attach(_ keys: Keys) { self.keys.withLock { $0 = keys } }

    // MARK: Signing

    /// Signs the chain as far as it goes, and brings it to disk.
    ///
    /// - Returns: true if there is nothing left to do.
    private func checkpoint() -> Bool {
        let keys = keys.withLock { $0 }
        let signed = try? turnstile.pass { () throws(AuditFailure) -> AuditHead? in
            let hasNews = unsigned > 0 || !waiting.isEmpty || lost > 0 || isOverdue.load(ordering: .acquiring)
            guard hasNews || failing.load(ordering: .relaxed) != 0 || reopenings != Self.reopeningsAsked else {
                return nil
            }
            guard let keys else {
                if !waiting.isEmpty { try write() }
                return nil
            }
            try write(checkpoint: checkpointBody(keys, isLast: false), keys.signing)
            return head
        }
        guard let signed else { return false }
        guard let signed, let keys else { return true }
        if let file = turnstile.pass({ file?.duplicate() }) ?? nil { fdatasync(file.number) }
        remember(signed, keys)
        return true
    }

    /// The number of the record that was remembered last.
    private let remembered = Mutex<UInt64>(0)

    private func remember(_ head: AuditHead, _ keys: Keys) {
        guard let path = options.headPath else { return }
        remembered.withLock { remembered in
            guard head.number > remembered else { return }
            AuditHeadFile(store: options.store).write(head, to: path, keys.signing)
            remembered = head.number
        }
    }

    private func headOnDisk(_ keys: Keys) -> AuditHead? {
        options.headPath.flatMap { AuditHeadFile(store: options.store).read($0, key: keys.signing.publicKey)?.head }
    }

    // MARK: Rotation

    private static let reopeningsCounter = Atomic<Int>(0)
    private static var reopeningsAsked: Int { reopeningsCounter.load(ordering: .relaxed) }

    /// From now on SIGHUP has every log of this process go on in the file that has its name then.
    public static func reopenAtHangup() {
        // What a signal's handler touches is made before.
        _ = reopeningsAsked
        signal(SIGHUP) { _ in AuditLog.reopeningsCounter.add(1, ordering: .relaxed) }
    }

    /// Ends the old file with a signature, and begins the one that has its name now.
    private func rotate() {
        reopenings = Self.reopeningsAsked
        guard let file else { return }
        if let keys = keys.withLock({ $0 }), file.isOpen {
            try? write(checkpoint: checkpointBody(keys, isLast: true), keys.signing)
        }
        guard file.open() == 0 else { return }
        file.dropHalfLine()
        if file.tail(1).isEmpty { waiting.insert(opened("rotation"), at: 0) }
    }
}
