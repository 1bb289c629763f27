import CLinux
import Glibc

/// One datagram to a socket of the machine: systemd's, or the system log's.
enum LocalDatagram {
    /// Sends `text` to the socket at `path`; `@name` stands for the abstract namespace. What nobody takes is lost.
    ///
    /// - Parameter other: A descriptor to send along; -1 for none.
    static func send(_ text: String, to path: String, descriptor other: Int32 = -1) {
        var path = Array(path.utf8)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let capacity = MemoryLayout.size(ofValue: address.sun_path)
        guard path.first == UInt8(ascii: "/") || path.first == UInt8(ascii: "@"), path.count < capacity else {
            return
        }
        if path[0] == UInt8(ascii: "@") { path[0] = 0 }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path) }
        // A log that is full shall not hold up a server.
        let kind = Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        let descriptor = socket(AF_UNIX, kind, 0)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        let length = socklen_t(MemoryLayout.offset(of: \sockaddr_un.sun_path)! + path.count)
        let bytes = Array(text.utf8)
        withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                guard connect(descriptor, __CONST_SOCKADDR_ARG(__sockaddr__: $0), length) == 0 else { return }
                _ = ll_send_with_descriptor(descriptor, bytes, bytes.count, other)
            }
        }
    }
}
