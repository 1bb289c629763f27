import Fuse
import Glibc
import Keyring
import SecretFS
import SecretTree
import Sodium
import Storage

// A keyring served without a guardian: nothing outlives this process, nobody shares its memory, and no request is
// written down. What the benchmark compares a mount with, to tell what outliving its server costs.
//
// usage: serve-alone STORE MOUNTPOINT KEYFILE

func serve(_ store: String, at mountpoint: String, _ keyFile: String) throws {
    LockedMemory.allowsUnlocked = true
    try Sodium.start()
    let records = try JournaledStore.open(at: store, purpose: "served alone at \(mountpoint)")
    let (configuration, lifecycle) = try SecretTree.keyRecords(of: records)
    let keyring = try configuration.withUnsafeBytes { configuration in
        try lifecycle.withUnsafeBytes { lifecycle in
            try UnlockedKeyring.unlock(
                configuration: configuration, lifecycle: lifecycle, with: FileKeyService(path: keyFile))
        }
    }
    let tree = try SecretTree.open(records, keyring: keyring, readOnly: false, seenEpoch: nil, now: .now())
    let fileSystem = SecretFS(tree, options: SecretFSOptions(ownerUID: geteuid(), ownerGID: getegid()))
    let mount = try Mount(at: mountpoint, Mount.Options(source: keyring.name))
    var options = Server.Options()
    options.threadStarter = { SecretStack.startThread(byteCount: $0, signals: $1, $2) }
    let server = try Server(serving: fileSystem, descriptor: mount.descriptor, options: options)
    fileSystem.connect(server.notifier)
    try server.start()
    _ = server.wait()
    fileSystem.drain()
    try records.close()
}

guard CommandLine.arguments.count == 4 else {
    print("usage: serve-alone STORE MOUNTPOINT KEYFILE")
    exit(2)
}
do { try serve(CommandLine.arguments[1], at: CommandLine.arguments[2], CommandLine.arguments[3]) } catch {
    print("serve-alone: \(error)")
    exit(1)
}
