import Fuse
import Glibc
import Keyring
import SecretTree

/// What a control file gives that is made while it is read: each open of it is one stream, from its beginning to its end.
final class ControlStream: @unchecked Sendable {
    // Unchecked: used under the lock of the open file that has it.
    private let stream: BackupStream
    private let notes: SecretFSOptions.BackupNotes?
    /// As of when it is; nil once that is remembered.
    private var began: Timestamp? = .now()
    private var position = 0

    /// The keyring's backup as of now.
    init(backupOf fileSystem: SecretFS) throws(Errno) {
        notes = fileSystem.options.backups
        // What is being gathered is no value yet; what close(2) has returned for is in the tree.
        stream = try answering { () throws(TreeError) in try BackupStream(fileSystem.tree) }
    }

    /// - Throws: ESPIPE if that is not where it stands.
    func read(at offset: Int, into buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        guard offset == position else { throw Errno(ESPIPE) }
        var count = 0
        while count < buffer.count {
            let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[count...])
            let got = try answering { () throws(TreeError) in try stream.read(into: rest) }
            if got == 0 {
                // Whoever has read it to its end has it.
                if let began { notes?.note(began) }
                began = nil
                break
            }
            count += got
        }
        position += count
        return count
    }
}
