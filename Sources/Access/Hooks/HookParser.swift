internal import Glibc

/// Makes hooks of a TOML document, or tells every mistake in it.
///
///     [[hook]]
///     name = "nginx takes its new certificate"
///     paths = ["/web/**"]
///     command = ["/usr/bin/systemctl", "reload", "nginx.service"]
struct HookParser {
    private var reading = TOMLReading()

    static let hookLimit = 64
    private static let wordLimit = 64
    private static let defaultDebounce = 1000
    private static let defaultTimeout = 60_000
    /// The longest of each, milliseconds.
    private static let debounceLimit = 3_600_000
    private static let timeoutLimit = 24 * 3_600_000

    /// What was said of one hook so far.
    private struct Draft {
        var name = ""
        var paths: [PathGlob] = []
        var command: [String]?
        var unit: String?
        var signal: Int32?
        var user: String?
        var debounce = HookParser.defaultDebounce
        var timeout = HookParser.defaultTimeout
    }

    mutating func hooks(_ text: String) throws(PolicyMistakes) -> Hooks {
        let table: TOML.Table
        do throws(TOML.Mistake) { table = try TOML.parse(text) } catch { throw PolicyMistakes([error]) }
        var hooks: [Hook] = []
        for entry in table.entries {
            guard entry.key == "hook", case .array(let tables) = entry.value.kind else {
                reading.mistake(entry.line, "'\(entry.key)' is not known here: hooks begin with [[hook]]")
                continue
            }
            for value in tables {
                guard case .table(let table) = value.kind else {
                    reading.mistake(value.line, "a hook is a table, [[hook]]")
                    continue
                }
                if let hook = hook(table, value.line) { hooks.append(hook) }
            }
        }
        if hooks.count > Self.hookLimit { reading.mistake(1, "there are more than \(Self.hookLimit) hooks") }
        guard reading.mistakes.isEmpty else { throw PolicyMistakes(reading.mistakes) }
        return Hooks(all: hooks)
    }

    private mutating func hook(_ table: TOML.Table, _ line: Int) -> Hook? {
        let before = reading.mistakes.count
        var draft = Draft()
        for entry in table.entries { take(entry, into: &draft) }
        for key in ["name", "paths"] where table[key] == nil { reading.mistake(line, "a hook has no \(key)") }
        let action: Hook.Action? =
            switch (draft.command, draft.unit) {
            case (let words?, nil) where draft.signal == nil: .run(words)
            case (nil, let unit?) where draft.user == nil: .signal(unit: unit, number: draft.signal ?? SIGHUP)
            default: nil
            }
        guard let action, reading.mistakes.count == before else {
            if reading.mistakes.count == before {
                reading.mistake(line, "a hook has a command, perhaps with a user, or a unit, perhaps with a signal")
            }
            return nil
        }
        return Hook(
            name: draft.name, paths: draft.paths, action: action, user: draft.user, debounce: draft.debounce,
            timeout: draft.timeout)
    }

    private mutating func take(_ entry: TOML.Table.Entry, into draft: inout Draft) {
        let (line, value) = (entry.line, entry.value)
        switch entry.key {
        case "name": draft.name = reading.name(value, line, "hook")
        case "paths": draft.paths = reading.globs(value, "paths")
        case "command":
            let words = reading.strings(value, "command")
            if words.first?.hasPrefix("/") != true || words.contains(where: { $0.utf8.contains(0) }) {
                reading.mistake(line, "command begins with the path of a program, from the root on")
            }
            if words.count > Self.wordLimit { reading.mistake(line, "command has more than \(Self.wordLimit) words") }
            draft.command = words
        case "unit":
            let isName = { (byte: UInt8) in
                (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte)
                    || ":-_.\\@".utf8.contains(byte)
            }
            if case .string(let unit) = value.kind, unit.utf8.count <= 255, unit.hasSuffix(".service"),
                unit.utf8.allSatisfy(isName)
            {
                draft.unit = unit
            } else {
                reading.mistake(line, "unit is the name of a service, as in \"nginx.service\"")
            }
        case "signal":
            if case .string(let name) = value.kind, let number = Self.signals[name] {
                draft.signal = number
            } else {
                reading.mistake(line, "signal is one of \(Self.signals.keys.sorted().joined(separator: ", "))")
            }
        case "user":
            if case .string(let user) = value.kind, !user.isEmpty, !user.utf8.contains(0) {
                draft.user = user
            } else {
                reading.mistake(line, "user is a name")
            }
        case "debounce": draft.debounce = milliseconds(value, line, "debounce", Self.debounceLimit)
        case "timeout": draft.timeout = max(1, milliseconds(value, line, "timeout", Self.timeoutLimit))
        default: reading.mistake(line, "'\(entry.key)' is not known in a hook")
        }
    }

    private static let signals: [String: Int32] = [
        "HUP": SIGHUP, "USR1": SIGUSR1, "USR2": SIGUSR2, "INT": SIGINT, "TERM": SIGTERM, "WINCH": 28, "CONT": 18,
    ]

    /// `"500ms"`, `"2s"`, `"5m"`, `"1h"`, or a number of seconds.
    private mutating func milliseconds(_ value: TOML.Value, _ line: Int, _ key: String, _ limit: Int) -> Int {
        var found: Int?
        switch value.kind {
        case .integer(let seconds): found = Int(exactly: seconds).flatMap { Self.product($0, 1000) }
        case .string(let text):
            for (unit, scale) in [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)] where text.hasSuffix(unit) {
                let digits = text.dropLast(unit.utf8.count)
                if !digits.isEmpty, digits.utf8.allSatisfy({ (48...57).contains($0) }) {
                    found = Int(digits).flatMap { Self.product($0, scale) }
                    break
                }
            }
        default: break
        }
        guard let found, (0...limit).contains(found) else {
            reading.mistake(line, "\(key) is a time as in \"2s\", of at most \(limit / 3_600_000)h")
            return 0
        }
        return found
    }

    private static func product(_ count: Int, _ scale: Int) -> Int? {
        let (product, overflows) = count.multipliedReportingOverflow(by: scale)
        return overflows ? nil : product
    }
}
