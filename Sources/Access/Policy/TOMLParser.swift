/// Tables, headers and keys.
struct TOMLParser {
    var cursor: TOMLCursor
    private var root = TOML.Table()
    var valueCount = 0

    init(_ bytes: UnsafeRawBufferPointer) { cursor = TOMLCursor(bytes) }

    /// A step on the way from the root to the table that lines are for: a key, and which of an array's tables.
    private typealias Key = (name: String, line: Int)

    mutating func document() throws(TOML.Mistake) -> TOML.Table {
        guard String(validating: cursor.bytes, as: UTF8.self) != nil else {
            throw TOML.Mistake(line: invalidLine, column: 1, what: "this is not UTF-8")
        }
        if cursor.looking(at: "\u{FEFF}") { cursor.advance(3) }
        var place: [Key] = []
        while true {
            try cursor.skipLines()
            guard let byte = cursor.next else { return root }
            if byte == UInt8(ascii: "[") {
                place = try header()
            } else {
                let keys = try keys()
                try cursor.expect(UInt8(ascii: "="))
                cursor.skipBlanks()
                let value = try value(depth: place.count + keys.count)
                try Self.put(value, at: keys[...], below: place[...], into: &root)
            }
            try cursor.expectLineEnd()
        }
    }

    /// The first line that has a broken character.
    private var invalidLine: Int {
        var line = 1
        var start = 0
        for (index, byte) in cursor.bytes.enumerated() where byte == UInt8(ascii: "\n") {
            let part = UnsafeRawBufferPointer(rebasing: cursor.bytes[start..<index])
            if String(validating: part, as: UTF8.self) == nil { return line }
            line += 1
            start = index + 1
        }
        return line
    }

    // MARK: Headers

    private mutating func header() throws(TOML.Mistake) -> [Key] {
        let isArray = cursor.ahead(1) == UInt8(ascii: "[")
        cursor.advance(isArray ? 2 : 1)
        cursor.skipBlanks()
        let keys = try keys()
        for _ in 0..<(isArray ? 2 : 1) { try cursor.expect(UInt8(ascii: "]")) }
        guard keys.count <= TOML.depthLimit else { throw cursor.mistake("tables are nested too deeply") }
        try countValue()
        try Self.open(keys[...], isArray: isArray, in: &root)
        return keys
    }

    private static func mistake(_ key: Key, _ what: String) -> TOML.Mistake {
        TOML.Mistake(line: key.line, column: 1, what: what)
    }

    /// Makes the table that a header names.
    private static func open(_ keys: ArraySlice<Key>, isArray: Bool, in table: inout TOML.Table) throws(TOML.Mistake) {
        guard let key = keys.first else { return }
        guard keys.count == 1 else {
            return try descend(key, in: &table) { table throws(TOML.Mistake) in
                try open(keys.dropFirst(), isArray: isArray, in: &table)
            }
        }
        var new = TOML.Table()
        new.isDefined = true
        guard let index = table.index(of: key.name) else {
            let value = TOML.Value(line: key.line, kind: .table(new))
            let kind: TOML.Value.Kind = isArray ? .array([value]) : .table(new)
            table.entries.append(
                TOML.Table.Entry(key: key.name, line: key.line, value: TOML.Value(line: key.line, kind: kind)))
            return
        }
        switch (table.entries[index].value.kind, isArray) {
        case (.array(var tables), true):
            guard case .table(let last)? = tables.last?.kind, last.isDefined, !last.isClosed else {
                throw mistake(key, "'\(key.name)' is a list already")
            }
            tables.append(TOML.Value(line: key.line, kind: .table(new)))
            table.entries[index].value.kind = .array(tables)
        case (.table(var old), false):
            guard !old.isDefined, !old.isClosed else { throw mistake(key, "'\(key.name)' is given twice") }
            old.isDefined = true
            table.entries[index].value.kind = .table(old)
        default: throw mistake(key, "'\(key.name)' is given twice")
        }
    }

    /// Calls `body` with the table that a key leads to, the last one of an array of them; it is made if need be.
    private static func descend(
        _ key: Key, in table: inout TOML.Table, _ body: (inout TOML.Table) throws(TOML.Mistake) -> Void
    ) throws(TOML.Mistake) {
        let index: Int
        if let found = table.index(of: key.name) {
            index = found
        } else {
            index = table.entries.count
            table.entries.append(
                TOML.Table.Entry(
                    key: key.name, line: key.line, value: TOML.Value(line: key.line, kind: .table(TOML.Table()))))
        }
        switch table.entries[index].value.kind {
        case .table(var inner) where !inner.isClosed:
            try body(&inner)
            table.entries[index].value.kind = .table(inner)
        case .array(var values):
            guard let last = values.last, case .table(var inner) = last.kind, !inner.isClosed else {
                throw mistake(key, "'\(key.name)' is no table")
            }
            try body(&inner)
            values[values.count - 1].kind = .table(inner)
            table.entries[index].value.kind = .array(values)
        default: throw mistake(key, "'\(key.name)' is no table that could be added to")
        }
    }

    // MARK: Keys

    private static func put(
        _ value: TOML.Value, at keys: ArraySlice<Key>, below place: ArraySlice<Key>, into table: inout TOML.Table
    ) throws(TOML.Mistake) {
        if let key = place.first {
            return try descend(key, in: &table) { table throws(TOML.Mistake) in
                try put(value, at: keys, below: place.dropFirst(), into: &table)
            }
        }
        guard let key = keys.first else { return }
        guard keys.count == 1 else {
            return try descend(key, in: &table) { table throws(TOML.Mistake) in
                try put(value, at: keys.dropFirst(), below: place, into: &table)
            }
        }
        guard table.index(of: key.name) == nil else { throw mistake(key, "'\(key.name)' is given twice") }
        table.entries.append(TOML.Table.Entry(key: key.name, line: key.line, value: value))
    }

    /// One key, or several with dots between.
    private mutating func keys() throws(TOML.Mistake) -> [Key] {
        var keys: [Key] = []
        while true {
            keys.append(try key())
            cursor.skipBlanks()
            guard cursor.next == UInt8(ascii: ".") else { return keys }
            guard keys.count < TOML.depthLimit else { throw cursor.mistake("keys are nested too deeply") }
            cursor.advance()
            cursor.skipBlanks()
        }
    }

    private mutating func key() throws(TOML.Mistake) -> Key {
        let line = cursor.line
        switch cursor.next {
        case UInt8(ascii: "\""): return (try basicString(), line)
        case UInt8(ascii: "'"): return (try literalString(), line)
        default: break
        }
        var name: [UInt8] = []
        while let byte = cursor.next, Self.isBare(byte) {
            name.append(byte)
            cursor.advance()
        }
        guard !name.isEmpty else { throw cursor.mistake("\(cursor.description) where a key should be") }
        return (String(decoding: name, as: UTF8.self), line)
    }

    static func isBare(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"):
            true
        default: false
        }
    }

    mutating func inlineTable(depth: Int) throws(TOML.Mistake) -> TOML.Table {
        cursor.advance()
        var table = TOML.Table()
        cursor.skipBlanks()
        if cursor.next == UInt8(ascii: "}") {
            cursor.advance()
        } else {
            while true {
                cursor.skipBlanks()
                let keys = try keys()
                try cursor.expect(UInt8(ascii: "="))
                cursor.skipBlanks()
                try Self.put(try value(depth: depth + keys.count), at: keys[...], below: [], into: &table)
                cursor.skipBlanks()
                guard cursor.next == UInt8(ascii: ",") else { break }
                cursor.advance()
            }
            try cursor.expect(UInt8(ascii: "}"))
        }
        table.isDefined = true
        table.isClosed = true
        return table
    }
}
