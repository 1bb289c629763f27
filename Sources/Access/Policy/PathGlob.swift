/// A pattern for paths: `/web/*.key`, `/web/**`, `/**/tls.key`.
///
/// `*` stands for any characters of one name, `?` for one character, `[a-z]` and `[!a-z]` for one of a set; `**` as a
/// whole name stands for any number of names, none among them, so that `/web/**` is `/web` and all below it. A backslash
/// takes the next character as it is. Names are bytes: what is no UTF-8 is compared byte by byte.
public struct PathGlob: Sendable, Equatable {
    enum Part: Sendable, Equatable {
        /// `**`
        case anyNames
        case name(NameGlob)
    }

    public let text: String
    let parts: [Part]

    /// - Throws: what is wrong with it, for a reader.
    public init(_ text: String) throws(PatternMistake) {
        guard text.utf8.first == UInt8(ascii: "/") else { throw PatternMistake("'\(text)' does not begin with /") }
        guard text.utf8.count <= 4096 else { throw PatternMistake("a pattern is longer than 4096 bytes") }
        self.text = text
        guard text != "/" else {
            parts = []
            return
        }
        var parts: [Part] = []
        for name in text.utf8.dropFirst().split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false) {
            let bytes = Array(name)
            switch String(decoding: bytes, as: UTF8.self) {
            case "": throw PatternMistake("'\(text)' has an empty name in it")
            case ".", "..": throw PatternMistake("'\(text)' has a dot for a name, which no path has")
            case "**": parts.append(.anyNames)
            default: parts.append(.name(try NameGlob(bytes, of: text)))
            }
        }
        self.parts = parts
    }

    /// Whether a path from the root on, without empty names, is meant.
    public func matches(_ path: some Collection<UInt8>) -> Bool { matches(names: Self.names(path)[...]) }

    static func names<Path: Collection<UInt8>>(_ path: Path) -> [Path.SubSequence] {
        path.split(separator: UInt8(ascii: "/"))
    }

    /// The usual way with one kind of wildcard: on a mismatch the last `**` takes one name more.
    private func matches<Name: Collection<UInt8>>(names: ArraySlice<Name>) -> Bool {
        var (part, name) = (0, names.startIndex)
        var retry: (part: Int, name: Int)?
        while name < names.endIndex {
            if part < parts.count, case .anyNames = parts[part] {
                retry = (part + 1, name)
                part += 1
            } else if part < parts.count, case .name(let glob) = parts[part], glob.matches(names[name]) {
                part += 1
                name += 1
            } else if let last = retry {
                retry = (last.part, last.name + 1)
                (part, name) = (last.part, last.name + 1)
            } else {
                return false
            }
        }
        return parts[part...].allSatisfy { $0 == .anyNames }
    }

    /// Whether something below a directory could be meant.
    func couldMatchBelow(_ directory: some Collection<UInt8>) -> Bool {
        var places = reached([0])
        for name in Self.names(directory) {
            var next: Set<Int> = []
            for place in places where place < parts.count {
                switch parts[place] {
                case .anyNames: next.insert(place)
                case .name(let glob): if glob.matches(name) { next.insert(place + 1) }
                }
            }
            places = reached(next)
        }
        return places.contains { $0 < parts.count }
    }

    /// Places in the pattern that can be reached without a name.
    private func reached(_ places: Set<Int>) -> Set<Int> {
        var all = places
        for var place in places {
            while place < parts.count, case .anyNames = parts[place] {
                place += 1
                all.insert(place)
            }
        }
        return all
    }
}

/// What is wrong with a pattern.
public struct PatternMistake: Error, Equatable, Sendable {
    public let what: String
    init(_ what: String) { self.what = what }
}

/// A pattern for one name.
public struct NameGlob: Sendable, Equatable {
    private enum Step: Sendable, Equatable {
        case byte(UInt8)
        case anyBytes
        case anyCharacter
        case oneOf([ClosedRange<UInt8>], isNegated: Bool)
    }

    private let steps: [Step]

    public init(_ text: String) throws(PatternMistake) { try self.init(Array(text.utf8), of: text) }

    init(_ bytes: [UInt8], of pattern: String) throws(PatternMistake) {
        var steps: [Step] = []
        var place = 0
        while place < bytes.count {
            let byte = bytes[place]
            place += 1
            switch byte {
            case UInt8(ascii: "*"):
                guard steps.last != .anyBytes else {
                    throw PatternMistake("'\(pattern)': ** stands alone between slashes")
                }
                steps.append(.anyBytes)
            case UInt8(ascii: "?"): steps.append(.anyCharacter)
            case UInt8(ascii: "["): steps.append(try Self.set(bytes, &place, of: pattern))
            case UInt8(ascii: "\\"):
                guard place < bytes.count else { throw PatternMistake("'\(pattern)' ends with a backslash") }
                steps.append(.byte(bytes[place]))
                place += 1
            default: steps.append(.byte(byte))
            }
        }
        self.steps = steps
    }

    /// What stands behind `[`, with its `]`.
    private static func set(_ bytes: [UInt8], _ place: inout Int, of pattern: String) throws(PatternMistake) -> Step {
        let isNegated = place < bytes.count && (bytes[place] == UInt8(ascii: "!") || bytes[place] == UInt8(ascii: "^"))
        if isNegated { place += 1 }
        var ranges: [ClosedRange<UInt8>] = []
        while place < bytes.count, bytes[place] != UInt8(ascii: "]") || ranges.isEmpty {
            let low = bytes[place]
            var high = low
            if place + 2 < bytes.count, bytes[place + 1] == UInt8(ascii: "-"), bytes[place + 2] != UInt8(ascii: "]") {
                high = bytes[place + 2]
                place += 2
            }
            guard low <= high, low < 0x80, high < 0x80 else {
                throw PatternMistake("'\(pattern)': a set holds ASCII characters, in ranges from low to high")
            }
            ranges.append(low...high)
            place += 1
        }
        guard place < bytes.count else { throw PatternMistake("'\(pattern)': [ without ]") }
        place += 1
        return .oneOf(ranges, isNegated: isNegated)
    }

    public func matches(_ name: String) -> Bool { matches(name.utf8) }

    func matches<Name: Collection<UInt8>>(_ name: Name) -> Bool {
        var (step, place) = (0, name.startIndex)
        var retry: (step: Int, place: Name.Index)?
        while true {
            if step == steps.count, place == name.endIndex { return true }
            if step < steps.count, steps[step] == .anyBytes {
                retry = (step + 1, place)
                step += 1
            } else if step < steps.count, place != name.endIndex, let next = after(steps[step], name, place) {
                step += 1
                place = next
            } else if let last = retry, last.place != name.endIndex {
                let next = name.index(after: last.place)
                retry = (last.step, next)
                (step, place) = (last.step, next)
            } else {
                return false
            }
        }
    }

    /// The place behind what one step takes; nil if it does not take what is there.
    private func after<Name: Collection<UInt8>>(_ step: Step, _ name: Name, _ place: Name.Index) -> Name.Index? {
        let byte = name[place]
        switch step {
        case .byte(let wanted): return byte == wanted ? name.index(after: place) : nil
        case .anyBytes: return place
        case .oneOf(let ranges, let isNegated):
            guard ranges.contains(where: { $0.contains(byte) }) != isNegated else { return nil }
            return Self.afterCharacter(name, place)
        case .anyCharacter: return Self.afterCharacter(name, place)
        }
    }

    /// Behind one UTF-8 character, or one byte of something else.
    private static func afterCharacter<Name: Collection<UInt8>>(_ name: Name, _ place: Name.Index) -> Name.Index {
        var next = name.index(after: place)
        guard name[place] >= 0xC0 else { return next }
        while next != name.endIndex, name[next] & 0xC0 == 0x80 { next = name.index(after: next) }
        return next
    }
}
