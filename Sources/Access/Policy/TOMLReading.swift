/// What is read out of a document's values, with every mistake on the way.
struct TOMLReading {
    private(set) var mistakes: [TOML.Mistake] = []
    private var names: Set<String> = []
    static let nameLimit = 128

    mutating func mistake(_ line: Int, _ what: String) {
        mistakes.append(TOML.Mistake(line: line, column: 1, what: what))
    }

    /// A name that nothing else in the document has.
    ///
    /// - Parameter kind: What is called so, for messages: `rule`.
    mutating func name(_ value: TOML.Value, _ line: Int, _ kind: String, reserved: Set<String> = []) -> String {
        guard case .string(let name) = value.kind, !name.isEmpty, name.utf8.count <= Self.nameLimit,
            name.unicodeScalars.allSatisfy({ $0.value >= 0x20 && !(0x7F..<0xA0).contains($0.value) })
        else {
            mistake(line, "name is one line of at most \(Self.nameLimit) bytes")
            return ""
        }
        if reserved.contains(name) {
            mistake(line, "no \(kind) can be called '\(name)'")
        } else if !names.insert(name).inserted {
            mistake(line, "two \(kind)s are called '\(name)'")
        }
        return name
    }

    /// The strings of a list that is not empty; one string is a list of it.
    mutating func strings(_ value: TOML.Value, _ key: String) -> [String] {
        if case .string(let text) = value.kind { return [text] }
        guard case .array(let values) = value.kind, !values.isEmpty else {
            mistake(value.line, "\(key) is a list of strings that is not empty")
            return []
        }
        return values.compactMap { value in
            if case .string(let text) = value.kind { return text }
            mistake(value.line, "\(key) holds strings, not \(value.kindName)")
            return nil
        }
    }

    mutating func globs(_ value: TOML.Value, _ key: String) -> [PathGlob] {
        strings(value, key).compactMap { text in
            do throws(PatternMistake) { return try PathGlob(text) } catch {
                mistake(value.line, "\(key): \(error.what)")
                return nil
            }
        }
    }
}
