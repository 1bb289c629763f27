import Access
import ArgumentParser
import Glibc

struct Audit: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Look at a keyring's audit log.", subcommands: [AuditVerify.self, AuditTail.self])
}

struct AuditVerify: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify", abstract: "Find out whether an audit log is what was written; exit 5 if it is not.",
        discussion: """
            Needs no key and no mount. Signatures are checked with the key that is given, else with the one that this machine \
            remembers of the store, else with the one that the log itself names: then it tells changes, but not a log that \
            somebody else has made up. Of a log that is being written, the end is waited for to be signed.
            """)

    @Argument(help: "The log, or where its keyring is mounted.", completion: .file())
    var file: String

    @Option(
        help: ArgumentHelp("The public key of the keyring's log, as .letterlock/audit/key tells.", valueName: "hex"))
    var key: String?

    func run() throws {
        if let control = Control.ifMounted(at: file) {
            let verdict = try control.text("audit/verify")
            guard verdict.hasPrefix("ok ") else { throw Failure("\(file): \(verdict)", code: .integrity) }
            return Output.line(verdict)
        }
        var signer: [UInt8]?
        if let key {
            guard let bytes = AuditVerification.key(key) else {
                throw Failure("--key is 64 hexadecimal digits", code: .usage)
            }
            signer = bytes
        }
        guard access(file, R_OK) == 0 else { throw Failure(file, errno: errno) }
        var known: AuditHead?
        if let store = AuditVerification.store(ofLog: file),
            let remembered = AuditHeadFile(store: store).read(AuditOpening.headPath(store: store), key: signer)
        {
            known = remembered.head
            signer = signer ?? remembered.key
        } else if signer == nil {
            Output.warn(
                "nothing is remembered of this log here: its end, and who has signed it, are what it says itself")
        }
        let verdict = Self.verdict(file, signer: signer, known: known)
        guard verdict.isSound else { throw Failure("\(file): \(verdict.text)", code: .integrity) }
        Output.line(verdict.text)
    }

    /// What is being written is signed once a second, and has always an end that is not: so it is looked at again until what was
    /// there at first is signed. Of a log that was cut it never is.
    private static func verdict(_ file: String, signer: [UInt8]?, known: AuditHead?) -> AuditVerification.Verdict {
        var count: Int?
        var looksLeft = 6
        while true {
            var verification = AuditVerification(key: signer)
            verification.read(file)
            let (all, signed) = (verification.recordCount, verification.signedCount)
            let isBeingWritten = signed < all && signed >= count ?? all
            let verdict = verification.verdict(known: known, isLive: isBeingWritten)
            looksLeft -= 1
            guard verdict.isUnfinished, looksLeft > 0 else { return verdict }
            count = count ?? all
            usleep(400_000)
        }
    }
}

struct AuditTail: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tail", abstract: "Print the newest records of a mounted keyring's log.")

    @Argument(help: "Where the keyring is mounted.", completion: .directory)
    var mountpoint: String

    func run() throws { Output.line(try Control(at: mountpoint).text("audit/tail")) }
}
