import Sodium
import Testing

@Suite struct Base64Tests {
    private func decode(_ text: String, limit: Int = 64) -> [UInt8]? {
        var target = [UInt8](repeating: 0xAA, count: limit)
        let count = target.withUnsafeMutableBytes { target in
            [UInt8](text.utf8).withUnsafeBytes { Base64.decode($0, into: target) }
        }
        if count == nil { #expect(target.allSatisfy { $0 == 0 }) }
        return count.map { [UInt8](target[..<$0]) }
    }

    /// RFC 4648, section 10.
    @Test(arguments: [("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmFy", "foobar")])
    func `decodes the RFC's examples`(text: String, expected: String) {
        #expect(decode(text) == [UInt8](expected.utf8))
    }

    @Test(arguments: [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmFy", "foobar")])
    func `encodes them`(expected: String, text: String) {
        var target = [UInt8](repeating: 0xAA, count: Base64.characterCount(of: text.utf8.count) + 1)
        target.withUnsafeMutableBytes { target in
            [UInt8](text.utf8).withUnsafeBytes { Base64.encode($0, into: target) }
        }
        #expect(target == [UInt8](expected.utf8) + [0])
    }

    @Test(arguments: ["Zg", "Zg=", "Z", "Zm9v\n", " Zm9v", "Zm9v====", "Zm9*", "Zm_-", "Zh=="])
    func `refuses what is malformed`(text: String) { #expect(decode(text) == nil) }

    @Test func `refuses what does not fit`() { #expect(decode("Zm9vYmFy", limit: 5) == nil) }
}
