import Glibc
import Threads

/// Has the kernel drop pages, for the servers, in a thread of the guardian's.
///
/// The kernel waits there for pages that a read has locked, and no signal ends that wait. In a server's thread it would
/// keep the server from dying until somebody answers the read, which only its successor could.
///
/// A request is `ticket 8 | nodes 8 each`; the answer is the ticket.
enum Invalidations {
    private static let nodeLimit = 256

    /// Serves `socket` until its other ends are closed.
    ///
    /// - Parameter connection: The connection to the kernel; stays open as long as the process.
    static func start(_ socket: Int32, connection: Int32) throws(Failure) {
        let number = startThread { serve(socket, connection) }
        guard number == 0 else { throw Failure("cannot start a thread", errno: number) }
    }

    private static func serve(_ socket: Int32, _ connection: Int32) {
        var words = [UInt64](repeating: 0, count: 1 + nodeLimit)
        while true {
            let count = recv(socket, &words, words.count * 8, 0)
            if count < 0, errno == EINTR { continue }
            guard count >= 8 else { return }
            for node in words[1..<count / 8] { invalidate(node, connection) }
            _ = Glibc.send(socket, &words, 8, Int32(MSG_NOSIGNAL))
        }
    }

    /// struct fuse_out_header with FUSE_NOTIFY_INVAL_INODE (2), and struct fuse_notify_inval_inode_out: the whole node.
    private static func invalidate(_ node: UInt64, _ connection: Int32) {
        var notification: (length: UInt32, code: Int32, unique: UInt64, node: UInt64, offset: Int64, count: Int64) = (
            40, 2, 0, node, 0, 0
        )
        // A node that the kernel does not know has no pages.
        _ = write(connection, &notification, 40)
    }

    /// A server's end.
    final class Client: @unchecked Sendable {
        // Used by the server's invalidating thread alone.
        private let socket: Int32
        private var ticket = UInt64(UInt32(bitPattern: getpid())) << 32

        init(socket: Int32) { self.socket = socket }

        /// Returns when the kernel has dropped the pages of `node`, or nobody is there to do it.
        func invalidate(_ node: UInt64) {
            ticket += 1
            var words = [ticket, node]
            guard send(socket, &words, 16, Int32(MSG_NOSIGNAL)) == 16 else { return }
            var answer: UInt64 = 0
            // Answers to servers before this one may still come.
            repeat {
                let count = recv(socket, &answer, 8, 0)
                if count < 0, errno == EINTR { continue }
                guard count == 8 else { return }
            } while answer != ticket
        }
    }
}
