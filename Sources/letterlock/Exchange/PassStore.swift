import Glibc

/// Stores of the program pass: a file `NAME.gpg` each, which the program gpg opens and seals, with all that it knows of keys, cards and
/// passphrases. No plaintext lies in a file on the way.
enum PassStore {
    private static let ending = ".gpg"
    /// Names for whom it is sealed.
    static let recipientsFile = ".gpg-id"

    private static let hint = "install the package gpg"

    // MARK: Reading

    /// - Parameter skipped: Told of what is no file of gpg's.
    static func read(_ directory: String, skipped: @escaping (String) -> Void) throws(Failure) -> [ExchangeEntry] {
        let gpg = try Filter("gpg", ["--quiet", "--batch", "--decrypt"], hint: hint)
        var entries: [ExchangeEntry] = []
        try ExchangeTree.visit(directory, enters: isShown, skipped: skipped) {
            (path, descriptor, place) throws(Failure) in
            let name = path[path.count - 1]
            guard name.hasSuffix(ending), name.utf8.count > ending.utf8.count else { return skipped(place) }
            guard let value = try gpg.run(reading: descriptor) else {
                throw Failure("gpg does not open \(place)", hint: "nothing was taken")
            }
            let own = String(name.dropLast(ending.count))
            try ExchangeEntry.check(own, in: directory)
            entries.append(ExchangeEntry(path: path.dropLast() + [own], value: value))
        }
        return entries
    }

    /// What is hidden is pass's own, or git's.
    private static func isShown(_ name: String) -> Bool { !name.hasPrefix(".") }

    // MARK: Writing

    /// The files of a store, sealed.
    ///
    /// - Parameter recipients: Fingerprints of keys that gpg has.
    static func sealed(_ entries: [ExchangeEntry], for recipients: [String]) throws(Failure) -> [ExchangeEntry] {
        // Whoever names a key by its fingerprint knows that it is the right one.
        let options = ["--quiet", "--batch", "--no-encrypt-to", "--compress-algo", "none", "--trust-model", "always"]
        let gpg = try Filter("gpg", options + recipients.flatMap { ["--recipient", $0] } + ["--encrypt"], hint: hint)
        let list = SecretValue()
        list.append(recipients.map { $0 + "\n" }.joined())
        var files = [ExchangeEntry(path: [recipientsFile], value: list)]
        for entry in entries {
            guard entry.path.allSatisfy(isShown), entry.path[entry.path.count - 1].utf8.count <= 251
            else {
                throw Failure(
                    "\(entry.name) cannot be a name of pass", hint: "names do not begin with a dot, and have 251 bytes")
            }
            guard let value = try gpg.run(on: entry.value) else {
                throw Failure(
                    "gpg does not seal for \(recipients.joined(separator: ", "))", hint: "nothing was written")
            }
            files.append(
                ExchangeEntry(path: entry.path.dropLast() + [entry.path[entry.path.count - 1] + ending], value: value))
        }
        return files
    }

    /// - Throws: A usage failure for what could mean several keys.
    static func check(recipient: String) throws(Failure) {
        guard recipient.utf8.count == 40, recipient.allSatisfy({ $0.isASCII && $0.isHexDigit }) else {
            throw Failure(
                "'\(recipient)' is no fingerprint of a key",
                hint: "'gpg --list-keys' shows them: 40 hexadecimal digits",
                code: .usage)
        }
    }
}
