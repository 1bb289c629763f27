import Fuse
import Glibc
import Keyring

/// The errno of the control directory and of files whose key is not to be used (INTERFACE, section 3).
extension Errno {
    init(_ error: KeyringError) {
        switch error {
        case .revoked: self.init(EKEYREVOKED)
        case .destroyed: self.init(ENOKEY)
        case .expired: self.init(EKEYEXPIRED)
        case .lifecycle(let error): self.init(error)
        case .noSuchVersion: self = .notFound
        case .doesNotAuthenticate, .damaged: self.init(EBADMSG)
        case .wrongSecret: self.init(EKEYREJECTED)
        case .serviceUnavailable: self.init(EHOSTUNREACH)
        case .service(let fault): self.init(fault.reason.errno)
        case .cannotLock: self.init(ENOMEM)
        default: self.init(EIO)
        }
    }

    init(_ error: LifecycleError) {
        switch error {
        case .noSuchVersion: self = .notFound
        case .isPrimary, .filesRemain: self.init(EBUSY)
        case .notPermitted: self = .notPermitted
        case .outOfRange: self = .outOfRange
        case .staleLatest: self.init(ESTALE)
        case .destroyed: self.init(ENOKEY)
        }
    }
}
