import Fuse
import Glibc
import Keyring
import SecretTree

/// What this room answers itself; what the rooms below throw is translated here and nowhere else.
extension Errno {
    static let invalid = Errno(EINVAL)
    static let notFound = Errno(ENOENT)
    static let notPermitted = Errno(EPERM)
    static let accessDenied = Errno(EACCES)
    static let exists = Errno(EEXIST)
    static let outOfRange = Errno(ERANGE)
    static let tooBig = Errno(E2BIG)
    static let notSupported = Errno(EOPNOTSUPP)
    static let noAttribute = Errno(ENODATA)
    static let readOnly = Errno(EROFS)
    static let isDirectory = Errno(EISDIR)
    static let notADirectory = Errno(ENOTDIR)

    init(_ error: TreeError) {
        switch error {
        case .notFound: self = .notFound
        case .exists: self = .exists
        case .notADirectory: self = .notADirectory
        case .isADirectory: self = .isDirectory
        case .notEmpty: self.init(ENOTEMPTY)
        case .nameTooLong: self.init(ENAMETOOLONG)
        case .tooManyLinks: self.init(EMLINK)
        case .invalid: self = .invalid
        case .fileTooLarge: self.init(EFBIG)
        case .noAttribute: self = .noAttribute
        case .attributeTooLarge: self = .outOfRange
        case .notSupported: self = .notSupported
        case .notPermitted: self = .notPermitted
        case .busy: self.init(EALREADY)
        case .readOnly: self = .readOnly
        case .full: self.init(ENOSPC)
        case .tampered: self.init(EBADMSG)
        case .key(let error): self.init(error)
        case .noData: self.init(ENXIO)
        case .storage: self.init(EIO)
        }
    }
}

/// Runs what the tree does, with its errors as the kernel knows them.
func answering<R: ~Copyable>(_ body: () throws(TreeError) -> R) throws(Errno) -> R {
    do throws(TreeError) { return try body() } catch { throw Errno(error) }
}
