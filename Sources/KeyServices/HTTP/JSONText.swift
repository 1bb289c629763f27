/// A JSON document where it lies, for picking single strings out of it: what is secret is not copied.
struct JSONText {
    private let bytes: UnsafeRawBufferPointer
    private static let depthLimit = 32

    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    /// The string at a path of object members, as it stands between its quotes. Nil if there is none, or if it has escapes, or if
    /// what comes before it is no JSON.
    func string(_ path: String...) -> UnsafeRawBufferPointer? {
        var place = 0
        for name in path {
            guard let found = member(name, at: place) else { return nil }
            place = found
        }
        skipSpace(&place)
        guard let text = text(&place), !text.contains(UInt8(ascii: "\\")) else { return nil }
        return text
    }

    /// The strings of an array at the document's member of that name, escapes as they stand.
    func strings(_ name: String) -> [UnsafeRawBufferPointer] {
        guard var place = member(name, at: 0) else { return [] }
        skipSpace(&place)
        guard take("[", &place) else { return [] }
        var found: [UnsafeRawBufferPointer] = []
        while true {
            skipSpace(&place)
            guard let text = text(&place) else { return found }
            found.append(text)
            skipSpace(&place)
            guard take(",", &place) else { return found }
        }
    }

    // MARK: Walking

    /// Where the value of an object's member begins. Of several of a name the first.
    private func member(_ name: String, at start: Int) -> Int? {
        var place = start
        skipSpace(&place)
        guard take("{", &place) else { return nil }
        while true {
            skipSpace(&place)
            guard let key = text(&place) else { return nil }
            skipSpace(&place)
            guard take(":", &place) else { return nil }
            if key.elementsEqual(name.utf8) { return place }
            guard skipValue(&place, depth: 0) else { return nil }
            skipSpace(&place)
            guard take(",", &place) else { return nil }
        }
    }

    private func skipValue(_ place: inout Int, depth: Int) -> Bool {
        skipSpace(&place)
        guard depth < Self.depthLimit, place < bytes.count else { return false }
        switch bytes[place] {
        case UInt8(ascii: "\""): return text(&place) != nil
        case UInt8(ascii: "{"): return skipList(&place, depth, closing: "}", hasKeys: true)
        case UInt8(ascii: "["): return skipList(&place, depth, closing: "]", hasKeys: false)
        default:
            let start = place
            while place < bytes.count, !",]} \t\r\n".utf8.contains(bytes[place]) { place += 1 }
            return place > start
        }
    }

    private func skipList(_ place: inout Int, _ depth: Int, closing: Unicode.Scalar, hasKeys: Bool) -> Bool {
        place += 1
        skipSpace(&place)
        if take(closing, &place) { return true }
        while true {
            skipSpace(&place)
            if hasKeys {
                guard text(&place) != nil else { return false }
                skipSpace(&place)
                guard take(":", &place) else { return false }
            }
            guard skipValue(&place, depth: depth + 1) else { return false }
            skipSpace(&place)
            if take(closing, &place) { return true }
            guard take(",", &place) else { return false }
        }
    }

    /// What stands between the quotes of a string.
    private func text(_ place: inout Int) -> UnsafeRawBufferPointer? {
        guard take("\"", &place) else { return nil }
        let start = place
        while place < bytes.count {
            switch bytes[place] {
            case UInt8(ascii: "\""):
                defer { place += 1 }
                return UnsafeRawBufferPointer(rebasing: bytes[start..<place])
            case UInt8(ascii: "\\"): place += 2
            case 0..<0x20: return nil
            default: place += 1
            }
        }
        return nil
    }

    private func take(_ scalar: Unicode.Scalar, _ place: inout Int) -> Bool {
        guard place < bytes.count, bytes[place] == UInt8(ascii: scalar) else { return false }
        place += 1
        return true
    }

    private func skipSpace(_ place: inout Int) {
        while place < bytes.count, " \t\r\n".utf8.contains(bytes[place]) { place += 1 }
    }
}

extension JSONText {
    /// A string between quotes, for what is sent: with escapes where JSON wants them (RFC 8259).
    static func quoted(_ text: String) -> String {
        var quoted = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": quoted.unicodeScalars += ["\\", scalar]
            case _ where scalar.value < 0x20:
                let digits = String(scalar.value, radix: 16)
                quoted += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: quoted.unicodeScalars.append(scalar)
            }
        }
        return quoted + "\""
    }
}
