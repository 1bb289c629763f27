/// The files of an unmounted store, as somebody who has no key may read and change them.
struct StoreEdit {
    let work: Workspace
    var directory: String { work.store }

    /// What a record is, by the first byte of its key.
    enum Kind: String, CaseIterable {
        case configuration = "01"
        case root = "02"
        case lifecycle = "03"
        case treeKey = "04"
        case localizer = "05"
        case node = "06"
        case entry = "07"
        case envelope = "08"
        case attribute = "09"
        case map = "0A"
        case target = "0C"
    }

    /// Values by keys, both in hexadecimal digits.
    func records() throws -> [String: String] {
        let table = try sql("SELECT hex(key) || ' ' || hex(value) FROM record ORDER BY key;")
        var records: [String: String] = [:]
        for line in table.split(separator: "\n") {
            let parts = line.split(separator: " ", omittingEmptySubsequences: false)
            records[String(parts[0])] = String(parts[1])
        }
        return records
    }

    func records(_ kind: Kind) throws -> [String: String] { try records().filter { $0.key.hasPrefix(kind.rawValue) } }

    func set(_ key: String, _ value: String) throws {
        try sql("INSERT OR REPLACE INTO record(key, value) VALUES(x'\(key)', x'\(value)');")
    }

    func delete(_ key: String) throws { try sql("DELETE FROM record WHERE key = x'\(key)';") }

    @discardableResult
    func sql(_ statements: String) throws -> String {
        try work.done(["sqlite3", "-batch", "-bail", directory + "/records.sqlite"], input: statements).text
    }

    /// `value` with one bit of one byte changed.
    static func flipped(_ value: String, at byte: Int) -> String {
        var digits = Array(value.utf8)
        let place = byte * 2 + 1
        let old = UInt8(String(decoding: [digits[place]], as: UTF8.self), radix: 16) ?? 0
        digits[place] = Array(String(old ^ 1, radix: 16, uppercase: true).utf8)[0]
        return String(decoding: digits, as: UTF8.self)
    }

    func copy(to name: String) throws { try work.done(["cp", "-a", directory, work(name)]) }

    func takeBack(_ name: String) throws {
        try work.done(["rm", "-rf", directory])
        try work.done(["cp", "-a", work(name), directory])
    }
}
