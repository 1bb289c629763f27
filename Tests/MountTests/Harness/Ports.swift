import Glibc

/// A socket on a port of this machine's own that nobody else has; it listens and never says anything.
final class SilentPort {
    let number: Int
    private let descriptors: [Int32]

    /// - Parameter andNext: Listens on the port behind it, too.
    init(andNext: Bool = false) throws {
        for _ in 0..<20 {
            let (first, number) = try Self.listen(on: 0)
            guard andNext else {
                self.number = number
                descriptors = [first]
                return
            }
            if let (second, _) = try? Self.listen(on: number + 1) {
                self.number = number
                descriptors = [first, second]
                return
            }
            close(first)
        }
        throw HarnessError("there are no two ports side by side")
    }

    private static func listen(on port: Int) throws -> (descriptor: Int32, port: Int) {
        let opened = try check(socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        address.sin_port = in_port_t(truncatingIfNeeded: port).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        do {
            try withUnsafeMutablePointer(to: &address) { pointer in
                try pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                    try check(bind(opened, __CONST_SOCKADDR_ARG(__sockaddr__: UnsafePointer(address)), length))
                    try check(Glibc.listen(opened, 16))
                    try check(getsockname(opened, __SOCKADDR_ARG(__sockaddr__: address), &length))
                }
            }
        } catch {
            close(opened)
            throw error
        }
        return (opened, Int(UInt16(bigEndian: address.sin_port)))
    }

    deinit { for descriptor in descriptors { close(descriptor) } }

    /// A port that nobody had a moment ago.
    static func free() throws -> Int { try SilentPort().number }
}

/// What `.ci/install-packages test` has put beside the build.
enum TestTools {
    /// Where changes are checked before they are taken nothing is left out: what is not installed fails.
    static let mustBeThere = Workspace.variable("CI") == "true"

    static let directory: String = {
        let root = #filePath.split(separator: "/").dropLast(4).joined(separator: "/")
        return Workspace.variable("LETTERLOCK_TEST_TOOLS") ?? "/\(root)/.build/test-tools"
    }()
}
