/// Maps and lists in brackets, as JSON has them.
extension SecretYAML {
    private mutating func skipSpace() {
        while true {
            let start = place
            skipBlanks()
            if place > start || place == lineStart { skipComment() }
            guard place < bytes.count, isLineEnd(place) else { return }
            nextLine()
        }
    }

    mutating func flow(depth: Int) throws(Failure) -> SecretNode {
        guard depth < Self.depthLimit else { throw malformed("too deep") }
        let line = self.line
        let isMap = byte == UInt8(ascii: "{")
        let end = UInt8(ascii: isMap ? "}" : "]")
        place += 1
        var members: [SecretMember] = []
        var names: Set<String> = []
        var items: [SecretNode] = []
        skipSpace()
        while byte != end {
            if isMap {
                let member = try flowMember(depth: depth)
                guard names.insert(member.name).inserted else { throw malformed("'\(member.name)' is there twice") }
                members.append(member)
            } else {
                items.append(try flowNode(depth: depth))
            }
            skipSpace()
            if byte == end { break }
            guard byte == UInt8(ascii: ",") else {
                throw malformed("a comma or '\(Character(Unicode.Scalar(end)))' is missing")
            }
            place += 1
            skipSpace()
        }
        place += 1
        return SecretNode(content: isMap ? .map(members) : .list(items), line: line)
    }

    private mutating func flowMember(depth: Int) throws(Failure) -> SecretMember {
        let isQuoted = byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "'")
        let value = isQuoted ? try quoted() : try flowBare()
        let name = value.withBytes { String(decoding: $0, as: UTF8.self) }
        guard isQuoted || name != "<<" else { throw malformed("merged maps are not read") }
        skipSpace()
        guard byte == UInt8(ascii: ":") else { throw malformed("'\(name)' has no value") }
        place += 1
        skipSpace()
        return SecretMember(name: name, node: try flowNode(depth: depth))
    }

    private mutating func flowNode(depth: Int) throws(Failure) -> SecretNode {
        let line = self.line
        switch byte {
        case UInt8(ascii: "{"), UInt8(ascii: "["): return try flow(depth: depth + 1)
        case UInt8(ascii: "\""), UInt8(ascii: "'"): return SecretNode(content: .text(try quoted()), line: line)
        default: return Self.bareNode(try flowBare(), line: line)
        }
    }

    /// Text of one line, to what ends it.
    private mutating func flowBare() throws(Failure) -> SecretValue {
        try checkBareStart()
        let value = SecretValue()
        var blanks = 0
        while !isLineEnd(place), !",[]{}".utf8.contains(bytes[place]) {
            if byte == UInt8(ascii: "#"), blanks > 0 { break }
            if byte == UInt8(ascii: ":"), isBlank(place + 1) || ",[]{}".utf8.contains(bytes[place + 1]) { break }
            blanks = isBlank(place) ? blanks + 1 : 0
            value.append(bytes[place])
            place += 1
        }
        value.removeLast(blanks)
        return value
    }
}
