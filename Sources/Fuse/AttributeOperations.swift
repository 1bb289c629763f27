import CFuse
import Glibc

/// Attributes of nodes, extended ones too.
func addAttributes(_ table: inout fuse_lowlevel_ops) {
    table.getattr = { request, node, file in
        answer(request) { call throws(Errno) in
            let (attributes, validity) = try call.fileSystem.attributes(
                of: node, handle: file?.pointee.fh, call.caller)
            return .attributes(attributes, validity: validity)
        }
    }
    table.setattr = { request, node, values, which, file in
        answer(request) { call throws(Errno) in
            guard let values else { throw Errno(EIO) }
            var change = AttributeRequest(values.pointee, which: which)
            change.killsSetID = call.caller.killsSetID
            let (attributes, validity) = try call.fileSystem.setAttributes(
                of: node, handle: file?.pointee.fh, change, call.caller)
            return .attributes(attributes, validity: validity)
        }
    }
    table.statfs = { request, node in
        answer(request) { call throws(Errno) in
            .statistics(try call.fileSystem.statistics(of: node, call.caller))
        }
    }
    table.setxattr = { request, node, name, value, size, flags in
        answer(request) { call throws(Errno) in
            try call.fileSystem.setExtendedAttribute(
                node, bytes(name), UnsafeRawBufferPointer(start: value, count: size), flags: flags,
                call.caller)
            return .done
        }
    }
    table.getxattr = { request, node, name, size in
        answer(request, scratchByteCount: size) { call throws(Errno) in
            try sized(size, call) { reply throws(Errno) in
                try call.fileSystem.extendedAttribute(node, bytes(name), call.caller, reply: reply)
            }
        }
    }
    table.listxattr = { request, node, size in
        answer(request, scratchByteCount: size) { call throws(Errno) in
            try sized(size, call) { reply throws(Errno) in
                try call.fileSystem.listExtendedAttributes(node, call.caller, reply: reply)
            }
        }
    }
    table.removexattr = { request, node, name in
        answer(request) { call throws(Errno) in
            try call.fileSystem.removeExtendedAttribute(node, bytes(name), call.caller)
            return .done
        }
    }
}

/// What getxattr(2) and listxattr(2) have in common: size 0 asks for the size, and too small a size is ERANGE.
/// The bytes are copied, for they come under the file system's locks, and a reply is not sent under a lock.
private func sized(
    _ size: Int, _ call: Call, _ produce: ((UnsafeRawBufferPointer) -> Void) throws(Errno) -> Void
) throws(Errno) -> Answer {
    let buffer = try call.worker.scratch(size)
    var count: Int?
    try produce { value in
        count = value.count
        if value.count <= buffer.count { buffer.copyMemory(from: value) }
    }
    guard let count else { throw Errno(ENODATA) }
    if size == 0 { return .size(count) }
    guard count <= size else { throw Errno(ERANGE) }
    return .scratch(count)
}

extension AttributeRequest {
    fileprivate init(_ values: stat, which: Int32) {
        self.init()
        if which & FUSE_SET_ATTR_MODE != 0 { mode = values.st_mode }
        if which & FUSE_SET_ATTR_UID != 0 { uid = values.st_uid }
        if which & FUSE_SET_ATTR_GID != 0 { gid = values.st_gid }
        if which & FUSE_SET_ATTR_SIZE != 0 { size = Int64(values.st_size) }
        if which & FUSE_SET_ATTR_ATIME_NOW != 0 {
            accessTime = .now
        } else if which & FUSE_SET_ATTR_ATIME != 0 {
            accessTime = .at(values.st_atim)
        }
        if which & FUSE_SET_ATTR_MTIME_NOW != 0 {
            modificationTime = .now
        } else if which & FUSE_SET_ATTR_MTIME != 0 {
            modificationTime = .at(values.st_mtim)
        }
        if which & FUSE_SET_ATTR_CTIME != 0 { statusChangeTime = values.st_ctim }
    }
}
