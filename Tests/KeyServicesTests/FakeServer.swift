import Glibc
import Synchronization

/// Answers one request after the other on a port of its own with given bytes, and ends with its owner.
final class FakeServer: Sendable {
    let port: Int
    private let descriptor: Int32
    /// What it was sent last.
    let request = Mutex("")

    private let count = Mutex(0)
    /// How many it was sent.
    var requestCount: Int { count.withLock { $0 } }

    convenience init(_ answers: String?...) throws { try self.init(answers) }

    /// - Parameter answers: The bytes of an answer, status line and all, or nil to say nothing; the last one for all that follow.
    init(_ answers: [String?]) throws {
        let listening = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isBound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                bind(listening, __CONST_SOCKADDR_ARG(__sockaddr__: UnsafePointer(address)), length) == 0
                    && listen(listening, 8) == 0
                    && getsockname(listening, __SOCKADDR_ARG(__sockaddr__: address), &length) == 0
            }
        }
        precondition(isBound, "no port")
        descriptor = listening
        port = Int(UInt16(bigEndian: address.sin_port))
        var thread = pthread_t()
        let box = Unmanaged.passRetained(Work(server: self, descriptor: listening, answers: answers))
        pthread_create(
            &thread, nil,
            { argument in
                Unmanaged<Work>.fromOpaque(argument!).takeRetainedValue().run()
                return nil
            }, box.toOpaque())
        pthread_detach(thread)
    }

    func stop() { shutdown(descriptor, Int32(SHUT_RDWR)) }

    private final class Work {
        let server: FakeServer
        let descriptor: Int32
        let answers: [String?]

        init(server: FakeServer, descriptor: Int32, answers: [String?]) {
            self.server = server
            self.descriptor = descriptor
            self.answers = answers
        }

        func run() {
            defer { close(descriptor) }
            while true {
                let connection = accept(descriptor, __SOCKADDR_ARG(__sockaddr__: nil), nil)
                guard connection >= 0 else { return }
                serve(connection)
                close(connection)
            }
        }

        private func serve(_ connection: Int32) {
            var buffer = [UInt8](repeating: 0, count: 65_536)
            let count = read(connection, &buffer, buffer.count)
            server.request.withLock { $0 = String(decoding: buffer.prefix(max(0, count)), as: UTF8.self) }
            let number = server.count.withLock { count in
                count += 1
                return count
            }
            guard let answer = answers[min(number, answers.count) - 1] else {
                // Until the other side has had enough.
                _ = read(connection, &buffer, buffer.count)
                return
            }
            let bytes = Array(answer.utf8)
            var done = 0
            while done < bytes.count {
                let sent = bytes.withUnsafeBytes {
                    send(connection, $0.baseAddress! + done, bytes.count - done, Int32(MSG_NOSIGNAL))
                }
                guard sent > 0 else { return }
                done += sent
            }
        }
    }
}
