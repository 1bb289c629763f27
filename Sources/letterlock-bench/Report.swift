/// What was measured: medians, ratios, and how they stand to the targets.
struct Report {
    struct Line {
        var workload: Workload
        var isPinned: Bool
        /// By the subject's name, a figure a round.
        var figures: [String: [Double]] = [:]

        var medians: [String: Double] {
            figures.compactMapValues { values in
                values.isEmpty ? nil : values.sorted()[values.count / 2]
            }
        }
    }

    struct Verdict {
        var text: String
        var isReached: Bool
    }

    private(set) var lines: [Line] = []
    let subjects: [String]
    let facts: [(name: String, value: String)]

    init(subjects: [String], facts: [(name: String, value: String)]) {
        (self.subjects, self.facts) = (subjects, facts)
    }

    mutating func add(_ line: Line) { lines.append(line) }

    static let peers = ["gocryptfs", "securefs"]

    /// How Letterlock stands to its peers and to what it is to reach.
    static func verdicts(_ line: Line) -> [Verdict] {
        let medians = line.medians
        let better = line.workload.unit.higherIsBetter
        var targets = line.workload.targets.filter { $0.isPinned == line.isPinned }
        targets += peers.map(Target.ahead)
        return targets.compactMap { target in
            guard let own = medians[target.subject], let bound = target.bound(medians) else { return nil }
            let isReached = better ? own >= bound : own <= bound
            let prefix = target.subject == "letterlock" ? "" : target.subject + ": "
            let sense = better || target.text.hasPrefix("ahead") ? "" : "at most "
            return Verdict(text: prefix + sense + target.text, isReached: isReached)
        }
    }

    /// A block of a line for each subject, then the targets.
    static func block(_ line: Line, subjects: [String]) -> String {
        let workload = line.workload
        let medians = line.medians
        var text = "\(workload.name): \(workload.title), \(workload.unit.rawValue)"
        text += line.isPinned ? " (client and server on one core)\n" : "\n"
        for subject in subjects {
            guard let median = medians[subject] else { continue }
            var row = "    " + padded(subject, 24) + leftPadded(number(median), 12)
            if let own = medians["letterlock"], subject != "letterlock", own > 0, median > 0 {
                let ratio = workload.unit.higherIsBetter ? own / median : median / own
                row += "   letterlock: \(decimal(ratio, 2)) ×"
            }
            text += row + "\n"
        }
        for verdict in verdicts(line) {
            text += "    target \(verdict.text): \(verdict.isReached ? "reached" : "NOT reached")\n"
        }
        return text
    }

    /// A table for a manual page.
    var markdown: String {
        var text = facts.map { "\($0.name): \($0.value)" }.joined(separator: "; ") + "\n\n"
        text += "| what | unit | " + subjects.joined(separator: " | ") + " | targets |\n"
        text += "|---|---|" + String(repeating: "---:|", count: subjects.count) + "---|\n"
        for line in lines {
            let medians = line.medians
            let name = line.workload.title + (line.isPinned ? ", one core" : "")
            let cells = subjects.map { medians[$0].map(Self.number) ?? "–" }
            let missed = Self.verdicts(line).filter { !$0.isReached }.map(\.text)
            let verdict = missed.isEmpty ? "reached" : "missed: " + missed.joined(separator: ", ")
            text += "| \(name) | \(line.workload.unit.rawValue) | \(cells.joined(separator: " | ")) | \(verdict) |\n"
        }
        return text
    }

    var json: String {
        let facts = facts.map { "\(Self.quoted($0.name)): \(Self.quoted($0.value))" }.joined(separator: ", ")
        let lines = lines.map { line in
            let figures = line.figures.sorted { $0.key < $1.key }.map { name, values in
                "\(Self.quoted(name)): [\(values.map { Self.decimal($0, 3) }.joined(separator: ", "))]"
            }
            let verdicts = Self.verdicts(line).map {
                "{\"target\": \(Self.quoted($0.text)), \"reached\": \($0.isReached)}"
            }
            return
                "{\"name\": \(Self.quoted(line.workload.name)), \"unit\": \(Self.quoted(line.workload.unit.rawValue)), "
                + "\"pinned\": \(line.isPinned), \"figures\": {\(figures.joined(separator: ", "))}, "
                + "\"targets\": [\(verdicts.joined(separator: ", "))]}"
        }
        return "{\"facts\": {\(facts)}, \"lines\": [\n" + lines.joined(separator: ",\n") + "\n]}"
    }

    // MARK: - Text

    static func number(_ value: Double) -> String {
        guard value < 1_000_000_000_000 else { return decimal(value, 0) }
        guard value >= 100 else { return decimal(value, value < 10 ? 2 : 1) }
        var digits = String(Int(value.rounded()))
        var result = ""
        while digits.count > 3 {
            result = "," + digits.suffix(3) + result
            digits.removeLast(3)
        }
        return digits + result
    }

    static func decimal(_ value: Double, _ places: Int) -> String {
        guard value.isFinite else { return "0" }
        var scale = 1.0
        for _ in 0..<places { scale *= 10 }
        let scaled = Int((value.magnitude * scale).rounded())
        let whole = String(scaled / Int(scale))
        guard places > 0 else { return (value < 0 ? "-" : "") + whole }
        let fraction = String(scaled % Int(scale))
        return (value < 0 ? "-" : "") + whole + "." + String(repeating: "0", count: places - fraction.count) + fraction
    }

    static func quoted(_ text: String) -> String {
        "\"" + text.flatMap { $0 == "\"" || $0 == "\\" ? ["\\", $0] : [$0] } + "\""
    }

    private static func padded(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(width - text.count, 0))
    }

    private static func leftPadded(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(width - text.count, 0)) + text
    }
}
