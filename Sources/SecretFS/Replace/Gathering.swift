import Fuse
import Glibc
import Keyring
import SecretTree

/// What a writer does to the value that it gathers. False or nil: the session has ended, the file itself is meant.
extension ReplaceSession {
    func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64, appends: Bool, _ by: Writing) throws(Errno) -> Bool {
        try gather(by, at: offset) { shadow throws(TreeError) in
            try tree.write(shadow, at: offset, from: bytes, appends: appends, clearsSetID: false, now: by.now).size
        } != nil
    }

    func truncate(to size: UInt64, _ by: Writing) throws(Errno) -> Bool {
        // What is empty already stays untouched: programs do so for good measure before they write.
        if size == 0, byteCount == 0 { return true }
        var change = AttributeChange()
        change.size = size
        let truncation = change
        return try gather(by, at: size) { shadow throws(TreeError) in
            try tree.setAttributes(of: shadow, truncation, now: by.now).size
        } != nil
    }

    func allocate(_ mode: AllocationMode, at offset: UInt64, count: UInt64, _ by: Writing) throws(Errno) -> Bool {
        try gather(by) { shadow throws(TreeError) in
            try tree.allocate(shadow, mode, at: offset, count: count, now: by.now).size
        } != nil
    }

    func seek(from offset: UInt64, forData: Bool) throws(Errno) -> UInt64? {
        try look { shadow throws(TreeError) in
            guard let shadow else { throw .noData }
            return try tree.seek(shadow, from: offset, forData: forData)
        }
    }
}
