import Threads

/// Has the kernel drop cached pages, from a thread of its own: a worker that did it could wait for itself.
final class PageInvalidator: @unchecked Sendable {
    typealias Invalidate = @Sendable (UInt64) -> Void

    private let monitor = Monitor()
    // All below is touched within `monitor.locked` alone.
    private var queue: [UInt64] = []
    /// How many nodes were ever queued, and how many of them are done, in the queue's order.
    private var queuedCount: UInt64 = 0
    private var doneCount: UInt64 = 0
    private var invalidate: Invalidate?
    private var isRunning = false

    /// Begins to work. A second call changes whom it tells.
    func start(_ invalidate: @escaping Invalidate) {
        monitor.locked {
            self.invalidate = invalidate
            if !isRunning { isRunning = startThread { self.run() } == 0 }
        }
    }

    func stop() {
        monitor.locked {
            isRunning = false
            monitor.wake()
        }
    }

    /// Has the pages of nodes dropped, without waiting for it.
    func drop(_ nodes: [UInt64]) {
        monitor.locked {
            guard isRunning else { return }
            queue += nodes
            queuedCount += UInt64(nodes.count)
            monitor.wake()
        }
    }

    /// Has the pages of nodes dropped.
    ///
    /// - Parameter limit: Seconds to wait for it at most.
    /// - Returns: false if it is not done by then; it still will be, unless nobody was there to do it.
    func drop(_ nodes: [UInt64], limit: Double) -> Bool {
        guard !nodes.isEmpty else { return true }
        return monitor.locked {
            guard isRunning else { return false }
            queue += nodes
            queuedCount += UInt64(nodes.count)
            let goal = queuedCount
            monitor.wake()
            _ = monitor.wait(milliseconds: Int(limit * 1000)) { doneCount >= goal || !isRunning }
            return doneCount >= goal
        }
    }

    private func run() {
        while let (nodes, invalidate) = next() {
            for node in nodes { invalidate(node) }
            monitor.locked {
                doneCount += UInt64(nodes.count)
                monitor.wake()
            }
        }
    }

    /// Waits for work; nil at the end.
    private func next() -> ([UInt64], Invalidate)? {
        monitor.locked {
            while queue.isEmpty, isRunning { monitor.wait() }
            guard isRunning, let invalidate else { return nil }
            defer { queue.removeAll(keepingCapacity: true) }
            return (queue, invalidate)
        }
    }
}
