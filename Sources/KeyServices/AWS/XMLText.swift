internal import Glibc

/// An answer in XML where it lies, for picking the text of single elements out of it: what is secret is not copied.
struct XMLText {
    let bytes: UnsafeRawBufferPointer

    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    /// What stands between the tags of the first element of that name, which has no attributes. Nil if there is none that ends.
    func element(_ name: String) -> XMLText? {
        guard let start = place(of: "<\(name)>", from: 0), let end = place(of: "</\(name)>", from: start.upperBound)
        else {
            return nil
        }
        return XMLText(UnsafeRawBufferPointer(rebasing: bytes[start.upperBound..<end.lowerBound]))
    }

    private func place(of words: String, from start: Int) -> Range<Int>? {
        guard start < bytes.count, let base = bytes.baseAddress else { return nil }
        let words = Array(words.utf8)
        guard let found = memmem(base + start, bytes.count - start, words, words.count) else { return nil }
        let place = UnsafeRawPointer(found) - base
        return place..<place + words.count
    }
}
