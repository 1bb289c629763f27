internal import Synchronization

/// Everything that is wrong with a document.
public struct PolicyMistakes: Error, Equatable, Sendable {
    public let mistakes: [TOML.Mistake]
    init(_ mistakes: [TOML.Mistake]) { self.mistakes = mistakes }
}

/// What is allowed or not, and by which rule.
public struct Decision: Sendable, Equatable {
    public var isAllowed: Bool
    /// The rule that decided; `default` where none did.
    public var rule: String
    /// It holds for the same process as long as neither policy nor paths change.
    public var isLasting: Bool

    /// Nobody has anything against it.
    public static let unopposed = Decision(isAllowed: true, rule: Policy.defaultName, isLasting: true)
}

/// Who may do what with which paths. Decides, and changes nothing but its counts of openings.
///
/// A deny rule that matches wins. Else, where allow rules name the path for the operation, one of them has to match.
/// Elsewhere `default` holds; but a process of which the kernel tells nothing, as it lives in another pid namespace,
/// needs a rule that lets it in.
public final class Policy: Sendable {
    /// What holds where no rule names the path.
    public enum Fallback: String, Sendable { case modes, deny }

    public let rules: [Rule]
    public let fallback: Fallback
    private let openings = Mutex<[Opening: Int]>([:])
    private let hashes: ExecutableHashes

    private struct Opening: Hashable {
        var rule: Int
        var process: ProcessKey
    }
    private static let openingLimit = 16_384

    static let defaultName = "default"
    static let foreignName = "pid namespace"
    static let damagedName = "damaged policy"

    init(_ rules: [Rule], _ fallback: Fallback, hashes: ExecutableHashes = .shared) {
        self.rules = rules
        self.fallback = fallback
        self.hashes = hashes
        isDamaged = false
    }

    private init() {
        rules = []
        fallback = .deny
        hashes = .shared
        isDamaged = true
    }

    /// A policy that could not be read.
    public let isDamaged: Bool

    /// No policy at all: modes decide.
    public static let none = Policy([], .modes)

    /// What holds if the policy cannot be trusted: nothing is allowed.
    public static func damaged() -> Policy { Policy() }

    /// It decides nothing that modes do not.
    public var isEmpty: Bool { rules.isEmpty && fallback == .modes }

    /// - Parameter isNew: Names of users and groups must be known here. Of one that was accepted before, those that have
    ///   gone match nobody.
    public static func parse(_ text: String, accounts: Accounts, isNew: Bool) throws(PolicyMistakes) -> Policy {
        var parser = PolicyParser(accounts: accounts, toleratesUnknownNames: !isNew)
        return try parser.policy(text)
    }

    // MARK: Deciding

    /// - Parameter isOpening: It counts among the openings of the process.
    public func decide(
        _ operation: Operation, on path: [UInt8], for requester: Requester, isOpening: Bool
    ) -> Decision {
        guard !isDamaged else { return Decision(isAllowed: false, rule: Self.damagedName, isLasting: true) }
        let moment = Moment.now(hashes.hash)
        var isLasting = true
        var reserving: Rule?
        for rule in rules where rule.effect == .deny && rule.names(path, operation) {
            isLasting = isLasting && !rule.isPassing
            if holds(rule, for: requester, moment) {
                return Decision(isAllowed: false, rule: rule.name, isLasting: isLasting)
            }
        }
        for (index, rule) in rules.enumerated() where rule.effect == .allow && rule.names(path, operation) {
            isLasting = isLasting && !rule.isPassing
            if allows(rule, index, requester, moment, isOpening: isOpening) {
                return Decision(isAllowed: true, rule: rule.name, isLasting: isLasting)
            }
            if reserving == nil { reserving = rule }
        }
        if let reserving { return Decision(isAllowed: false, rule: reserving.name, isLasting: isLasting) }
        return elsewhere(requester, isLasting)
    }

    /// What holds where no rule names the path.
    private func elsewhere(_ requester: Requester, _ isLasting: Bool) -> Decision {
        if requester.isForeign, !isEmpty {
            return Decision(isAllowed: false, rule: Self.foreignName, isLasting: isLasting)
        }
        return Decision(isAllowed: fallback == .modes, rule: Self.defaultName, isLasting: isLasting)
    }

    /// Whether something may be taken to another path, where other rules hold: only by those whom every rule about it,
    /// and about what lies below it, lets read and list.
    public func decideMoving(_ path: [UInt8], isDirectory: Bool, for requester: Requester) -> Decision {
        for operation in [Operation.read, .list] where operation == .read || isDirectory {
            let decision = decide(operation, on: path, for: requester, isOpening: false)
            guard decision.isAllowed else { return decision }
        }
        if isDirectory {
            let moment = Moment.now(hashes.hash)
            for rule in rules where rule.paths.contains(where: { $0.couldMatchBelow(path) }) {
                guard !rule.operations.isDisjoint(with: [.read, .list]) else { continue }
                if holds(rule, for: requester, moment) != (rule.effect == .allow) {
                    return Decision(isAllowed: false, rule: rule.name, isLasting: false)
                }
            }
        }
        return Decision(isAllowed: true, rule: Self.defaultName, isLasting: false)
    }

    /// What holds for a file that has no name any more: what every rule together would say, whatever its path was.
    public func decideNameless(_ operation: Operation, for requester: Requester) -> Decision {
        guard !isDamaged else { return Decision(isAllowed: false, rule: Self.damagedName, isLasting: true) }
        let moment = Moment.now(hashes.hash)
        for rule in rules where rule.operations.contains(operation) {
            if holds(rule, for: requester, moment) != (rule.effect == .allow) {
                return Decision(isAllowed: false, rule: rule.name, isLasting: false)
            }
        }
        return elsewhere(requester, false)
    }

    /// Whether a rule is about somebody: what cannot be told counts against him.
    private func holds(_ rule: Rule, for requester: Requester, _ moment: Moment) -> Bool {
        rule.matchers.allSatisfy { $0.matches(requester, moment) ?? (rule.effect == .deny) }
    }

    private func allows(
        _ rule: Rule, _ index: Int, _ requester: Requester, _ moment: Moment, isOpening: Bool
    ) -> Bool {
        let counts = rule.matchers.contains {
            if case .opensPerProcess = $0 { true } else { false }
        }
        guard counts, isOpening, !requester.isForeign else { return holds(rule, for: requester, moment) }
        let opening = Opening(rule: index, process: requester.process.key)
        return openings.withLock { openings in
            var moment = moment
            moment.opens = openings[opening] ?? 0
            guard holds(rule, for: requester, moment) else { return false }
            if openings.count >= Self.openingLimit, openings[opening] == nil {
                openings = openings.filter { ProcDirectory($0.key.process.pid)?.startTime == $0.key.process.startTime }
            }
            openings[opening] = moment.opens + 1
            return true
        }
    }

    // MARK: Explaining

    /// Each rule that names the path for the operation, and why it matches or does not: for a reader.
    ///
    /// - Parameter minuteOfDay: Local time; nil for now.
    public func explain(
        _ operation: Operation, on path: [UInt8], for requester: Requester, minuteOfDay: Int? = nil, opens: Int = 0
    ) -> (decision: Decision, reasons: [String]) {
        var moment = Moment.now(hashes.hash)
        if let minuteOfDay { moment.minuteOfDay = minuteOfDay }
        moment.opens = opens
        var reasons: [String] = []
        var decided: Decision?
        var reserving: Rule?
        let ordered = rules.filter { $0.effect == .deny } + rules.filter { $0.effect == .allow }
        for rule in ordered where rule.names(path, operation) {
            let failing = rule.matchers.filter { !($0.matches(requester, moment) ?? (rule.effect == .deny)) }
            let what = failing.isEmpty ? "matches" : "does not match: " + failing.map(\.key).joined(separator: ", ")
            reasons.append("\(rule.effect.rawValue) rule '\(rule.name)' names the path and \(what)")
            if decided == nil, failing.isEmpty {
                decided = Decision(isAllowed: rule.effect == .allow, rule: rule.name, isLasting: false)
            }
            if reserving == nil, rule.effect == .allow { reserving = rule }
        }
        if reasons.isEmpty {
            reasons.append("no rule names the path for \(operation.rawValue): default is \(fallback.rawValue)")
        }
        if let decided { return (decided, reasons) }
        if let reserving { return (Decision(isAllowed: false, rule: reserving.name, isLasting: false), reasons) }
        return (elsewhere(requester, false), reasons)
    }
}
