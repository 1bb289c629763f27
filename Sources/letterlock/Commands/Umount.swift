import ArgumentParser

struct Umount: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Unmount a keyring; everything written is on disk when it returns.")

    @Argument(help: "Where the keyring is mounted.", completion: .directory)
    var mountpoint: String

    func run() throws {
        try Unmounting.unmount(mountpoint)
    }
}
