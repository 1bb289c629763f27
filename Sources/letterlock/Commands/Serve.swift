import ArgumentParser

/// What a guardian starts its servers with. Not for people.
struct Serve: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Serve a mount for its guardian.", shouldDisplay: false)

    @Argument var store: String
    @Argument var mountpoint: String
    @Option(name: .customShort("o", allowingJoined: true), parsing: .singleValue) var options: [String] = []
    @OptionGroup var keys: KeyOptions
    @Flag var candidate = false
    @Flag var detached = false
    @Flag var fdStore = false

    func run() throws {
        var request = MountRequest(store: store, mountpoint: mountpoint)
        request.options = try MountOptions(parsing: options)
        request.keys = try keys.source()
        request.usesDescriptorStore = fdStore
        try MountServer(request: request, isCandidate: candidate, isDetached: detached).run()
    }
}

/// What a guardian takes its mount away with. Not for people.
struct Detach: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Unmount a keyring for its guardian.", shouldDisplay: false)

    @Argument var mountpoint: String
    @Flag(help: "Say what there is to say to the system log.") var quiet = false

    func run() throws {
        let log = ServerLog(isDetached: quiet)
        do {
            return try Unmounting.remove(mountpoint, detaches: false)
        } catch {
            guard error.code == .busy else {
                log.warn(error.message)
                throw error
            }
            log.warn(
                "\(error.message): unmounted for all others, and served until they close it or a second signal comes")
        }
        try Unmounting.remove(mountpoint, detaches: true)
    }
}
