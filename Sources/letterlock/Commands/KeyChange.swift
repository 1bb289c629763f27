import ArgumentParser
import Glibc
import Keyring

/// A change of one KEK version: the command that its control file takes, and what the state machine makes of it.
struct KeyChange {
    typealias Rehearsal = (inout KeyLifecycle, KEKVersion, _ files: Int) throws(LifecycleError) -> Void

    /// The control file in the version's directory; nil for `keys/primary`.
    var file: String?
    /// Nil for the version's number.
    var order: String?
    var rehearse: Rehearsal

    func path(of version: UInt32) -> String { file.map { "keys/\(version)/\($0)" } ?? "keys/primary" }

    /// What the change would lead to.
    ///
    /// - Throws: What the control file would refuse it with.
    func foretell(_ control: Control, _ version: UInt32) throws(Failure) -> (now: KEKState, next: KEKState, files: Int)
    {
        let list = try control.json("keys/list").elements
        let number = KEKVersion(rawValue: version)
        let (lifecycle, files) = try Self.lifecycle(control, list, version)
        guard let now = lifecycle.state(of: number) else {
            throw control.explain(ENOENT, reading: false, path(of: version), version)
        }
        var after = lifecycle
        do throws(LifecycleError) { try rehearse(&after, number, files) } catch {
            throw control.explain(Self.number(of: error), reading: false, path(of: version), version)
        }
        return (now, after.state(of: number) ?? now, files)
    }

    private static func lifecycle(_ control: Control, _ list: [JSON], _ version: UInt32) throws(Failure) -> (
        KeyLifecycle, files: Int
    ) {
        var versions: [(state: KEKState, reason: String?)] = []
        for entry in list {
            guard let state = entry["state"].string.flatMap(KEKState.init(name:)) else { throw unknown }
            versions.append((state, entry["reason"].string))
        }
        func minimum(_ name: String) throws(Failure) -> KEKVersion {
            guard let number = UInt32(try control.text("keys/min_\(name)_version")) else { throw unknown }
            return KEKVersion(rawValue: number)
        }
        guard
            let lifecycle = KeyLifecycle(
                rehearsing: versions, minDecryption: try minimum("decryption"),
                minEncryption: try minimum("encryption"),
                deletionAllowed: try control.text("keys/deletion_allowed") == "1", now: .now())
        else { throw unknown }
        return (lifecycle, list.first { $0["version"].integer == Int(version) }?["files"].integer ?? 0)
    }

    private static let unknown = Failure(
        "the server's keys are in no state that this program knows", hint: "is it of the same version as this program?")

    /// As control files answer it.
    private static func number(of error: LifecycleError) -> Int32 {
        switch error {
        case .noSuchVersion: ENOENT
        case .isPrimary, .filesRemain: EBUSY
        case .notPermitted: EPERM
        case .outOfRange: ERANGE
        case .staleLatest: ESTALE
        case .destroyed: ENOKEY
        }
    }
}

/// What all commands have that change one KEK version.
struct KeyChangeOptions: ParsableArguments {
    @OptionGroup var target: VersionArguments

    @Flag(help: "Say what it would lead to, or why it would be refused, and do nothing.")
    var dryRun = false

    @Flag(help: "Tell about it as JSON.")
    var json = false

    /// Makes the change, or tells what it would be.
    ///
    /// - Parameters:
    ///   - would: The change in words, after "KEK version 1 would be".
    ///   - said: What has happened, in words.
    func run(_ change: KeyChange, would: String, said: (Control, UInt32) throws(Failure) -> String) throws(Failure) {
        let (control, version) = try target.resolve()
        if dryRun {
            let (now, next, files) = try change.foretell(control, version)
            guard !json else {
                return Output.line(
                    "{\"version\":\(version),\"state\":\"\(now.name)\",\"next\":\"\(next.name)\",\"files\":\(files)}")
            }
            let loss = now.isReadable && !next.isReadable ? ", and its files could not be read" : ""
            return Output.line(
                "KEK version \(version) is \(now.name) and has \(files) files: it would be \(would)\(loss)")
        }
        try control.write(change.order ?? String(version), to: change.path(of: version), about: version)
        guard json else { return Output.line(try said(control, version)) }
        let state = try control.text("keys/\(version)/state")
        let (files, deadline) = (try control.text("keys/\(version)/files"), try control.text("keys/\(version)/destroy"))
        Output.line(
            "{\"version\":\(version),\"state\":\(JSON.quoted(state)),\"files\":\(files),"
                + "\"destroy_at\":\(deadline == "-" ? "null" : JSON.quoted(deadline))}")
    }
}
