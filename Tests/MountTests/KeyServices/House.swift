import Keyring
import Sodium

@testable import KeyServices

/// One kind of key service as the suite that they all share needs it: a real one, with what can happen to it.
protocol ServiceHouse {
    /// False for who plays a service without its cryptography.
    var sealsForReal: Bool { get }
    /// With the key that the tests seal by.
    func service() throws -> any KeyService
    /// With another key of the same service.
    func otherService() throws -> any KeyService
    /// With a token, PIN or secret key that is wrong; nil where there is none.
    func strangersService() throws -> (any KeyService)?
    /// Where nobody is, and where somebody is who says nothing; nil for what is in this very process.
    func absentService() throws -> (any KeyService)?
    func silentService(_ port: SilentPort) throws -> (any KeyService)?
    /// Whether there is such a thing at all.
    func disableKey() throws -> Bool
    func enableKey() throws
    /// Likewise.
    func rotateKey() throws -> Bool
}

extension ServiceHouse {
    var sealsForReal: Bool { true }
    func strangersService() throws -> (any KeyService)? { nil }
    func absentService() throws -> (any KeyService)? { nil }
    func silentService(_ port: SilentPort) throws -> (any KeyService)? { nil }
    func disableKey() throws -> Bool { false }
    func enableKey() throws {}
    func rotateKey() throws -> Bool { false }
}

/// All that there are.
enum House: String, CaseIterable {
    case passphrase, keyfile, age, softHSM, softTPM, openBao, moto, miniStack

    func open(_ work: Workspace) throws -> any ServiceHouse {
        switch self {
        case .passphrase: PassphraseHouse()
        case .keyfile: KeyfileHouse(work: work)
        case .age: AgeHouse(work: work)
        case .softHSM: HSMHouse(hsm: try SoftHSM(work))
        case .softTPM: TPMHouse(tpm: try SoftTPM(work))
        case .openBao: BaoHouse(bao: try Bao(work))
        case .moto: try CloudHouse(work, .moto)
        case .miniStack: try CloudHouse(work, .ministack)
        }
    }

    var isInstalled: Bool {
        switch self {
        case .passphrase, .keyfile, .age, .softHSM, .softTPM: true
        case .openBao: Bao.isInstalled
        case .moto, .miniStack: Cloud.isInstalled
        }
    }
}

struct PassphraseHouse: ServiceHouse {
    private func service(_ text: String) throws -> any KeyService {
        var bytes = try SecretBytes(byteCount: text.utf8.count)
        bytes.withUnsafeMutableBytes { $0.copyBytes(from: text.utf8) }
        let parameters = try PasswordHash.Parameters(opsLimit: 1, memoryByteCount: 8 << 20)
        return PassphraseService(passphrase: bytes, parameters: parameters)
    }
    func service() throws -> any KeyService { try service("open sesame") }
    func otherService() throws -> any KeyService { try service("open barley") }
}

struct KeyfileHouse: ServiceHouse {
    let work: Workspace
    func service() throws -> any KeyService { FileKeyService(path: work("key")) }
    func otherService() throws -> any KeyService {
        try put(pattern(32, seed: 3), work("key2"), mode: 0o600)
        return FileKeyService(path: work("key2"))
    }
}

/// Identities that the program age has made.
struct AgeHouse: ServiceHouse {
    let work: Workspace

    private func service(_ name: String) throws -> any KeyService {
        if !exists(work(name)) { try work.done(["age-keygen", "-o", work(name)]) }
        return try AgeService(work(name)) { _ in nil }
    }
    func service() throws -> any KeyService { try service("identity") }
    func otherService() throws -> any KeyService { try service("other-identity") }
}

struct HSMHouse: ServiceHouse {
    let hsm: SoftHSM

    private func service(_ uri: String) throws -> any KeyService { try PKCS11Service(uri, { _ in nil }, patience: 2) }
    func service() throws -> any KeyService { try service(hsm.uri()) }
    func otherService() throws -> any KeyService {
        try hsm.makeKey("other", "02")
        return try service(hsm.uri("other"))
    }
    func strangersService() throws -> (any KeyService)? {
        try put("0000\n", hsm.workspace("wrong-pin"), mode: 0o600)
        return try service(hsm.uri(pin: "wrong-pin"))
    }
    func absentService() throws -> (any KeyService)? { try service(hsm.uri().replacing("token=t", with: "token=u")) }
    func silentService(_ port: SilentPort) throws -> (any KeyService)? {
        try service(hsm.uri().replacing(SoftHSM.module, with: try HangingModule.make(hsm.workspace, port)))
    }
    func disableKey() throws -> Bool {
        try hsm.allowOpening(false)
        return true
    }
    func enableKey() throws { try hsm.allowOpening(true) }
}

/// With a PIN, and a PCR that has to be as it was.
struct TPMHouse: ServiceHouse {
    let tpm: SoftTPM

    private func service(_ tcti: String, pin: String = "2468") throws -> any KeyService {
        try put(pin + "\n", tpm.workspace("pin-" + pin), mode: 0o600)
        return try TPM2Service(
            "pcrs=16?pin-source=file:\(tpm.workspace("pin-" + pin))&tcti=\(tcti)", { _ in nil }, patience: 2)
    }
    func service() throws -> any KeyService { try service(tpm.tcti) }
    /// The same policy without its PIN: what no other policy opens.
    func otherService() throws -> any KeyService { try TPM2Service("pcrs=16?tcti=\(tpm.tcti)") { _ in nil } }
    func strangersService() throws -> (any KeyService)? { try service(tpm.tcti, pin: "1357") }
    func absentService() throws -> (any KeyService)? {
        try service("swtpm:host=127.0.0.1,port=\(try SilentPort.free())")
    }
    func silentService(_ port: SilentPort) throws -> (any KeyService)? {
        try service("swtpm:host=127.0.0.1,port=\(port.number)")
    }
    func disableKey() throws -> Bool {
        try tpm.enableOwnerHierarchy(false)
        return true
    }
    func enableKey() throws { try tpm.enableOwnerHierarchy(true) }
}

struct BaoHouse: ServiceHouse {
    let bao: Bao

    private func service(_ place: String, _ more: [String: String] = [:]) throws -> any KeyService {
        let variables = bao.environment.merging(more) { $1 }
        var settings = VaultSettings { variables[$0] }
        settings.patienceSeconds = 2
        return try VaultService(place, settings: settings)
    }

    func service() throws -> any KeyService { try service(bao.address + "/transit/prod") }
    func otherService() throws -> any KeyService {
        try bao.make("transit/keys/other", #"{"derived":true}"#)
        return try service(bao.address + "/transit/other")
    }
    func strangersService() throws -> (any KeyService)? {
        try put("another\n", bao.workspace("stranger"), mode: 0o600)
        return try service(bao.address + "/transit/prod", ["VAULT_TOKEN_FILE": bao.workspace("stranger")])
    }
    func absentService() throws -> (any KeyService)? {
        try service("https://127.0.0.1:\(try SilentPort.free())/transit/prod")
    }
    func silentService(_ port: SilentPort) throws -> (any KeyService)? {
        try service("https://127.0.0.1:\(port.number)/transit/prod")
    }
    func disableKey() throws -> Bool {
        try bao.make("transit/keys/prod/rotate", "")
        try bao.make("transit/keys/prod/config", #"{"min_decryption_version":2}"#)
        return true
    }
    func enableKey() throws { try bao.make("transit/keys/prod/config", #"{"min_decryption_version":1}"#) }
    func rotateKey() throws -> Bool {
        try bao.make("transit/keys/prod/rotate", "")
        return true
    }
}

struct CloudHouse: ServiceHouse {
    let cloud: Cloud
    private let player: Cloud.Player

    var sealsForReal: Bool { player == .moto }

    init(_ work: Workspace, _ player: Cloud.Player) throws {
        cloud = try Cloud(work, player)
        self.player = player
    }

    private func service(_ key: String, _ more: [String: String] = [:]) throws -> any KeyService {
        let variables = cloud.environment.merging(more) { $1 }
        var settings = AWSSettings(
            { variables[$0] },
            { name throws(KeyringError) in
                let bytes = Array((variables[name] ?? "").utf8)
                return try bytes.withUnsafeBytes { bytes in Result { () throws(KeyringError) in try SecretToken(bytes) }
                }
                .get()
            })
        settings.patienceSeconds = 2
        return try KMSService(key, settings: settings)
    }

    func service() throws -> any KeyService { try service(cloud.key) }
    func otherService() throws -> any KeyService { try service(try cloud.makeKey(alias: "alias/other")) }
    func strangersService() throws -> (any KeyService)? {
        player == .moto ? try service(cloud.key, ["AWS_SECRET_ACCESS_KEY": "wrong"]) : nil
    }
    func absentService() throws -> (any KeyService)? {
        try service(cloud.key, ["AWS_ENDPOINT_URL_KMS": "http://127.0.0.1:\(try SilentPort.free())"])
    }
    func silentService(_ port: SilentPort) throws -> (any KeyService)? {
        try service(cloud.key, ["AWS_ENDPOINT_URL_KMS": "http://127.0.0.1:\(port.number)"])
    }
    func disableKey() throws -> Bool {
        guard player == .ministack else { return false }
        try cloud.ask("DisableKey", #"{"KeyId":"\#(cloud.key)"}"#)
        return true
    }
    func enableKey() throws { try cloud.ask("EnableKey", #"{"KeyId":"\#(cloud.key)"}"#) }
    func rotateKey() throws -> Bool {
        try cloud.ask("EnableKeyRotation", #"{"KeyId":"\#(cloud.key)"}"#)
        return true
    }
}
