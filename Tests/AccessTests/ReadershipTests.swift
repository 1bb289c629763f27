import Glibc
import Testing

@testable import Access

/// Who has read what, out of logs as they may lie on a disk.
final class ReadershipTests {
    private let path: String

    init() throws {
        var template = Array("/tmp/letterlock-readers-XXXXXX".utf8CString)
        let descriptor = mkstemp(&template)
        try #require(descriptor >= 0)
        close(descriptor)
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { for name in [path, path + ".1", path + "-20260101", path + ".2.gz"] { unlink(name) } }

    private func append(_ text: String, to file: String? = nil) throws {
        let descriptor = open(file ?? path, O_WRONLY | O_APPEND | O_CREAT, 0o600)
        try #require(descriptor >= 0)
        defer { close(descriptor) }
        #expect(write(descriptor, text, text.utf8.count) == text.utf8.count)
    }

    private func line(
        _ second: Int = 0, _ path: String = "/a", call: String = "open", version: Int = 3, keyring: String = "k",
        errno: Int = 0, exe: String = "/bin/cat"
    ) -> String {
        let time = "2026-03-01T12:00:\(second < 10 ? "0" : "")\(second).000001Z"
        return """
            {"seq":1,"time":"\(time)","type":"response","id":"x","keyring":"\(keyring)","call":"\(call)",\
            "operation":"read","path":"\(path)","uid":7,"gid":7,"pid":\(second + 2),"exe":"\(exe)","decision":"allow",\
            "rule":"default","kek_version":\(version),"errno":\(errno),"prev":"00","hash":"00"}

            """
    }

    private func readership() -> AuditReadership {
        AuditReadership(version: 3, began: "2026-03-01T12:00:30Z", microseconds: 0, keyring: "k")
    }

    private func rows(_ readership: AuditReadership) -> [String] {
        readership.rows.map { row in
            "\(String(decoding: row.path, as: UTF8.self)) \(row.pid) \(row.unwraps) \(row.since)"
        }
    }

    @Test func onlyWhatNeededTheKeyCounts() throws {
        try append(
            line(1) + line(2, call: "read") + line(3, call: "setattr") + line(4, version: 4) + line(5, errno: 13)
                + line(6, keyring: "other") + line(7).replacing("\"response\"", with: "\"request\""))
        var found = readership()
        found.read(path) { _ in false }
        #expect(rows(found) == ["/a 4 2 0"] && found.unwraps == 2)
        #expect(
            String(decoding: found.rows[0].members, as: UTF8.self).hasPrefix("\"path\":\"/a\",\"uid\":7,\"pid\":4,"))
    }

    @Test func itGoesOnWhereItHasReadTo() throws {
        var found = readership()
        try append(line(1) + line(2).dropLast(9))
        found.read(path) { _ in false }
        #expect(rows(found) == ["/a 3 1 0"])
        // The rest of a line that was being written; and what is read since under another key.
        try append(
            String(line(2).suffix(9)) + line(31, version: 4) + line(32, "/b", version: 4) + line(33, "/c", version: 4))
        found.read(path) { $0.elementsEqual("/b".utf8) }
        #expect(rows(found) == ["/b 34 0 1", "/a 33 2 1"])
        // Rotated away and begun anew: nothing is counted twice.
        try #require(rename(path, path + ".1") == 0)
        try append(line(34))
        found.read(path) { _ in false }
        #expect(rows(found) == ["/a 36 3 2", "/b 34 0 1"])
    }

    @Test(arguments: [1, 300, 5000, 1 << 20])
    func itMayBeReadInParts(limit: Int) throws {
        var text = ""
        for number in 0..<2000 { text += line(number % 60, "/f\(number % 7)") }
        try append(text)
        try append(line(2), to: path + ".1")
        var whole = readership()
        whole.read(path) { _ in false }
        #expect(whole.isWhole && whole.unwraps == 2001 && whole.byteCount == text.utf8.count + line(2).utf8.count)
        var found = readership()
        var parts = 0
        repeat {
            found.read(path, limit: limit) { _ in false }
            parts += 1
        } while !found.isWhole && parts < 10_000
        #expect(rows(found).sorted() == rows(whole).sorted() && found.byteCount == whole.byteCount)
        #expect(limit < text.utf8.count ? parts > 1 : parts == 1)
    }

    @Test func rotatedFilesAreReadAndCompressedOnesTold() throws {
        try append(line(1))
        try append(line(2), to: path + ".1")
        try append(line(3), to: path + "-20260101")
        try append("\u{1f}\u{8b}", to: path + ".2.gz")
        var found = readership()
        found.read(path) { _ in false }
        #expect(found.unwraps == 3 && found.unreadFiles == 1)
    }

    @Test func aPathCannotPassForAMember() throws {
        try append(line(1, #"/x\",\"kek_version\":3,\"y\":\""#, version: 4) + line(2, #"/x\\"#))
        var found = readership()
        found.read(path) { _ in false }
        #expect(rows(found) == [#"/x\\ 4 1 0"#])
    }

    @Test func whatIsNullIsNotThere() throws {
        try append(line(1).replacing("\"exe\":", with: "\"unit\":null,\"was\":"))
        var found = readership()
        found.read(path) { _ in false }
        #expect(found.rows.count == 1 && found.rows.allSatisfy { $0.unit == nil && $0.exe == nil })
    }

    @Test func nonsenseIsPassedOver() throws {
        let whole = line(1).dropLast()
        for cut in 0..<whole.count { try append(String(whole.prefix(cut)) + "\n") }
        try append(
            "\n\n{}\n{\"a\"}\n{\"a\":}\n{\"a\\\n\u{0}\n" + String(repeating: "{", count: 300_000) + "\n" + line(2))
        var found = readership()
        found.read(path) { _ in false }
        #expect(rows(found) == ["/a 4 1 0"])
        var none = readership()
        none.read("/nonexistent/log") { _ in true }
        none.read("/dev/zero") { _ in true }
        #expect(none.rows.isEmpty)
    }

    @Test func soManyReadersAtMost() throws {
        var text = ""
        for number in 0..<5000 { text += line(1, "/f\(number)") }
        try append(text)
        var found = readership()
        found.read(path) { _ in false }
        #expect(found.rows.count == 4096 && found.leftOut == 904 && found.unwraps == 5000)
    }
}
