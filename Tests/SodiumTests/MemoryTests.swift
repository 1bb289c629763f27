import Glibc
import Sodium
import Testing

@Suite struct MemoryTests {
    @Test func `wiping leaves zeros`() {
        var text: [UInt8] = [1, 2, 3, 4, 5]
        text.withUnsafeMutableBytes { Memory.wipe(UnsafeMutableRawBufferPointer(rebasing: $0[1..<4])) }
        #expect(text == [1, 0, 0, 0, 5])
    }

    @Test func `equality looks at lengths and every byte`() {
        func equal(_ a: [UInt8], _ b: [UInt8]) -> Bool {
            a.withUnsafeBytes { a in b.withUnsafeBytes { Memory.equal(a, $0) } }
        }
        #expect(equal([], []) && equal([1, 2], [1, 2]))
        #expect(!equal([1, 2], [1, 3]) && !equal([1, 2], [1]) && !equal([], [0]))
    }

    @Test(arguments: [0, 1, 32, 4095, 4096, 10000])
    func `locked bytes begin as zeros and keep what is written`(count: Int) throws {
        var secret = try SecretBytes(byteCount: count)
        #expect(secret.byteCount == count)
        #expect(secret.withUnsafeBytes { $0.allSatisfy { $0 == 0 } })
        secret.withUnsafeMutableBytes { for index in $0.indices { $0[index] = UInt8(truncatingIfNeeded: index) } }
        #expect(
            secret.withUnsafeBytes { $0.enumerated().allSatisfy { $0.element == UInt8(truncatingIfNeeded: $0.offset) } }
        )
    }

    @Test func `a scratch buffer begins as zeros`() {
        let buffer = ScratchBuffer(byteCount: 5000)
        #expect(buffer.byteCount == 5000 && buffer.bytes.allSatisfy { $0 == 0 })
    }

    @Test func `a scratch key is wiped, also when its user throws`() {
        struct Failure: Error {}
        nonisolated(unsafe) var address: UnsafeMutableRawBufferPointer?
        #expect(throws: Failure.self) {
            try withScratchKey { (key: UnsafeMutableRawBufferPointer) throws(Failure) in
                #expect(key.count == 32 && key.allSatisfy { $0 == 0 })
                Randomness.fill(key)
                address = key
                throw Failure()
            }
        }
        #expect(address != nil)
    }

    @Test func `thousands of keys share few pages, and keep apart`() throws {
        let keys = try (0..<3000).map { number in
            try withScratchKey { bytes in
                bytes.storeBytes(of: number, as: Int.self)
                return try SecretKey(copying: UnsafeRawBufferPointer(bytes))
            }
        }
        for (number, key) in keys.enumerated() {
            #expect(key.withKey { $0.bytes.load(as: Int.self) } == number)
        }
    }

    @Test func `a wiped key is zero`() throws {
        let key = try SecretKey.random()
        #expect(key.withKey { !$0.bytes.allSatisfy { $0 == 0 } })
        key.wipe()
        #expect(key.withKey { $0.bytes.allSatisfy { $0 == 0 } })
    }

    @Test func `without locked memory there are no keys, unless that is allowed`() async {
        await #expect(processExitsWith: .success) {
            var none = rlimit(rlim_cur: 0, rlim_max: 0)
            guard setrlimit(__rlimit_resource_t(8), &none) == 0 else { exit(1) }
            // The privileges of root would let it lock nevertheless.
            if geteuid() == 0 { guard setgid(65534) == 0, setuid(65534) == 0 else { exit(2) } }
            do {
                _ = try SecretBytes(byteCount: 32)
                exit(3)
            } catch SodiumError.cannotLock {} catch { exit(4) }
            do {
                _ = try SecretKey.random()
                exit(5)
            } catch SodiumError.cannotLock {} catch { exit(6) }
            LockedMemory.allowsUnlocked = true
            do {
                _ = try SecretBytes(byteCount: 32)
                _ = try SecretKey.random()
            } catch { exit(7) }
            exit(0)
        }
    }

    @Test func `nonces do not repeat`() {
        var seen: Set<[UInt8]> = []
        var nonce = [UInt8](repeating: 0, count: Seal.nonceByteCount)
        for _ in 0..<20000 {
            nonce.withUnsafeMutableBytes { Randomness.nonce(into: $0) }
            #expect(seen.insert(nonce).inserted)
        }
    }
}
