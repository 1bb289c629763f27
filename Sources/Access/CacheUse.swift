internal import Synchronization

/// How often a cache had what was looked for.
public final class CacheUse: Sendable {
    private let hits = Atomic(0)
    private let misses = Atomic(0)

    public init() {}

    public func count(hit isHit: Bool) {
        if isHit { hits.add(1, ordering: .relaxed) } else { misses.add(1, ordering: .relaxed) }
    }

    public var counts: (hits: Int, misses: Int) { (hits.load(ordering: .relaxed), misses.load(ordering: .relaxed)) }
}
