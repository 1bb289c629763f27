import ArgumentParser
import Glibc
import Keyring
import Sodium
import Storage

struct Lock: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Take the keys of a mounted keyring away; every secret is refused until it is unlocked.",
        discussion: """
            What an unlock cache keeps goes with them. Of a keyring that is not mounted, named by its directory, that is all \
            there is to take away.
            """)

    @Argument(help: "Where the keyring is mounted; or its directory.", completion: .directory)
    var mountpoint: String

    func run() throws {
        if Control.ifMounted(at: mountpoint) == nil, let description = try? StoreDescription(at: mountpoint) {
            guard let place = description.holder?.mountpoint else {
                guard let holder = description.holder else {
                    let found = try UnlockCaching.cache(ofStore: description.path)
                    found.cache.forget()
                    return Output.line("\(mountpoint): not mounted, and no unlock cache opens it")
                }
                throw Messages.failure(.busy(holder: holder.text), store: description.path)
            }
            return try Control(at: place).write("1", to: "lock")
        }
        try Control(at: mountpoint).write("1", to: "lock")
    }
}

struct Unlock: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Unlock a mounted keyring.",
        discussion: "Asks for the passphrase, if that is what opens it; else the key service is asked once more.")

    @Argument(help: "Where the keyring is mounted.", completion: .directory)
    var mountpoint: String

    @Option(help: ArgumentHelp("Read the passphrase from a file.", valueName: "file"), completion: .file())
    var passphraseFile: String?

    @Option(help: ArgumentHelp("Read the passphrase from an open descriptor.", valueName: "n"))
    var passphraseFd: Int32?

    func run() throws {
        let control = try Control(at: mountpoint)
        let services = try control.json("status")["key_services"].elements.map(\.words)
        let isGiven = passphraseFile != nil || passphraseFd != nil
        // Another service than a passphrase is asked without asking anybody.
        if !isGiven, services.contains(where: { $0 != "passphrase" }) {
            do throws(Failure) { return try control.write("1", to: "unlock") } catch {
                guard error.code == .wrongSecret, services.contains("passphrase") else { throw error }
            }
        }
        var keys = KeySource()
        keys.passphraseFile = passphraseFile
        keys.passphraseDescriptor = passphraseFd
        let secret = try keys.typedPassphrase()
        // The kernel does not reach into secret memory for what it hands to the server.
        let scratch = ScratchBuffer(byteCount: secret.byteCount)
        secret.withUnsafeBytes { scratch.bytes.copyMemory(from: $0) }
        let descriptor = open(control.path("unlock"), O_WRONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw control.explain(errno, reading: false, "unlock", nil) }
        defer { close(descriptor) }
        let written = write(descriptor, scratch.bytes.baseAddress, scratch.byteCount)
        let number = written == scratch.byteCount ? 0 : errno
        guard number == 0 else { throw control.explain(number, reading: false, "unlock", nil) }
    }
}
