internal import Glibc

/// Makes a policy of a TOML document, or tells every mistake in it.
struct PolicyParser {
    private let accounts: Accounts
    /// Names that this machine does not know are let pass, and match nobody.
    private let toleratesUnknownNames: Bool
    private var reading = TOMLReading()

    static let ruleLimit = 1000
    /// What decisions are called that no rule has made.
    private static let reservedNames: Set = [Policy.defaultName, Policy.foreignName, Policy.damagedName]

    init(accounts: Accounts, toleratesUnknownNames: Bool) {
        self.accounts = accounts
        self.toleratesUnknownNames = toleratesUnknownNames
    }

    mutating func policy(_ text: String) throws(PolicyMistakes) -> Policy {
        let table: TOML.Table
        do throws(TOML.Mistake) { table = try TOML.parse(text) } catch { throw PolicyMistakes([error]) }
        var fallback = Policy.Fallback.modes
        var rules: [Rule] = []
        for entry in table.entries {
            switch (entry.key, entry.value.kind) {
            case ("default", .string(let word)):
                if let found = Policy.Fallback(rawValue: word) {
                    fallback = found
                } else {
                    reading.mistake(entry.line, "default is \"modes\" or \"deny\", not \"\(word)\"")
                }
            case ("rule", .array(let tables)):
                for value in tables {
                    guard case .table(let table) = value.kind else {
                        reading.mistake(value.line, "a rule is a table, [[rule]]")
                        continue
                    }
                    if let rule = rule(table, value.line) { rules.append(rule) }
                }
            case ("default", _): reading.mistake(entry.line, "default is \"modes\" or \"deny\"")
            case ("rule", _): reading.mistake(entry.line, "rules begin with [[rule]]")
            default: reading.mistake(entry.line, "'\(entry.key)' is not known here: a policy has default and [[rule]]")
            }
        }
        if rules.count > Self.ruleLimit { reading.mistake(1, "there are more than \(Self.ruleLimit) rules") }
        guard reading.mistakes.isEmpty else { throw PolicyMistakes(reading.mistakes) }
        return Policy(rules, fallback)
    }

    // MARK: A rule

    private mutating func rule(_ table: TOML.Table, _ line: Int) -> Rule? {
        let before = reading.mistakes.count
        var rule = Rule(name: "", effect: .deny, paths: [], operations: [], matchers: [])
        var given: Set<String> = []
        for entry in table.entries {
            given.insert(entry.key)
            take(entry, into: &rule)
        }
        for key in ["name", "effect", "paths", "operations"] where !given.contains(key) {
            reading.mistake(line, "a rule has no \(key)")
        }
        return reading.mistakes.count == before ? rule : nil
    }

    private mutating func take(_ entry: TOML.Table.Entry, into rule: inout Rule) {
        let (line, value) = (entry.line, entry.value)
        switch entry.key {
        case "name": rule.name = reading.name(value, line, "rule", reserved: Self.reservedNames)
        case "effect":
            if case .string(let word) = value.kind, let effect = Rule.Effect(rawValue: word) {
                rule.effect = effect
            } else {
                reading.mistake(line, "effect is \"allow\" or \"deny\"")
            }
        case "paths": rule.paths = reading.globs(value, "paths")
        case "operations":
            for word in reading.strings(value, "operations") {
                if let operation = Operation(rawValue: word) {
                    rule.operations.insert(Operations(operation))
                } else {
                    reading.mistake(line, "'\(word)' is no operation: read, write, list, control")
                }
            }
        case "uids": rule.matchers.append(.uids(numbers(value, "uids")))
        case "gids": rule.matchers.append(.gids(numbers(value, "gids")))
        case "users":
            let names = reading.strings(value, "users")
            rule.matchers.append(.users(names, numbers(of: names, in: accounts.users, "user", line)))
        case "groups":
            let names = reading.strings(value, "groups")
            rule.matchers.append(.groups(names, numbers(of: names, in: accounts.groups, "group", line)))
        case "exes": rule.matchers.append(.exes(reading.globs(value, "exes").map(MergedDirectories.follow)))
        case "exe_sha256":
            rule.matchers.append(
                .hashes(
                    reading.strings(value, "exe_sha256").compactMap { text in
                        guard let hash = Self.hash(text) else {
                            reading.mistake(line, "exe_sha256 holds 64 hexadecimal digits, as sha256sum prints them")
                            return nil
                        }
                        return hash
                    }))
        case "units":
            let names = reading.strings(value, "units")
            rule.matchers.append(.units(names.compactMap { nameGlob($0, line) }, names))
        case "cgroups": rule.matchers.append(.cgroups(reading.globs(value, "cgroups")))
        case "between":
            if case .string(let text) = value.kind, let window = TimeWindow(text) {
                rule.matchers.append(.between(window))
            } else {
                reading.mistake(line, "between is a time of the day, as in \"08:00-18:00\"")
            }
        case "opens_per_process":
            if case .integer(let number) = value.kind, (1...1_000_000_000).contains(number) {
                rule.matchers.append(.opensPerProcess(Int(number)))
            } else {
                reading.mistake(line, "opens_per_process is a number from 1 up")
            }
        default: reading.mistake(line, "'\(entry.key)' is not known in a rule")
        }
    }

    // MARK: Lists

    private mutating func numbers(_ value: TOML.Value, _ key: String) -> [UInt32] {
        var values = [value]
        if case .array(let list) = value.kind { values = list }
        if values.isEmpty { reading.mistake(value.line, "\(key) is empty") }
        return values.compactMap { value in
            if case .integer(let number) = value.kind, let number = UInt32(exactly: number), number != .max {
                return number
            }
            reading.mistake(value.line, "\(key) holds numbers from 0 to 4294967294")
            return nil
        }
    }

    private mutating func nameGlob(_ text: String, _ line: Int) -> NameGlob? {
        do throws(PatternMistake) { return try NameGlob(text) } catch {
            reading.mistake(line, "units: \(error.what)")
            return nil
        }
    }

    private mutating func numbers(of names: [String], in known: [String: UInt32], _ kind: String, _ line: Int)
        -> [UInt32]
    {
        names.compactMap { name in
            if let number = known[name] { return number }
            if !toleratesUnknownNames { reading.mistake(line, "this machine's files know no \(kind) '\(name)'") }
            return nil
        }
    }

    static func hash(_ text: String) -> [UInt8]? {
        let digits = Array(text.utf8)
        guard digits.count == 64 else { return nil }
        var bytes: [UInt8] = []
        for index in stride(from: 0, to: 64, by: 2) {
            guard let byte = UInt8(String(decoding: digits[index..<index + 2], as: UTF8.self), radix: 16),
                digits[index] != UInt8(ascii: "+")
            else { return nil }
            bytes.append(byte)
        }
        return bytes
    }
}

/// `/bin` and its like, which are links to `/usr/bin` on most systems: programs are known by where they really lie.
private enum MergedDirectories {
    static func follow(_ glob: PathGlob) -> PathGlob {
        for directory in ["/bin", "/sbin", "/lib", "/lib64"] where glob.text.hasPrefix(directory + "/") {
            guard let target = target(of: directory) else { continue }
            let rest = glob.text.dropFirst(directory.count)
            return (try? PathGlob((target.hasPrefix("/") ? "" : "/") + target + rest)) ?? glob
        }
        return glob
    }

    private static func target(of link: String) -> String? {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(PATH_MAX)) { buffer in
            let count = readlink(link, buffer.baseAddress!, buffer.count)
            guard count > 0, count < buffer.count else { return nil }
            return String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
    }
}
