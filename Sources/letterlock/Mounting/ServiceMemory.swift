import Glibc
import Keyring
import Sodium

/// Which keyrings a key of a key service opens, as far as this machine has seen: environments have keys of their own.
///
/// A file for each such key, named by its hash, a line for each keyring: `store id | path`, apart by a tab.
struct ServiceMemory {
    private let path: String
    private let key: String

    /// - Parameter key: As the service names it: `vault:https://HOST:PORT/MOUNT/KEY`.
    init(_ key: String) {
        self.key = key
        var hash = [UInt8](repeating: 0, count: 16)
        let bytes = Array(key.utf8)
        hash.withUnsafeMutableBytes { hash in bytes.withUnsafeBytes { Checksum.blake2b($0, into: hash) } }
        let name = hash.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        path = "\(EpochMemory.directory)/\(name).service"
    }

    private struct Use {
        var store: String
        var path: String
    }

    private func uses() -> [Use] {
        (SmallFile.text(path) ?? "").split(separator: "\n").compactMap { line in
            let parts = line.split(separator: "\t", maxSplits: 1).map(String.init)
            return parts.count == 2 ? Use(store: parts[0], path: parts[1]) : nil
        }
    }

    /// Refuses a key that another keyring is opened by, which is still there.
    ///
    /// - Parameter store: The keyring that it is for, if it is made already.
    func checkIsFree(for store: StoreID?) throws(Failure) {
        for use in uses() where use.store != store?.description {
            guard let found = try? StoreDescription(at: use.path) else { continue }
            // One that is mounted does not tell its id here, but it is there.
            guard found.summary.map({ $0.storeID.description == use.store }) ?? true else { continue }
            throw Messages.failure(
                .service(
                    KeyServiceFault(
                        .keyInUse, "\(key) opens the keyring in \(use.path) already",
                        hint: "give each environment a key of its own, or say that this is meant with --shared")))
        }
    }

    /// Remembers a use. What cannot be remembered is no reason to fail: it is a guard against a slip.
    func add(_ store: StoreID, at place: String) {
        let new = Use(store: store.description, path: place)
        let all = uses().filter { $0.store != new.store && $0.path != new.path } + [new]
        EpochMemory.makeDirectory(EpochMemory.directory)
        try? SmallFile.replace(path, with: all.map { "\($0.store)\t\($0.path)\n" }.joined())
    }
}
