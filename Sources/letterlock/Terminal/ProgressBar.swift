import Glibc

/// How far something is, drawn on one line of a terminal: a bar, the count, the rate, and the time that is left.
///
///     reencrypt [##########----------]  50 %  5000/10000  1200/s  5 s left
struct ProgressBar {
    var title: String
    var done: Int
    var total: Int
    /// How many were done in how many seconds.
    var gained: Int
    var seconds: Double
    /// What it waits for, if it does.
    var obstacle: String?

    private static let widest = 30
    private static let narrowest = 5

    var rate: Double { Double(gained) / max(seconds, 0.001) }

    /// The line, no wider than so many columns where that is possible at all.
    func line(columns: Int) -> String {
        let share = total > 0 ? min(1, Double(done) / Double(total)) : 0
        let percent = String(Int(share * 100))
        let figures =
            String(repeating: " ", count: 3 - percent.count) + percent + " %  \(done)/\(total)  \(Int(rate))/s  "
            + ending
        let room = columns - 1 - title.count - " [] ".count - figures.count
        guard room >= Self.narrowest else { return String("\(title) \(figures)".prefix(max(1, columns - 1))) }
        let width = min(room, Self.widest)
        let full = Int(share * Double(width))
        let bar = String(repeating: "#", count: full) + String(repeating: "-", count: width - full)
        return "\(title) [\(bar)] \(figures)"
    }

    private var ending: String {
        if let obstacle { return "waiting: " + Output.printable(obstacle) }
        if done >= total { return "erasing what is old" }
        guard gained > 0 else { return "" }
        return Self.duration(Int((Double(total - done) / rate).rounded(.up))) + " left"
    }

    private static func duration(_ seconds: Int) -> String {
        switch seconds {
        case ..<60: "\(seconds) s"
        case ..<3600: "\(seconds / 60) min \(seconds % 60) s"
        default: "\(seconds / 3600) h \(seconds % 3600 / 60) min"
        }
    }

    /// The width of the terminal behind a descriptor.
    static func columns(of descriptor: Int32) -> Int {
        // struct winsize: rows, columns, and both in pixels.
        var size: (UInt16, UInt16, UInt16, UInt16) = (0, 0, 0, 0)
        guard ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0, size.1 > 0 else { return 80 }
        return Int(size.1)
    }
}
