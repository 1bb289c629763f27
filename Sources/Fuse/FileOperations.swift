import CFuse
import Glibc

/// Contents of files.
func addFiles(_ table: inout fuse_lowlevel_ops) {
    table.create = { request, parent, name, mode, file in
        answer(request) { call throws(Errno) in
            let flags = file?.pointee.flags ?? 0
            let (entry, opened) =
                call.worker.header?.opcode == .temporaryFile
                ? try call.fileSystem.createTemporary(in: parent, mode: mode, flags: flags, call.caller)
                : try call.fileSystem.create(bytes(name), in: parent, mode: mode, flags: flags, call.caller)
            return .created(entry, opened)
        }
    }
    table.open = { request, node, file in
        answer(request) { call throws(Errno) in
            let opened = try call.fileSystem.open(node, flags: file?.pointee.flags ?? 0, call.caller)
            return .opened(opened, of: node, isDirectory: false)
        }
    }
    table.read = { request, node, size, offset, file in
        answer(request, scratchByteCount: size) { call throws(Errno) in
            let buffer = try call.worker.scratch(size)
            let (handle, flags) = (file?.pointee.fh ?? 0, file?.pointee.flags ?? 0)
            do throws(Errno) {
                let count = try call.fileSystem.read(
                    node, handle: handle, flags: flags, at: Int64(offset), into: buffer, call.caller)
                return .scratch(checked(count, buffer))
            } catch {
                guard error == .later, let unique = call.worker.header?.unique else { throw error }
                try call.worker.session.waiters.keep(
                    Waiters.Read(
                        unique: unique, node: node, handle: handle, flags: flags, offset: Int64(offset),
                        byteCount: size, caller: call.caller), of: call.worker.session)
                return .silence
            }
        }
    }
    table.write = { request, node, data, size, offset, file in
        answer(request) { call throws(Errno) in
            // The data lie in the request's own buffer; the worker wipes it.
            .written(
                try call.fileSystem.write(
                    node, handle: file?.pointee.fh ?? 0, flags: file?.pointee.flags ?? 0, at: Int64(offset),
                    from: UnsafeRawBufferPointer(start: data, count: size),
                    killsSetID: call.caller.killsSetID, call.caller))
        }
    }
    table.flush = { request, node, file in
        answer(request) { call throws(Errno) in
            try call.fileSystem.flush(node, handle: file?.pointee.fh ?? 0, call.caller)
            return .done
        }
    }
    table.release = { request, node, file in
        answer(request) { call throws(Errno) in
            call.fileSystem.release(
                node, handle: file?.pointee.fh ?? 0, flags: file?.pointee.flags ?? 0)
            return .done
        }
    }
    table.fsync = { request, node, dataOnly, file in
        answer(request) { call throws(Errno) in
            try call.fileSystem.synchronize(
                node, handle: file?.pointee.fh ?? 0, dataOnly: dataOnly != 0, call.caller)
            return .done
        }
    }
    table.fallocate = { request, node, mode, offset, count, file in
        answer(request) { call throws(Errno) in
            try call.fileSystem.allocate(
                node, handle: file?.pointee.fh ?? 0, mode: mode, at: Int64(offset), count: Int64(count),
                call.caller)
            return .done
        }
    }
    table.lseek = { request, node, offset, whence, file in
        answer(request) { call throws(Errno) in
            .position(
                try call.fileSystem.seek(
                    node, handle: file?.pointee.fh ?? 0, from: Int64(offset), whence: whence, call.caller))
        }
    }
    table.ioctl = { request, _, _, _, _, _, _, _, _ in
        answer(request) { _ throws(Errno) in throw Errno(ENOTTY) }
    }
}
