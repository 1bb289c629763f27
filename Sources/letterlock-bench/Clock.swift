import Glibc

/// Seconds on a clock that only goes forward.
func now() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
}

/// Runs of `body` a second, called with 0, 1, 2 … for about that long.
func rate(seconds: Double, _ body: (Int) throws -> Void) rethrows -> Double {
    let start = now()
    var count = 0
    while true {
        try body(count)
        count += 1
        let elapsed = now() - start
        if elapsed >= seconds { return Double(count) / elapsed }
    }
}

/// How long `body` takes, in seconds.
func duration(_ body: () throws -> Void) rethrows -> Double {
    let start = now()
    try body()
    return now() - start
}

/// Numbers below `bound` in an order that is the same in each run.
struct Shuffle {
    private var state: UInt64 = 0x2545_F491_4F6C_DD1D

    mutating func next(below bound: Int) -> Int {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return Int(state % UInt64(bound))
    }

    mutating func order(_ count: Int) -> [Int] {
        var order = Array(0..<count)
        for index in stride(from: count - 1, to: 0, by: -1) { order.swapAt(index, next(below: index + 1)) }
        return order
    }
}
