import Glibc
import Keyring
import SecretFS
import Sodium
import Synchronization

/// Counts what a server asks of key services, and how long they take to answer.
final class KeyServiceMeter: Sendable {
    private struct Series: Hashable {
        var service: String
        var isDone: Bool
    }
    private let counts = Mutex<[Series: SecretFSOptions.KeyServiceCalls]>([:])

    var report: [SecretFSOptions.KeyServiceCalls] {
        counts.withLock { Array($0.values) }
    }

    fileprivate func measure<R>(_ kind: KeySlotKind, _ body: () throws(KeyringError) -> R) throws(KeyringError) -> R {
        let start = Self.now
        do throws(KeyringError) {
            let result = try body()
            add(kind, isDone: true, Self.now - start)
            return result
        } catch {
            add(kind, isDone: false, Self.now - start)
            throw error
        }
    }

    private func add(_ kind: KeySlotKind, isDone: Bool, _ seconds: Double) {
        counts.withLock { counts in
            let series = Series(service: kind.name, isDone: isDone)
            let none = SecretFSOptions.KeyServiceCalls(service: series.service, isDone: isDone)
            counts[series, default: none].add(seconds: seconds)
        }
    }

    private static var now: Double {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }
}

/// A key service whose calls are counted.
struct MeteredKeyService: KeyService {
    let service: any KeyService
    let meter: KeyServiceMeter

    var kind: KeySlotKind { service.kind }
    var canUnseal: Bool { service.canUnseal }
    func opens(_ slot: KeySlot) -> Bool { service.opens(slot) }

    func seal(_ key: SecretKey, for context: SlotContext) throws(KeyringError) -> KeySlot {
        try meter.measure(kind) { () throws(KeyringError) in try service.seal(key, for: context) }
    }

    func unseal(_ slot: KeySlot, for context: SlotContext) throws(KeyringError) -> SecretKey {
        try meter.measure(kind) { () throws(KeyringError) in try service.unseal(slot, for: context) }
    }

    func renewed(_ slot: KeySlot, for context: SlotContext) throws(KeyringError) -> KeySlot? {
        try meter.measure(kind) { () throws(KeyringError) in try service.renewed(slot, for: context) }
    }
}
