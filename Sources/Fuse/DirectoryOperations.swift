import CFuse
import Glibc

/// Directories as streams of entries.
func addDirectories(_ table: inout fuse_lowlevel_ops) {
    table.opendir = { request, node, file in
        answer(request) { call throws(Errno) in
            let opened = try call.fileSystem.openDirectory(node, flags: file?.pointee.flags ?? 0, call.caller)
            return .opened(opened, of: node, isDirectory: true)
        }
    }
    table.readdir = { request, node, size, offset, file in
        answer(request, scratchByteCount: size) { call throws(Errno) in
            var sink = DirectoryReply(try call.worker.scratch(size), wantsAttributes: false)
            try call.fileSystem.readDirectory(
                node, handle: file?.pointee.fh ?? 0, from: Int64(offset), into: &sink, call.caller)
            return .scratch(sink.byteCount)
        }
    }
    table.readdirplus = { request, node, size, offset, file in
        answer(request, scratchByteCount: size) { call throws(Errno) in
            var sink = DirectoryReply(try call.worker.scratch(size), wantsAttributes: true)
            do throws(Errno) {
                try call.fileSystem.readDirectory(
                    node, handle: file?.pointee.fh ?? 0, from: Int64(offset), into: &sink, call.caller)
            } catch {
                // What was taken counts as looked up, so it must reach the kernel; the error comes at the next call.
                guard sink.byteCount > 0 else { throw error }
            }
            return .scratch(sink.byteCount)
        }
    }
    table.releasedir = { request, node, file in
        answer(request) { call throws(Errno) in
            call.fileSystem.releaseDirectory(node, handle: file?.pointee.fh ?? 0)
            return .done
        }
    }
    table.fsyncdir = { request, node, _, file in
        answer(request) { call throws(Errno) in
            try call.fileSystem.synchronizeDirectory(node, handle: file?.pointee.fh ?? 0, call.caller)
            return .done
        }
    }
}
