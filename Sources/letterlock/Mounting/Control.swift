import Glibc

/// The control directory of a mounted keyring: what a command on a MOUNTPOINT talks to.
struct Control {
    let mountpoint: String

    /// Finds the keyring mounted at `path`.
    init(at path: String) throws(Failure) {
        mountpoint = try Self.mountpoint(of: path)
    }

    private init(mountpoint: String) { self.mountpoint = mountpoint }

    /// The keyring mounted at `path`; nil if `path` is something else.
    static func ifMounted(at path: String) -> Control? {
        guard case .success(let resolved) = Paths.resolved(path),
            MountTable().entry(at: resolved)?.isLetterlock == true
        else { return nil }
        return Control(mountpoint: resolved)
    }

    /// Sees that a directory is of a mounted keyring: where none is mounted other files lie, or none.
    static func checkIsOnMount(_ path: String) throws(Failure) {
        if case .success(let place) = Paths.resolved(path),
            MountTable().letterlocks.contains(where: { Paths.contains($0.mountpoint, place) })
        {
            return
        }
        // Which says why not.
        _ = try Control(at: path)
    }

    private static func mountpoint(of path: String) throws(Failure) -> String {
        let resolved: String
        switch Paths.resolved(path) {
        case .success(let path): resolved = path
        case .failure(let number) where number.value == ENOTCONN: throw dead(path)
        case .failure(let number): throw Failure(path, errno: number.value)
        }
        guard let entry = MountTable().entry(at: resolved) else {
            throw Failure("\(path) is not a mount point", hint: mountedHint())
        }
        guard entry.isLetterlock else {
            throw Failure("\(path) is a mount point of \(entry.type), not of letterlock", hint: mountedHint())
        }
        return resolved
    }

    static func dead(_ path: String) -> Failure {
        Failure(
            "\(path): the server of this mount is gone",
            hint: "run 'letterlock umount \(path)' and mount it again",
            code: .locked)
    }

    private static func mountedHint() -> String {
        let places = MountTable().letterlocks.map(\.mountpoint)
        return places.isEmpty ? "no keyring is mounted" : "mounted are: \(places.joined(separator: ", "))"
    }

    func path(_ name: String) -> String { "\(mountpoint)/.letterlock/\(name)" }

    /// What a control file reads as.
    func read(_ name: String) throws(Failure) -> [UInt8] {
        do {
            return try SmallFile.read(path(name))
        } catch {
            throw explain(error.value, reading: true, name, nil)
        }
    }

    func text(_ name: String) throws(Failure) -> String {
        var text = String(decoding: try read(name), as: UTF8.self)
        while text.last == "\n" { text.removeLast() }
        return text
    }

    func json(_ name: String) throws(Failure) -> JSON { try JSON(bytes: try read(name)) }

    /// One command. `version` is the KEK version it is about, for the message.
    func write(_ command: String, to name: String, about version: UInt32? = nil) throws(Failure) {
        do {
            try SmallFile.writeOnce(command + "\n", to: path(name))
        } catch {
            throw explain(error.value, reading: false, name, version)
        }
    }

    /// The errno of a control file in words, as section 3 of the interface gives them.
    func explain(_ number: Int32, reading: Bool, _ name: String, _ version: UInt32?) -> Failure {
        let subject = version.map { "key version \($0)" } ?? name
        return switch number {
        case ENOENT where version != nil:
            Failure("there is no \(subject)", hint: "see 'letterlock key list \(mountpoint)'")
        case ENOENT where !reading && name == "reencrypt":
            Failure("there is no such path in the keyring", hint: "it begins at the mount point: /web/key")
        case ENOENT:
            Failure(
                "the server has no control file '\(name)'", hint: "is it of the same version as this program?"
            )
        case ENOTCONN, ECONNABORTED: Self.dead(mountpoint)
        case EACCES:
            Failure(
                "\(path(name)): permission denied",
                hint: "the control directory is its owner's alone, and a policy may keep him out too")
        case EINVAL: Failure("\(subject): the server does not take this request")
        case ERANGE: Failure("\(subject): out of range, or against the order of the minimums")
        case EBUSY where version.map { (try? text("keys/\($0)/state")) == "primary" } == true:
            Failure(
                "\(subject) is the primary", hint: "make another one primary first: 'letterlock rotate \(mountpoint)'")
        case EBUSY: Failure("files still need \(subject)", hint: "see 'letterlock key list \(mountpoint)'")
        case EPERM:
            Failure(
                "\(subject): not allowed in its state",
                hint: "see 'letterlock key list \(mountpoint)'; destroying needs 1 in keys/deletion_allowed")
        case EALREADY: Failure("a job is running", hint: "wait for its end, or cancel it", code: .busy)
        case ESTALE:
            Failure(
                "the latest KEK version is another by now", hint: "see 'letterlock key list \(mountpoint)'")
        case EKEYREVOKED where name == "unlock":
            Failure("the key service's key is disabled", hint: "enable it there, and unlock once more", code: .locked)
        case ENOKEY where name == "unlock":
            Failure("the key service has no such key", hint: "was it deleted there?", code: .locked)
        case ENOKEY: Failure("\(subject): locked or destroyed", code: .locked)
        case EKEYREVOKED: Failure("\(subject) is disabled, compromised or pending destruction")
        case EKEYEXPIRED: Failure("\(subject) is below min_decryption_version")
        case EKEYREJECTED: Failure("wrong passphrase, PIN or token", code: .wrongSecret)
        case EBADMSG:
            Failure(
                "\(subject): a record does not authenticate", hint: "run 'letterlock verify'",
                code: .integrity)
        case EHOSTUNREACH, ETIMEDOUT: Failure("the key service cannot be reached", code: .locked)
        case EROFS: Failure("\(mountpoint) is mounted read-only")
        case ENOSPC: Failure("the store's disk is full", hint: "free some space; nothing was changed")
        case EIO:
            Failure(
                "cannot \(reading ? "read" : "write") \(path(name))", errno: number,
                hint: "if the audit log cannot be written nothing is done: 'letterlock status \(mountpoint)' tells")
        default: Failure("cannot \(reading ? "read" : "write") \(path(name))", errno: number)
        }
    }
}
