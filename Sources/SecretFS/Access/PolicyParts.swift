import Access
import Fuse
import Glibc
import Synchronization

/// A policy that is longer than one command, on its way: `TOKEN N M` and a newline, then the N-th of M parts.
///
/// Parts wait here until the last one has come, which is the one that replaces the policy. They die with the server;
/// whoever sends them begins again then.
final class PolicyParts: Sendable {
    private struct Waiting {
        var token: Substring = ""
        var next = 1
        var text = ""
    }

    private let waiting = Mutex(Waiting())
    private static let partLimit = 64

    /// - Returns: the whole document with its last part, nil before it.
    /// - Throws: ESTALE if parts before this one are missing; EINVAL for what is no part.
    func take(_ command: ControlCommand) throws(Errno) -> String? {
        guard let end = command.text.firstIndex(of: "\n") else { throw .invalid }
        let words = command.text[..<end].split(separator: " ", omittingEmptySubsequences: false)
        guard words.count == 3, (8...64).contains(words[0].utf8.count), let part = Int(words[1]),
            let count = Int(words[2]), (1...Self.partLimit).contains(count), (1...count).contains(part)
        else { throw .invalid }
        let text = command.text[command.text.index(after: end)...]
        return try waiting.withLock { waiting throws(Errno) in
            if part == 1 {
                waiting = Waiting(token: words[0])
            } else {
                guard waiting.token == words[0], waiting.next == part else { throw Errno(ESTALE) }
            }
            waiting.text += text
            waiting.next = part + 1
            guard part == count else { return nil }
            defer { waiting = Waiting() }
            return waiting.text
        }
    }
}
