import CLinux
import Glibc

/// What a program left when it ended.
struct Outcome {
    /// The exit code, or 128 and the signal's number.
    var status: Int32
    var bytes: [UInt8]
    var complaint: String

    var text: String { String(decoding: bytes, as: UTF8.self) }
    /// Standard output without the newlines at its end.
    var line: String {
        var text = text
        while text.last == "\n" { text.removeLast() }
        return text
    }
}

/// A running program. Its output goes to memory, so that whatever inherits it holds nobody up.
final class Child {
    let pid: pid_t
    private let end: Int32
    private let output: Int32
    private let complaint: Int32
    private var status: Int32?

    /// - Parameters:
    ///   - input: What it reads from standard input.
    ///   - descriptors: Numbers it finds descriptors of this process at.
    init(
        _ argv: [String], environment: [String: String], directory: String? = nil, input: [UInt8]? = nil,
        descriptors: [Int32: Int32] = [:]
    ) throws {
        output = try check(memfd_create("output", 1))
        complaint = try check(memfd_create("complaint", 1))
        var standardInput = try check(open("/dev/null", O_RDONLY | O_CLOEXEC))
        if let input {
            close(standardInput)
            standardInput = try Self.memory(holding: input)
        }
        defer { close(standardInput) }
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
        }
        // Copied first: what is copied from must not be among what is copied to.
        var copies: [Int32] = []
        defer { for copy in copies { close(copy) } }
        for (number, source) in [0: standardInput, 1: output, 2: complaint].merging(
            descriptors, uniquingKeysWith: { $1 })
        {
            copies.append(try check(fcntl(source, F_DUPFD_CLOEXEC, 100)))
            posix_spawn_file_actions_adddup2(&actions, copies.last!, number)
        }
        if let directory { posix_spawn_file_actions_addchdir_np(&actions, directory) }
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP))
        var words: [UnsafeMutablePointer<CChar>?] = argv.map { strdup($0) }
        var settings: [UnsafeMutablePointer<CChar>?] = environment.map { strdup("\($0.key)=\($0.value)") }
        words.append(nil)
        settings.append(nil)
        defer { for text in words + settings { free(text) } }
        var pid: pid_t = 0
        let number = posix_spawnp(&pid, argv[0], &actions, &attributes, words, settings)
        guard number == 0 else {
            throw HarnessError(
                "cannot run \(argv[0]): \(Errno(number)); is its package installed (.ci/packages-test)?")
        }
        self.pid = pid
        end = ll_pidfd_open(pid)
    }

    deinit {
        if status == nil {
            kill(-pid, SIGKILL)
            kill(pid, SIGKILL)
            waitpid(pid, nil, 0)
        }
        for descriptor in [end, output, complaint] { close(descriptor) }
    }

    var hasEnded: Bool { awaitEnd(milliseconds: 0) }

    private func awaitEnd(milliseconds: Int32) -> Bool {
        var waiting = pollfd(fd: end, events: Int16(POLLIN), revents: 0)
        return poll(&waiting, 1, milliseconds) == 1
    }

    /// Waits for the end; after `seconds` the program and all that it started are killed.
    func wait(seconds: Int32 = 60) throws -> Outcome {
        if status == nil {
            let inTime = awaitEnd(milliseconds: seconds * 1000)
            if !inTime { kill(-pid, SIGKILL) }
            var raw: Int32 = 0
            try check(waitpid(pid, &raw, 0))
            status = raw & 0x7F == 0 ? raw >> 8 & 0xFF : 128 + raw & 0x7F
            guard inTime else {
                throw HarnessError(
                    "process \(pid) did not end within \(seconds) s: \(String(decoding: said(complaint), as: UTF8.self))"
                )
            }
        }
        return Outcome(
            status: status ?? -1, bytes: said(output),
            complaint: String(decoding: said(complaint), as: UTF8.self))
    }

    private func said(_ descriptor: Int32) -> [UInt8] {
        let count = Int(max(lseek(descriptor, 0, SEEK_END), 0))
        return [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            filled = max(pread(descriptor, buffer.baseAddress, count, 0), 0)
        }
    }

    private static func memory(holding bytes: [UInt8]) throws -> Int32 {
        let descriptor = try check(memfd_create("input", 1))
        try check(Glibc.write(descriptor, bytes, bytes.count))
        lseek(descriptor, 0, SEEK_SET)
        return descriptor
    }

    /// The reading end of a pipe with `bytes` in it, closed for writing.
    static func pipe(holding bytes: [UInt8]) throws -> Int32 {
        var ends: [Int32] = [-1, -1]
        try check(pipe2(&ends, O_CLOEXEC))
        try check(Glibc.write(ends[1], bytes, bytes.count))
        close(ends[1])
        return ends[0]
    }
}
