internal import CLinux
internal import Sodium
internal import Threads

/// A second thread for one that has much to do, from its start until `end`. What it works on is secret, and so is its stack.
final class Companion: @unchecked Sendable {
    protocol Task: AnyObject { func run() }

    private static let stackByteCount = 512 << 10
    private let monitor = Monitor()
    // Touched within `monitor.locked` alone.
    private var tasks: [any Task] = []
    private var isWorking = false
    private var isThere = false
    private var stops = false

    /// Without a thread, should there be none to have, the caller does everything.
    init() {
        isThere = SecretStack.startThread(byteCount: Self.stackByteCount) { self.serve() } == 0
    }

    /// Runs all tasks, in any order, on both threads. What they use has to be there until this returns, and no longer.
    func run(_ all: [any Task]) {
        monitor.locked {
            tasks = all
            if isThere, all.count > 1 { monitor.wake() }
        }
        while let task = monitor.locked({ tasks.popLast() }) { task.run() }
        monitor.locked { while isWorking { monitor.wait() } }
    }

    /// Ends the thread. Nothing may be run afterwards.
    func end() {
        monitor.locked {
            stops = true
            monitor.wake()
        }
    }

    private func serve() {
        ll_give_way()
        while step() {}
    }

    private func step() -> Bool {
        let next = monitor.locked { () -> (any Task)? in
            while tasks.isEmpty, !stops { monitor.wait() }
            isWorking = !stops
            return stops ? nil : tasks.popLast()
        }
        guard let next else { return false }
        next.run()
        monitor.locked {
            isWorking = false
            monitor.wake()
        }
        return true
    }
}
