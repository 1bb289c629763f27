import Access
import Fuse
import Glibc
import Keyring
import Synchronization

/// Counts what happens, by kind and result. Known since this server has started, as counters are.
final class Meter: AccessObserver {
    enum Result: String {
        case done = "ok"
        case denied, failed
    }

    struct Series: Hashable {
        var call: AccessCall
        var result: Result
    }

    /// How long accesses of one kind took.
    struct Histogram {
        /// Upper bounds, seconds.
        static let bounds = [0.000_02, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.025, 0.1, 1]
        /// One more than there are bounds; not summed up.
        var counts = [Int](repeating: 0, count: bounds.count + 1)
        var nanoseconds: UInt64 = 0

        mutating func add(_ duration: UInt64) {
            let seconds = Double(duration) / 1e9
            counts[Self.bounds.firstIndex { seconds <= $0 } ?? Self.bounds.count] += 1
            nanoseconds += duration
        }
    }

    struct Counts {
        var operations: [Series: Int] = [:]
        var denials: [String: Int] = [:]
        var durations: [AccessCall: Histogram] = [:]
    }

    private let looked = Mutex<Timestamp?>(nil)
    /// When somebody has read what is counted here.
    var lastLook: Timestamp? { looked.withLock { $0 } }
    func noteLook() { looked.withLock { $0 = .now() } }

    private let counted = Mutex(Counts())
    var counts: Counts { counted.withLock { $0 } }

    func observed(_ event: AccessEvent) {
        let result: Result = !event.isAllowed ? .denied : event.errno == 0 ? .done : .failed
        counted.withLock { counts in
            counts.operations[Series(call: event.call, result: result), default: 0] += 1
            if result == .denied { counts.denials[event.rule, default: 0] += 1 }
            counts.durations[event.call, default: Histogram()].add(event.nanoseconds)
        }
    }
}
