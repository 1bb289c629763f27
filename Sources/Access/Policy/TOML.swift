/// TOML 1.0 (toml.io), with the line of everything in it, so that a mistake in what a value means can be told as
/// precisely as one in how it is written. Dates, times and floats are read over: no document of ours has any.
public enum TOML {
    /// The longest document.
    public static let byteLimit = 65_536
    static let depthLimit = 16
    static let valueLimit = 20_000

    /// What is wrong, and where. Lines and columns count from 1.
    public struct Mistake: Error, Equatable, Sendable {
        public var line: Int
        public var column: Int
        public var what: String
    }

    public struct Value: Sendable {
        public indirect enum Kind: Sendable {
            case string(String)
            case integer(Int64)
            case boolean(Bool)
            case array([Value])
            case table(Table)
            /// What it is: a date, a time, a float.
            case other(String)
        }

        public var line: Int
        public var kind: Kind

        /// In words, for messages.
        public var kindName: String {
            switch kind {
            case .string: "a string"
            case .integer: "an integer"
            case .boolean: "true or false"
            case .array: "a list"
            case .table: "a table"
            case .other(let what): what
            }
        }
    }

    public struct Table: Sendable {
        public struct Entry: Sendable {
            public var key: String
            public var line: Int
            public var value: Value
        }
        /// In the document's order.
        public internal(set) var entries: [Entry] = []
        /// Written by `[header]` or as a value: it takes no second header.
        var isDefined = false
        /// Written as a value: it takes nothing more.
        var isClosed = false

        public subscript(key: String) -> Value? { entries.first { $0.key == key }?.value }
        func index(of key: String) -> Int? { entries.firstIndex { $0.key == key } }
    }

    /// Reads a whole document.
    public static func parse(_ bytes: UnsafeRawBufferPointer) throws(Mistake) -> Table {
        guard bytes.count <= byteLimit else {
            throw Mistake(line: 1, column: 1, what: "the document is longer than \(byteLimit) bytes")
        }
        var parser = TOMLParser(bytes)
        return try parser.document()
    }

    public static func parse(_ text: String) throws(Mistake) -> Table {
        var text = text
        let result = text.withUTF8 { bytes in
            Result { () throws(Mistake) in try parse(UnsafeRawBufferPointer(bytes)) }
        }
        return try result.get()
    }
}
