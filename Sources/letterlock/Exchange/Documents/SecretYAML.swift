/// The part of YAML 1.2 that files of secrets are written in, JSON among it: maps with names for keys, lists, texts in quotes or
/// without, and literal blocks. Anchors, aliases, tags, directives, folded blocks and keys that are no names are refused with their
/// line: whoever reads secrets does not guess.
///
/// No value leaves wiped memory.
struct SecretYAML {
    let bytes: UnsafeRawBufferPointer
    let source: String
    var place = 0
    var line = 1
    var lineStart = 0
    static let depthLimit = 64

    private init(_ bytes: UnsafeRawBufferPointer, _ source: String) {
        self.bytes = bytes
        self.source = source
    }

    /// Every document of a file that is not empty.
    static func read(_ bytes: UnsafeRawBufferPointer, _ source: String) throws(Failure) -> [SecretNode] {
        var reader = SecretYAML(bytes, source)
        try reader.checkCharacters()
        var documents: [SecretNode] = []
        while let document = try reader.document() { documents.append(document) }
        return documents
    }

    // MARK: Bytes and lines

    var byte: UInt8? { place < bytes.count ? bytes[place] : nil }
    var column: Int { place - lineStart }

    func byte(at place: Int) -> UInt8? { place < bytes.count ? bytes[place] : nil }

    func malformed(_ what: String, line: Int? = nil) -> Failure {
        Failure("\(source), line \(line ?? self.line): \(what)")
    }

    private mutating func checkCharacters() throws(Failure) {
        if bytes.starts(with: [0xEF, 0xBB, 0xBF]) { place = 3 }
        lineStart = place
        var line = 1
        for (index, byte) in bytes.enumerated() {
            if byte == UInt8(ascii: "\n") { line += 1 }
            let isAllowed =
                byte >= 0x20 && byte != 0x7F || byte == UInt8(ascii: "\t") || byte == UInt8(ascii: "\n")
                || byte == UInt8(ascii: "\r") && self.byte(at: index + 1) == UInt8(ascii: "\n")
            guard isAllowed else { throw malformed("a control character", line: line) }
        }
        guard SecretValue.isUTF8(bytes) else { throw Failure("\(source) is not UTF-8") }
    }

    /// Whether `place` is at the end of a line, or of everything.
    func isLineEnd(_ place: Int) -> Bool {
        guard let byte = byte(at: place) else { return true }
        return byte == UInt8(ascii: "\n") || byte == UInt8(ascii: "\r")
    }

    func isBlank(_ place: Int) -> Bool {
        isLineEnd(place) || bytes[place] == UInt8(ascii: " ") || bytes[place] == UInt8(ascii: "\t")
    }

    mutating func skipBlanks() { while !isLineEnd(place), isBlank(place) { place += 1 } }

    mutating func skipComment() { if byte == UInt8(ascii: "#") { while !isLineEnd(place) { place += 1 } } }

    /// Over the end of a line.
    mutating func nextLine() {
        if byte == UInt8(ascii: "\r") { place += 1 }
        if byte == UInt8(ascii: "\n") { place += 1 }
        line += 1
        lineStart = place
    }

    /// To the next line that has something, and there to its first character.
    mutating func skipEmptyLines() throws(Failure) {
        while place < bytes.count {
            let start = place
            skipBlanks()
            skipComment()
            guard isLineEnd(place) else {
                if start == lineStart, bytes[start..<place].contains(UInt8(ascii: "\t")) {
                    throw malformed("a tab where a line is indented")
                }
                return
            }
            guard place < bytes.count else { return }
            nextLine()
        }
    }

    /// The end of a value's line: nothing but a comment stands behind.
    mutating func expectLineEnd() throws(Failure) {
        let start = place
        skipBlanks()
        if place > start { skipComment() }
        guard isLineEnd(place) else { throw malformed("something stands behind a value") }
    }

    /// `---` or `...` at the beginning of a line.
    func isMarker(_ marker: String? = nil) -> Bool {
        guard place == lineStart, isBlank(place + 3) else { return false }
        return (marker.map { [$0] } ?? ["---", "..."]).contains { bytes[place...].starts(with: $0.utf8) }
    }

    var isAtEnd: Bool { place >= bytes.count || isMarker() }

    // MARK: Blocks

    private mutating func document() throws(Failure) -> SecretNode? {
        while true {
            try skipEmptyLines()
            guard place < bytes.count else { return nil }
            guard isMarker() else { break }
            place += 3
            skipBlanks()
            if !isLineEnd(place), byte != UInt8(ascii: "#") { break }
        }
        if byte == UInt8(ascii: "%"), column == 0 { throw malformed("directives are not read") }
        let document = try node(below: -1, depth: 0)
        try skipEmptyLines()
        guard isAtEnd else { throw malformed("its indentation fits to nothing") }
        return document
    }

    /// What begins here, of a block that is indented by `indentation`.
    private mutating func node(below indentation: Int, depth: Int) throws(Failure) -> SecretNode {
        guard depth < Self.depthLimit else { throw malformed("too deep") }
        if byte == UInt8(ascii: "-"), isBlank(place + 1) { return try list(depth: depth) }
        if byte == UInt8(ascii: "?"), isBlank(place + 1) { throw malformed("a key that is no name") }
        if try isKeyAhead() { return try map(depth: depth) }
        return try value(below: indentation, depth: depth)
    }

    /// A text or whatever is in brackets.
    private mutating func value(below indentation: Int, depth: Int) throws(Failure) -> SecretNode {
        let line = self.line
        switch byte {
        case UInt8(ascii: "{"), UInt8(ascii: "["):
            let node = try flow(depth: depth)
            try expectLineEnd()
            return node
        case UInt8(ascii: "\""), UInt8(ascii: "'"):
            let text = try quoted()
            try expectLineEnd()
            return SecretNode(content: .text(text), line: line)
        case UInt8(ascii: "|"): return SecretNode(content: .text(try literal(below: indentation)), line: line)
        default: return try bare(below: indentation)
        }
    }

    /// Whether a key and a colon stand here.
    private func isKeyAhead() throws(Failure) -> Bool {
        var ahead = self
        if let quote = byte, quote == UInt8(ascii: "\"") || quote == UInt8(ascii: "'") {
            let line = line
            _ = try ahead.quoted()
            guard ahead.line == line else { return false }
            ahead.skipBlanks()
            return ahead.byte == UInt8(ascii: ":") && isBlank(ahead.place + 1)
        }
        if let byte, "{[|>&*!%@`".utf8.contains(byte) { return false }
        while !isLineEnd(ahead.place) {
            if ahead.byte == UInt8(ascii: ":"), isBlank(ahead.place + 1) { return true }
            if ahead.byte == UInt8(ascii: "#"), ahead.place > place, isBlank(ahead.place - 1) { return false }
            ahead.place += 1
        }
        return false
    }

    private mutating func map(depth: Int) throws(Failure) -> SecretNode {
        let start = (line: line, column: column)
        var members: [SecretMember] = []
        var names: Set<String> = []
        repeat {
            guard try isKeyAhead() else { throw malformed("a key is missing") }
            let line = self.line
            let name = try key()
            guard names.insert(name).inserted else { throw malformed("'\(name)' is there twice", line: line) }
            skipBlanks()
            let node = try member(of: start.column, depth: depth)
            members.append(SecretMember(name: name, node: node))
            try skipEmptyLines()
        } while !isAtEnd && column == start.column
        guard isAtEnd || column < start.column else { throw malformed("its indentation fits to nothing") }
        return SecretNode(content: .map(members), line: start.line)
    }

    /// What stands behind a key and its colon.
    private mutating func member(of column: Int, depth: Int) throws(Failure) -> SecretNode {
        guard isLineEnd(place) || byte == UInt8(ascii: "#") else {
            if byte == UInt8(ascii: "-") && isBlank(place + 1) {
                throw malformed("a list begins on a line of its own")
            }
            guard try !isKeyAhead() else { throw malformed("a map begins on a line of its own") }
            return try value(below: column, depth: depth)
        }
        let line = self.line
        try skipEmptyLines()
        let isList = !isAtEnd && byte == UInt8(ascii: "-") && isBlank(place + 1)
        guard !isAtEnd, self.column > column || self.column == column && isList else {
            return SecretNode(content: .null, line: line)
        }
        return try node(below: column, depth: depth + 1)
    }

    /// A name, and the colon behind it.
    private mutating func key() throws(Failure) -> String {
        let name: String
        if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "'") {
            name = try quoted().withBytes { String(decoding: $0, as: UTF8.self) }
            skipBlanks()
        } else {
            let start = place
            try checkBareStart()
            while byte != UInt8(ascii: ":") || !isBlank(place + 1) { place += 1 }
            var end = place
            while end > start, isBlank(end - 1) { end -= 1 }
            name = String(decoding: bytes[start..<end], as: UTF8.self)
            guard name != "<<" else { throw malformed("merged maps are not read") }
        }
        place += 1
        return name
    }

    private mutating func list(depth: Int) throws(Failure) -> SecretNode {
        let start = (line: line, column: column)
        var items: [SecretNode] = []
        repeat {
            place += 1
            let line = self.line
            skipBlanks()
            if isLineEnd(place) || byte == UInt8(ascii: "#") { try skipEmptyLines() }
            let isThere = !isAtEnd && (self.line == line || column > start.column)
            items.append(
                isThere
                    ? try node(below: start.column, depth: depth + 1) : SecretNode(content: .null, line: line))
            try skipEmptyLines()
        } while !isAtEnd && column == start.column && byte == UInt8(ascii: "-") && isBlank(place + 1)
        guard isAtEnd || column <= start.column else { throw malformed("its indentation fits to nothing") }
        return SecretNode(content: .list(items), line: start.line)
    }
}
