internal import Glibc

/// An open file of the store's directory. Every call that the system refuses throws with the file's name.
final class File: Sendable {
    let descriptor: Int32
    let name: String

    /// Opens `name` below a directory, never through a symbolic link.
    init(_ name: String, in directory: File, _ flags: Int32) throws(StorageError) {
        self.name = name
        descriptor = openat(directory.descriptor, name, flags | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw StorageError(errno, "cannot open \(name)") }
    }

    /// A file that another process has opened; a duplicate of its descriptor is kept.
    init(inherited other: Int32, _ name: String) throws(StorageError) {
        self.name = name
        descriptor = fcntl(other, F_DUPFD_CLOEXEC, 3)
        guard descriptor >= 0 else { throw StorageError(errno, "cannot use \(name)") }
    }

    init(directory path: String) throws(StorageError) {
        name = path
        descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw StorageError(errno, "cannot open \(path)") }
    }

    deinit { Glibc.close(descriptor) }

    func status() throws(StorageError) -> stat {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw StorageError(errno, "cannot examine \(name)") }
        return status
    }

    func byteCount() throws(StorageError) -> Int { Int(try status().st_size) }

    /// Writes all bytes, or throws with some of them written.
    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(StorageError) {
        var done = 0
        while done < bytes.count {
            let count = pwrite(
                descriptor, bytes.baseAddress! + done, bytes.count - done, off_t(offset + done))
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw StorageError(count < 0 ? errno : EIO, "cannot write \(name)") }
            done += count
        }
    }

    /// Reads until the buffer or the file ends; gives how many bytes it got.
    func read(into bytes: UnsafeMutableRawBufferPointer, at offset: Int) throws(StorageError) -> Int {
        var done = 0
        while done < bytes.count {
            let count = pread(descriptor, bytes.baseAddress! + done, bytes.count - done, off_t(offset + done))
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw StorageError(errno, "cannot read \(name)") }
            guard count > 0 else { break }
            done += count
        }
        return done
    }

    func truncate(to byteCount: Int) throws(StorageError) {
        guard ftruncate(descriptor, off_t(byteCount)) == 0 else {
            throw StorageError(errno, "cannot cut \(name)")
        }
    }

    /// Has the kernel begin to write a part to the disk, without waiting for it. A hint: what fails is found by `sync`.
    func beginWriting(at offset: Int, _ count: Int) {
        _ = sync_file_range(descriptor, __off64_t(offset), __off64_t(count), UInt32(SYNC_FILE_RANGE_WRITE))
    }

    /// Has the kernel read further ahead where a reader goes on in order.
    func expectLongRuns() {
        _ = posix_fadvise(descriptor, 0, 0, POSIX_FADV_SEQUENTIAL)
    }

    /// On return the file's contents survive the loss of power.
    func sync() throws(StorageError) {
        while fdatasync(descriptor) != 0 {
            // Whatever the reason, what was written may be gone: never reported as a full disk.
            guard errno == EINTR else { throw .io(errno, "cannot sync \(name)") }
        }
    }

    /// For directories: names as well.
    func syncAll() throws(StorageError) {
        guard fsync(descriptor) == 0 else { throw .io(errno, "cannot sync \(name)") }
    }

    /// Gives a range back to the disk; it then reads as zeros. False if the file system cannot.
    func punch(_ offset: Int, _ byteCount: Int) -> Bool {
        fallocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off_t(offset), off_t(byteCount))
            == 0
    }

    func remove(_ name: String) { unlinkat(descriptor, name, 0) }
}

extension StorageError {
    /// What an errno means to a store.
    init(_ number: Int32, _ what: String) {
        switch number {
        case ENOSPC, EDQUOT: self = .full
        case EROFS: self = .readOnly
        default: self = .io(number, what)
        }
    }
}
