internal import Glibc
public import Sodium

/// Why nothing is kept.
public enum UnlockCacheError: Error, Sendable {
    /// The kernel keeps no keys, or no more of them, for this user.
    case kernel(errno: Int32)
    case unwritable(path: String, errno: Int32)
    case cannotLock
}

/// What opens a keyring once more, for a while, without asking its key service: in two halves. The root key lies sealed in a
/// file, and what opens it with the kernel, which forgets it at its time. Neither half is of any use alone.
///
///     magic 8 "LLUNLOCK" | format 4 | zero 4 | end 8 | nonce 24 | tag 16 | ciphertext 32
///
/// The end is in seconds of CLOCK_BOOTTIME: no setting of the clock moves it.
public struct UnlockCache: Sendable {
    private let path: String
    private let history: String
    private let storeID: StoreID
    private let kernelKey: KernelKey

    private static let magic: UInt64 = 0x4B43_4F4C_4E55_4C4C
    private static let format: UInt32 = 1
    private static let headByteCount = 24
    private static let byteCount = headByteCount + SealedKey.byteCount

    /// - Parameter directory: Where the file is.
    public init(directory: String, of keyring: KeyringSummary) {
        self.init(directory: directory, history: keyring.historyName, storeID: keyring.storeID)
    }

    public init(directory: String, of keyring: UnlockedKeyring) {
        self.init(directory: directory, history: keyring.historyName, storeID: keyring.storeID)
    }

    private init(directory: String, history: String, storeID: StoreID) {
        path = "\(directory)/\(history).unlock"
        self.history = history
        self.storeID = storeID
        kernelKey = KernelKey(name: "letterlock:unlock:\(history)")
    }

    /// Keeps a keyring's root key for so many seconds, in the place of what was kept before.
    public func put(_ keyring: UnlockedKeyring, seconds: Int64) throws(UnlockCacheError) {
        forget()
        var head = ByteWriter()
        head.put(Self.magic)
        head.put(Self.format)
        head.put(UInt32(0))
        head.put(Self.now + seconds)
        let half: SecretKey
        let sealed: [UInt8]
        do {
            half = try SecretKey.random()
            sealed = try seal(keyring.rootKey, head.bytes, under: half)
        } catch { throw .cannotLock }
        let number = kernelKey.put(half, seconds: seconds)
        guard number == 0 else { throw .kernel(errno: number) }
        do throws(UnlockCacheError) { try write(head.bytes + sealed) } catch {
            forget()
            throw error
        }
    }

    /// Hands the root key to a server, if it is kept and opens this configuration still.
    ///
    /// What is of no use any more is forgotten.
    public func open(_ configuration: UnsafeRawBufferPointer, into shared: SharedKey) -> Bool {
        guard let key = rootKey(of: configuration) else { return false }
        shared.put(key)
        return true
    }

    /// Whether `open` would.
    public func opens(_ configuration: UnsafeRawBufferPointer) -> Bool { rootKey(of: configuration) != nil }

    /// For how many seconds it will open the keyring, as far as can be told without trying; nil if it will not.
    public var secondsLeft: Int64? {
        guard let bytes = read(), kernelKey.isThere else { return nil }
        let left = bytes.withUnsafeBytes { Self.end($0) } - Self.now
        return left > 0 ? left : nil
    }

    /// Takes both halves away.
    public func forget() {
        kernelKey.remove()
        unlink(path)
    }

    // MARK: Parts

    private func rootKey(of configuration: UnsafeRawBufferPointer) -> SecretKey? {
        guard let bytes = read() else { return nil }
        let key = bytes.withUnsafeBytes { bytes in
            Result { () throws -> SecretKey? in
                guard Self.now < Self.end(bytes), let half = try kernelKey.read(),
                    let key = try open(bytes, under: half)
                else {
                    return nil
                }
                try Configuration.authenticate(configuration, key)
                return key
            }
        }
        if let key = (try? key.get()) ?? nil { return key }
        forget()
        return nil
    }

    private static func end(_ bytes: UnsafeRawBufferPointer) -> Int64 {
        Int64(littleEndian: bytes.loadUnaligned(fromByteOffset: 16, as: Int64.self))
    }

    private static var now: Int64 {
        var time = timespec()
        clock_gettime(CLOCK_BOOTTIME, &time)
        return Int64(time.tv_sec)
    }

    private func seal(_ rootKey: SecretKey, _ head: [UInt8], under half: SecretKey) throws(KeyringError) -> [UInt8] {
        let wrapping = try half.derived(Self.label)
        return [UInt8](unsafeUninitializedCapacity: SealedKey.byteCount) { buffer, count in
            head.withUnsafeBytes { head in
                withBinding(head) { data in
                    wrapping.withKey { wrapping in
                        let bytes = wrapping.bytes
                        rootKey.withKey {
                            SealedKey.seal(
                                $0.bytes, into: UnsafeMutableRawBufferPointer(buffer), associatedData: data,
                                under: BorrowedKey(bytes))
                        }
                    }
                }
            }
            count = SealedKey.byteCount
        }
    }

    /// - Returns: nil if it does not authenticate.
    private func open(_ bytes: UnsafeRawBufferPointer, under half: SecretKey) throws -> SecretKey? {
        let wrapping = try half.derived(Self.label)
        return try withScratchKey { (key: UnsafeMutableRawBufferPointer) throws(SodiumError) -> SecretKey? in
            let isOpen = withBinding(UnsafeRawBufferPointer(rebasing: bytes[..<Self.headByteCount])) { data in
                wrapping.withKey {
                    SealedKey.open(
                        UnsafeRawBufferPointer(rebasing: bytes[Self.headByteCount...]), into: key,
                        associatedData: data, under: $0)
                }
            }
            return isOpen ? try SecretKey(copying: UnsafeRawBufferPointer(key)) : nil
        }
    }

    private static let label: StaticString = "letterlock unlock cache 1"

    private func withBinding<R>(_ head: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer) -> R) -> R {
        let history = Array(history.utf8)
        return storeID.withUnsafeBytes { store in
            history.withUnsafeBytes { withAssociatedData(Self.label, [store, $0, head], body) }
        }
    }

    // MARK: The file

    private func write(_ bytes: [UInt8]) throws(UnlockCacheError) {
        let temporary = "\(path).\(getpid())"
        let descriptor = Glibc.open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw .unwritable(path: path, errno: errno) }
        var number: Int32 = Glibc.write(descriptor, bytes, bytes.count) == bytes.count ? 0 : max(errno, ENOSPC)
        close(descriptor)
        if number == 0, rename(temporary, path) != 0 { number = errno }
        guard number == 0 else {
            unlink(temporary)
            throw .unwritable(path: path, errno: number)
        }
    }

    /// - Returns: nil for what is not such a file.
    private func read() -> [UInt8]? {
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: Self.byteCount + 1)
        let count = Glibc.read(descriptor, &bytes, bytes.count)
        guard count == Self.byteCount else { return nil }
        bytes.removeLast()
        let isOne = bytes.withUnsafeBytes { bytes in
            UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self)) == Self.magic
                && UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt32.self)) == Self.format
        }
        return isOne ? bytes : nil
    }
}
