internal import Keyring

/// What stands behind `vault:`: `https://HOST:PORT/MOUNT/KEY`, or `MOUNT/KEY` where VAULT_ADDR says the rest.
struct VaultAddress: Sendable, Equatable {
    /// `https://HOST:PORT`, `http://127.0.0.1:PORT` or `unix:///PATH`.
    var base: String
    /// Where the transit engine is; may have slashes.
    var mount: String
    var key: String

    /// The name of the service's key wherever the service may be reached: what a slot is known by.
    var name: String { mount + "/" + key }

    init(_ text: String, address: String?) throws(KeyringError) {
        var rest = text
        let base: String
        if let scheme = ["https://", "http://"].first(where: { text.hasPrefix($0) }) {
            let authority = text.dropFirst(scheme.count).prefix { $0 != "/" }
            guard !authority.isEmpty, !authority.contains("@") else { throw Self.malformed(text) }
            base = scheme + authority
            rest = String(text.dropFirst(base.count + 1))
        } else if let address, !address.isEmpty {
            base = address.hasSuffix("/") ? String(address.dropLast()) : address
        } else {
            throw .service(
                KeyServiceFault(
                    .misconfigured, "'vault:\(text)' does not say where the service is",
                    hint: "write vault:https://HOST:PORT/MOUNT/KEY, or set VAULT_ADDR"))
        }
        guard ["https://", "http://", "unix://"].contains(where: { base.hasPrefix($0) }) else {
            throw Self.malformed(base)
        }
        let parts = rest.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard parts.count >= 2, parts.allSatisfy(Self.isPlain), rest.utf8.count <= 512 else {
            throw Self.malformed(text)
        }
        self.base = base
        mount = parts.dropLast().joined(separator: "/")
        key = parts[parts.count - 1]
    }

    private static func isPlain(_ part: String) -> Bool {
        !part.isEmpty && part != "." && part != ".."
            && part.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."):
                    true
                default: false
                }
            }
    }

    private static func malformed(_ text: String) -> KeyringError {
        .service(
            KeyServiceFault(
                .malformedAddress, "'\(text)' is no address of a key of vault's",
                hint: "write vault:https://HOST:PORT/MOUNT/KEY"))
    }
}
