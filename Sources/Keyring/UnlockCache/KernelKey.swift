internal import CLinux
internal import Glibc
internal import Sodium

/// A key of 32 bytes that the kernel keeps for a user, for a while: a `user` key in the user keyring (keyrings(7)).
///
/// It is none of the disk's, reaches no swap, and is gone at its time, with a reboot, or when it is removed. Only who possesses
/// the user keyring may look at it, which are this user's processes, and nobody may change it or have it live longer.
struct KernelKey {
    let name: String

    // <linux/keyctl.h>
    private enum Operation {
        static let setPermissions: Int32 = 5
        static let link: Int32 = 8
        static let setTimeout: Int32 = 15
        static let invalidate: Int32 = 21
    }
    private static let processKeyring: Int = -2
    private static let userKeyring: Int = -4
    /// KEY_POS_VIEW, KEY_POS_READ and KEY_POS_SEARCH: for its possessor alone.
    private static let permissions = 0x0B00_0000

    /// Puts it there in the place of what was there.
    ///
    /// - Returns: 0, or an error number.
    func put(_ key: SecretKey, seconds: Int64) -> Int32 {
        remove()
        let (id, number) = key.withKey { key in
            let id = ll_add_user_key(name, key.bytes.baseAddress, key.bytes.count, Self.userKeyring)
            return (id, id < 0 ? errno : 0)
        }
        guard id >= 0 else { return number }
        guard ll_keyctl(Operation.setTimeout, id, Int(seconds), 0, 0) >= 0,
            ll_keyctl(Operation.setPermissions, id, Self.permissions, 0, 0) >= 0
        else {
            let number = errno
            _ = ll_keyctl(Operation.invalidate, id, 0, 0, 0)
            return number
        }
        return 0
    }

    /// - Returns: nil if it is not there, or not any more.
    func read() throws(SodiumError) -> SecretKey? {
        guard let id = find() else { return nil }
        return try withScratchKey { (bytes: UnsafeMutableRawBufferPointer) throws(SodiumError) -> SecretKey? in
            let count = ll_keyctl_read(id, bytes.baseAddress, bytes.count)
            guard count == bytes.count else { return nil }
            return try SecretKey(copying: UnsafeRawBufferPointer(bytes))
        }
    }

    var isThere: Bool { find() != nil }

    func remove() {
        guard let id = find() else { return }
        _ = ll_keyctl(Operation.invalidate, id, 0, 0, 0)
    }

    private func find() -> Int? {
        // A service, or a login of its own, need not possess its user's keyring; whoever is that user may link it.
        _ = ll_keyctl(Operation.link, Self.userKeyring, Self.processKeyring, 0, 0)
        let id = ll_keyctl_search(Self.userKeyring, name)
        return id < 0 ? nil : id
    }
}
