import ArgumentParser

struct Mount: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Mount a keyring; returns when the mount answers.",
        discussion: """
            Options for -o, separated by commas:
              ro                     nothing can be changed
              allow_other            others may enter, as far as modes let them (default for root)
              uid=N, gid=N           show everything as owned by them
              umask=NNN              narrow the modes of what is created
              cache=kernel|none      keep what was read in the page cache (default), or never
              idle_lock=15m          lock the keyring when nobody has used it for so long
              lease=1h               ask the key service again after so long, and lock the keyring if it says no
              lease_grace=15m        for how long it may then say nothing
              unlock-cache=15m       open it so long without asking what opens it again
              audit=fail-closed|best-effort|off
                                     what cannot be recorded does not happen (default), or is counted
              audit-log=PATH         the log's file; none for no file
              audit-syslog           record to the system log as well
              audit-paths=clear|hmac tell paths (default), or what stands for them
              key-service=SPEC, passphrase-file=FILE
                                     as the options below
              accept-rollback        take an older copy of the store than was seen before
              allow-unlocked-memory  go on if keys cannot be locked into memory
              nosuid, nodev, noexec, noatime, nofail, _netdev, x-…
                                     as for any file system
            """)

    @Argument(help: "The directory of the keyring.", completion: .directory)
    var store: String

    @Argument(help: "Where its secrets shall be files.", completion: .directory)
    var mountpoint: String

    @Flag(name: .short, help: "Stay in the foreground; tells systemd when the mount answers.")
    var foreground = false

    @Option(
        name: .customShort("o", allowingJoined: true), parsing: .singleValue,
        help: ArgumentHelp("Mount options.", valueName: "options"))
    var options: [String] = []

    @OptionGroup var keys: KeyOptions

    @Flag(help: "Take an older copy of the store than was seen before, as after a restore.")
    var acceptRollback = false

    @Flag(
        help: """
            Have systemd keep the mount while the service is restarted (FileDescriptorStoreMax=, RestartKillSignal=SIGUSR2).
            """)
    var fdStore = false

    @Option(help: .hidden)
    var readyFd: Int32?

    func run() throws {
        var request = MountRequest(store: store, mountpoint: mountpoint)
        request.options = try MountOptions(parsing: options)
        if acceptRollback { request.options.acceptsRollback = true }
        request.keys = try keys.source()
        if request.keys.allowsUnlockedMemory { request.options.allowsUnlockedMemory = true }
        request.staysInForeground = foreground
        request.usesDescriptorStore = fdStore
        request.ready = readyFd.map(ReadyPipe.init(descriptor:))
        try request.run()
    }
}
