import Glibc
import Keyring
import SecretTree
import Sodium

/// What opened a keyring a while ago, for a mount with `-o unlock-cache=`.
enum UnlockCaching {
    /// Of a store that nobody serves.
    static func cache(ofStore path: String) throws(Failure) -> (cache: UnlockCache, configuration: [UInt8]) {
        let configuration = try StoreDescription.configuration(of: path)
        do {
            let summary = try configuration.withUnsafeBytes { try KeyringSummary(configuration: $0) }
            return (UnlockCache(directory: EpochMemory.directory, of: summary), configuration)
        } catch { throw Messages.failure(for: error) }
    }

    static func cache(of keyring: UnlockedKeyring) -> UnlockCache {
        UnlockCache(directory: EpochMemory.directory, of: keyring)
    }

    /// Keeps what opens a keyring; one that cannot be kept is asked for again.
    ///
    /// - Returns: What its administrator should know.
    static func keep(_ keyring: UnlockedKeyring, seconds: Int64) -> String? {
        EpochMemory.makeDirectory(EpochMemory.directory)
        do throws(UnlockCacheError) {
            try cache(of: keyring).put(keyring, seconds: seconds)
            return nil
        } catch {
            let why =
                switch error {
                case .kernel(let number): "the kernel's keyring: \(SystemError.text(number))"
                case .unwritable(let path, let number): "\(path): \(SystemError.text(number))"
                case .cannotLock: Messages.failure(SodiumError.cannotLock).message
                }
            return "there is no unlock cache, what opens the keyring will be asked for again: \(why)"
        }
    }
}

extension MountRequest {
    /// Nobody need be asked for what opens it. It may be over in a moment: whoever opens it looks again.
    var isUnlockCached: Bool {
        guard options.unlockCache != nil else { return false }
        LockedMemory.allowsUnlocked = options.allowsUnlockedMemory || keys.allowsUnlockedMemory
        guard (try? Sodium.start()) != nil, let found = try? UnlockCaching.cache(ofStore: store) else { return false }
        return found.configuration.withUnsafeBytes { found.cache.opens($0) }
    }
}
