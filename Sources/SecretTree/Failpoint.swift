#if DEBUG
internal import Glibc
internal import Synchronization
#endif

/// Places where a test may have the process die. There is nothing of this in a release build.
///
/// `LETTERLOCK_FAILPOINT` names a file. Once it is there, with the text `COUNT server` or `COUNT group`, so many more
/// places are passed; at the next one the file is removed and the process kills itself with SIGKILL, after its parent
/// if a group is to die.
enum Failpoint {
    @inline(__always)
    static func reach() {
        #if DEBUG
        armed?.reach()
        #endif
    }

    #if DEBUG
    private static let armed = getenv("LETTERLOCK_FAILPOINT").map { ArmedFailpoint(path: String(cString: $0)) }
    #endif
}

#if DEBUG
private final class ArmedFailpoint: Sendable {
    private let path: String
    /// Places still to be passed; nil until the file is there.
    private let left = Mutex<Int?>(nil)

    init(path: String) { self.path = path }

    func reach() {
        left.withLock { left in
            guard let (count, endsParent) = order() else {
                left = nil
                return
            }
            let now = left ?? count
            left = now - 1
            guard now <= 0, unlink(path) == 0 else { return }
            if endsParent {
                // Stopped first: it would start another server.
                kill(getppid(), SIGSTOP)
                kill(getppid(), SIGKILL)
            }
            kill(getpid(), SIGKILL)
        }
    }

    private func order() -> (count: Int, endsParent: Bool)? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 64)
        let words = String(decoding: bytes[..<max(0, Glibc.read(descriptor, &bytes, bytes.count))], as: UTF8.self)
            .split(separator: " ")
        guard words.count == 2, let count = Int(words[0]) else { return nil }
        return (count, words[1] == "group")
    }
}
#endif
