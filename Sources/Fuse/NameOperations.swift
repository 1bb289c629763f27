import CFuse
import Glibc

/// Names in directories: lookup, creation, removal, rename.
func addNames(_ table: inout fuse_lowlevel_ops) {
    table.lookup = { request, parent, name in
        answer(request) { call throws(Errno) in
            .entry(try call.fileSystem.lookup(bytes(name), in: parent, call.caller))
        }
    }
    table.forget = { request, node, count in
        answer(request) { call throws(Errno) in
            call.fileSystem.forget(node, count: count)
            return .silence
        }
    }
    table.forget_multi = { request, count, forgets in
        answer(request) { call throws(Errno) in
            for forget in UnsafeBufferPointer(start: forgets, count: count) {
                call.fileSystem.forget(forget.ino, count: forget.nlookup)
            }
            return .silence
        }
    }
    table.mknod = { request, parent, name, mode, device in
        answer(request) { call throws(Errno) in
            .entry(
                try call.fileSystem.makeNode(
                    bytes(name), in: parent, mode: mode, device: UInt64(device), call.caller))
        }
    }
    table.mkdir = { request, parent, name, mode in
        answer(request) { call throws(Errno) in
            // The kernel leaves the type out; a file system wants one kind of mode.
            .entry(
                try call.fileSystem.makeDirectory(
                    bytes(name), in: parent, mode: mode & ~S_IFMT | S_IFDIR, call.caller))
        }
    }
    table.symlink = { request, target, parent, name in
        answer(request) { call throws(Errno) in
            .entry(
                try call.fileSystem.makeSymbolicLink(
                    bytes(name), in: parent, target: bytes(target), call.caller))
        }
    }
    table.link = { request, node, parent, name in
        answer(request) { call throws(Errno) in
            .entry(try call.fileSystem.link(node, as: bytes(name), in: parent, call.caller))
        }
    }
    table.unlink = { request, parent, name in
        answer(request) { call throws(Errno) in
            try call.fileSystem.unlink(bytes(name), in: parent, call.caller)
            return .done
        }
    }
    table.rmdir = { request, parent, name in
        answer(request) { call throws(Errno) in
            try call.fileSystem.removeDirectory(bytes(name), in: parent, call.caller)
            return .done
        }
    }
    table.rename = { request, parent, name, newParent, newName, flags in
        answer(request) { call throws(Errno) in
            try call.fileSystem.rename(
                bytes(name), in: parent, to: bytes(newName), in: newParent, flags: flags, call.caller)
            return .done
        }
    }
    table.readlink = { request, node in
        answer(request, scratchByteCount: Int(PATH_MAX)) { call throws(Errno) in
            let target = try call.worker.scratch(Int(PATH_MAX))
            return .scratch(try checked(call.fileSystem.readLink(node, into: target, call.caller), target))
        }
    }
}

/// A count that a file system says it has filled a buffer with.
func checked(_ count: Int, _ buffer: UnsafeMutableRawBufferPointer) -> Int {
    precondition((0...buffer.count).contains(count), "a file system filled more than it was given")
    return count
}
