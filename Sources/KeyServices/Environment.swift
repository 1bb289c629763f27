internal import Glibc

/// What the environment says, where it is not secret: nil for what is empty.
enum Environment {
    static func variable(_ name: String) -> String? {
        guard let value = getenv(name), value.pointee != 0 else { return nil }
        return String(cString: value)
    }
}
