import FoundationEssentials

/// A JSON value, to show in words what a control file answers. Nothing secret is ever in it.
enum JSON: Decodable, Equatable {
    case null
    case bool(Bool)
    case number(Double)
    case text(String)
    case array([JSON])
    case object([String: JSON])

    init(bytes: [UInt8]) throws(Failure) {
        do {
            self = try JSONDecoder().decode(JSON.self, from: Data(bytes))
        } catch {
            throw Failure(
                "the server's answer is not JSON", hint: "is it of the same version as this program?")
        }
    }

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(Bool.self) {
            self = .bool(value)
        } else if let value = try? container.decode(Double.self) {
            self = .number(value)
        } else if let value = try? container.decode(String.self) {
            self = .text(value)
        } else if let value = try? container.decode([JSON].self) {
            self = .array(value)
        } else {
            self = .object(try container.decode([String: JSON].self))
        }
    }

    /// A member of an object; null where there is none.
    subscript(name: String) -> JSON {
        guard case .object(let members) = self else { return .null }
        return members[name] ?? .null
    }

    var elements: [JSON] {
        guard case .array(let elements) = self else { return [] }
        return elements
    }

    var string: String? {
        guard case .text(let text) = self else { return nil }
        return text
    }

    var integer: Int? {
        guard case .number(let value) = self else { return nil }
        return Int(exactly: value.rounded())
    }

    /// The value on one line, as a reader would write it.
    var words: String {
        switch self {
        case .null: "-"
        case .bool(let value): value ? "yes" : "no"
        case .number(let value): Int(exactly: value).map(String.init) ?? String(value)
        case .text(let value): value
        case .array(let values): values.isEmpty ? "none" : values.map(\.words).joined(separator: ", ")
        case .object(let members):
            members.isEmpty
                ? "none"
                : members.sorted { $0.key < $1.key }.map { "\($0.value.words) \($0.key)" }.joined(
                    separator: ", ")
        }
    }
}

extension JSON {
    /// `text` as a JSON string literal.
    static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case _ where scalar.value < 0x20:
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}
