import ArgumentParser
import Keyring

struct Key: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show and change the versions of the key-encryption key.",
        subcommands: [
            KeyList.self, KeyDisable.self, KeyEnable.self, KeyPromote.self, KeyDestroy.self,
            KeyCancelDestroy.self,
        ],
        defaultSubcommand: nil)
}

/// `MOUNTPOINT N`, `N MOUNTPOINT`, or `N` alone if it is clear which keyring is meant.
struct VersionArguments: ParsableArguments {
    @Argument(
        help: ArgumentHelp(
            "Where the keyring is mounted, and the version. One mounted keyring need not be named.",
            valueName: "[MOUNTPOINT] N"),
        completion: .directory)
    var words: [String]

    func resolve() throws(Failure) -> (Control, version: UInt32) {
        guard words.count <= 2 else { throw Failure("too many arguments", hint: Self.hint, code: .usage) }
        guard let index = words.lastIndex(where: { UInt32($0).map { $0 > 0 } == true }),
            let version = UInt32(words[index])
        else { throw Failure("the version is a number from 1 up", hint: Self.hint, code: .usage) }
        var rest = words
        rest.remove(at: index)
        if let place = rest.first { return (try Control(at: place), version) }
        return (try Control(at: try Self.onlyMountpoint()), version)
    }

    /// The mount, of a command that is about no version.
    func resolveMount() throws(Failure) -> Control {
        guard words.count == 1 else { throw Failure("too many arguments", hint: Self.hint, code: .usage) }
        return try Control(at: words[0])
    }

    private static let hint = "for example: letterlock key disable /mnt/prod 1"

    /// Where the working directory lies, else the one keyring that is mounted.
    private static func onlyMountpoint() throws(Failure) -> String {
        let mounted = MountTable().letterlocks.map(\.mountpoint)
        if case .success(let here) = Paths.resolved("."),
            let place = mounted.last(where: { Paths.contains($0, here) })
        {
            return place
        }
        guard mounted.count == 1 else {
            throw Failure(
                mounted.isEmpty
                    ? "no keyring is mounted" : "which keyring is meant: \(mounted.joined(separator: ", "))",
                hint: hint, code: .usage)
        }
        return mounted[0]
    }
}

struct KeyDisable: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "disable",
        abstract: "Deny everything that a version protects, until it is enabled again.")
    @OptionGroup var options: KeyChangeOptions

    func run() throws {
        let change = KeyChange(file: "state", order: "disable") { lifecycle, version, _ throws(LifecycleError) in
            guard lifecycle.state(of: version) != .disabled else { throw .notPermitted }
            try lifecycle.disable(version, now: .now())
        }
        try options.run(change, would: "disabled") { _, version in
            "KEK version \(version) is disabled: files under it cannot be read"
        }
    }
}

struct KeyEnable: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "enable", abstract: "Take a version into use again.")
    @OptionGroup var options: KeyChangeOptions

    func run() throws {
        let change = KeyChange(file: "state", order: "enable") { lifecycle, version, _ throws(LifecycleError) in
            guard lifecycle.state(of: version).map({ $0 == .disabled }) ?? true else { throw .notPermitted }
            try lifecycle.enable(version, now: .now())
        }
        try options.run(change, would: "enabled") { control, version throws(Failure) in
            "KEK version \(version) is \(try control.text("keys/\(version)/state"))"
        }
    }
}

struct KeyPromote: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "promote", abstract: "Make a version the primary: what new values are sealed under.")
    @OptionGroup var options: KeyChangeOptions

    func run() throws {
        let change = KeyChange { lifecycle, version, _ throws(LifecycleError) in
            try lifecycle.promote(version, now: .now())
        }
        try options.run(change, would: "the primary") { _, version in "KEK version \(version) is the primary" }
    }
}

struct KeyDestroy: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "destroy",
        abstract: "Erase a version for good, after a time in which it can be called off.")
    @OptionGroup var options: KeyChangeOptions

    @Option(help: "Days until then, 7 to 30.")
    var days: UInt8 = 30

    @Flag(help: "Even if files still need the version: they are lost with it.")
    var force = false

    func run() throws {
        let (days, force) = (days, force)
        let change = KeyChange(file: "destroy", order: force ? "\(days) force" : "\(days)") {
            lifecycle, version, files throws(LifecycleError) in
            try lifecycle.scheduleDestruction(of: version, days: Int(days), force: force, files: files, now: .now())
        }
        try options.run(change, would: "destroyed in \(days) days") { control, version throws(Failure) in
            "KEK version \(version) will be destroyed at \(try control.text("keys/\(version)/destroy"))"
        }
    }
}

struct KeyCancelDestroy: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cancel-destroy", abstract: "Call a destruction off: the version is disabled again.")
    @OptionGroup var options: KeyChangeOptions

    func run() throws {
        let change = KeyChange(file: "cancel_destroy", order: "1") { lifecycle, version, _ throws(LifecycleError) in
            try lifecycle.cancelDestruction(of: version, now: .now())
        }
        try options.run(change, would: "disabled, and not destroyed") { control, version throws(Failure) in
            "KEK version \(version) is \(try control.text("keys/\(version)/state"))"
        }
    }
}
