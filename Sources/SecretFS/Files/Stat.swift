import Fuse
import Glibc
import Keyring
import SecretTree

extension NodeType {
    /// The file type bits of `st_mode`.
    var modeBits: UInt32 {
        switch self {
        case .file: S_IFREG
        case .directory: S_IFDIR
        case .symbolicLink: S_IFLNK
        case .fifo: S_IFIFO
        case .socket: S_IFSOCK
        case .characterDevice: S_IFCHR
        case .blockDevice: S_IFBLK
        }
    }

    /// What mknod(2) is asked for; nil for what it does not make.
    init?(mknodMode mode: UInt32) {
        switch mode & S_IFMT {
        case 0, S_IFREG: self = .file
        case S_IFIFO: self = .fifo
        case S_IFSOCK: self = .socket
        case S_IFCHR: self = .characterDevice
        case S_IFBLK: self = .blockDevice
        default: return nil
        }
    }
}

extension Timestamp {
    var timespec: timespec { Glibc.timespec(tv_sec: Int(seconds), tv_nsec: Int(nanoseconds)) }

    init(_ time: timespec) {
        self.init(seconds: Int64(time.tv_sec), nanoseconds: UInt32(clamping: time.tv_nsec))
    }

    init(_ time: AttributeRequest.Time, now: Timestamp) {
        switch time {
        case .now: self = now
        case .at(let time): self.init(time)
        }
    }
}

extension stat {
    /// A node's attributes as stat(2) shows them under a mount's options.
    init(_ attributes: NodeAttributes, _ options: SecretFSOptions) {
        self.init()
        st_ino = UInt(attributes.id.rawValue)
        st_mode = attributes.type.modeBits | UInt32(attributes.permissions)
        st_nlink = UInt(attributes.linkCount)
        st_uid = options.uid ?? attributes.uid
        st_gid = options.gid ?? attributes.gid
        st_rdev = UInt(attributes.device)
        // Directories show one block, as an empty one has on other file systems: what ours take is sealed.
        let isDirectory = attributes.type == .directory
        st_size = isDirectory ? 4096 : Int(clamping: attributes.size)
        st_blksize = 4096
        let stored = isDirectory ? 4096 : attributes.storedByteCount
        st_blocks = Int(clamping: stored.addingReportingOverflow(511).partialValue / 512)
        st_atim = attributes.accessTime.timespec
        st_mtim = attributes.modificationTime.timespec
        st_ctim = attributes.statusChangeTime.timespec
    }
}
