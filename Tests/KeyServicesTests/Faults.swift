import Keyring
import Sodium
import Testing

@testable import KeyServices

/// What a service does not do has to be told for what it is, and without what is secret.
func expectFault(
    _ reason: KeyServiceFault.Reason, of service: any KeyService, for context: SlotContext, hiding secret: String,
    at place: SourceLocation = #_sourceLocation
) throws {
    let key = try SecretKey.random()
    do throws(KeyringError) {
        _ = try service.seal(key, for: context)
        Issue.record("it is taken", sourceLocation: place)
    } catch {
        guard case .service(let fault) = error else {
            Issue.record("\(error)", sourceLocation: place)
            return
        }
        #expect(fault.reason == reason, "\(fault)", sourceLocation: place)
        #expect(!fault.message.contains(secret) && fault.hint?.contains(secret) != true, sourceLocation: place)
    }
}

extension AWSSettings {
    /// As if the environment were these variables.
    init(variables: [String: String]) {
        self.init(
            { variables[$0] },
            { name throws(KeyringError) in
                let bytes = Array((variables[name] ?? "").utf8)
                return try bytes.withUnsafeBytes { bytes in
                    Result { () throws(KeyringError) in try SecretToken(bytes) }
                }.get()
            })
    }
}
