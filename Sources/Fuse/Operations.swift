import CFuse
import Glibc
import Synchronization

/// The one callback table. Each entry is a handler that returns an `Answer` or throws; `answer` replies. STATX and POLL
/// are answered without libfuse.
///
/// Left out on purpose: setlk and flock (the kernel keeps locks itself, and they outlive a server), access
/// (default_permissions), bmap and copy_file_range (the kernel falls back).
func operationTable() -> fuse_lowlevel_ops {
    var table = fuse_lowlevel_ops()
    table.`init` = { _, connection in
        guard let connection, let session = Worker.current?.session else { return }
        negotiate(connection, session.options, session.fileSystem)
        session.isInitialized.store(true, ordering: .relaxed)
        session.fileSystem.started()
    }
    addNames(&table)
    addAttributes(&table)
    addFiles(&table)
    addDirectories(&table)
    return table
}

/// The bytes of a C string, without its zero.
func bytes(_ string: UnsafePointer<CChar>?) -> UnsafeRawBufferPointer {
    guard let string else { return UnsafeRawBufferPointer(start: nil, count: 0) }
    return UnsafeRawBufferPointer(start: string, count: strlen(string))
}
