import Access
import Glibc

/// A document on its way to a control file: in one command, or in parts to the file `NAME.parts`.
enum LongDocument {
    private static let commandLimit = 4096
    /// With room for the line before each part.
    private static let partLimit = 3800

    static func write(_ text: String, to name: String, _ control: Control) throws(Failure) {
        guard text.utf8.count > commandLimit - 1 else { return try control.write(text, to: name) }
        for attempt in 1... {
            do throws(SystemErrorNumber) { return try send(text, to: control.path(name + ".parts")) } catch {
                // A server that took the place of the one that had the first parts wants all of them.
                guard error.value == ESTALE, attempt < 5 else {
                    throw control.explain(error.value, reading: false, name, nil)
                }
            }
        }
    }

    private static func send(_ text: String, to path: String) throws(SystemErrorNumber) {
        var generator = SystemRandomNumberGenerator()
        let token = String(generator.next(), radix: 16) + "-" + String(getpid())
        let parts = parts(of: text)
        for (index, part) in parts.enumerated() {
            try SmallFile.writeOnce("\(token) \(index + 1) \(parts.count)\n\(part)\n", to: path)
        }
    }

    /// Cut between characters.
    private static func parts(of text: String) -> [Substring] {
        var parts: [Substring] = []
        var rest = text.unicodeScalars[...]
        while !rest.isEmpty {
            var (end, count) = (rest.startIndex, 0)
            while end < rest.endIndex, count + UTF8.width(rest[end]) <= partLimit {
                count += UTF8.width(rest[end])
                end = rest.index(after: end)
            }
            parts.append(Substring(rest[..<end]))
            rest = rest[end...]
        }
        return parts
    }
}

/// What is wrong with a document on disk.
enum DocumentMistakes {
    /// Says all of it but the last mistake, which is thrown: each on a line of its own.
    static func failure(_ found: PolicyMistakes, in path: String) -> Failure {
        let lines = found.mistakes.map { "\(path):\($0.line): \($0.what)" }
        for line in lines.dropLast() { Output.report(Failure(line)) }
        return Failure(lines.last ?? "\(path) is not understood", hint: "nothing was changed")
    }
}
