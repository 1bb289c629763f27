import Glibc
import Keyring
import Sodium
import Synchronization
import Testing

@testable import KeyServices

/// What is asked of a vault, and what is made of answers that no vault gives.
@Suite struct VaultTests {
    private let context = SlotContext(store: .random(), keyring: "k", purpose: .slotKey)

    private func settings(_ variables: [String: String] = [:]) throws -> VaultSettings {
        let path = "/tmp/letterlock-token-\(getpid())"
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        try #require(descriptor >= 0 && write(descriptor, "s.token\n", 8) == 8)
        close(descriptor)
        var settings = VaultSettings { variables.merging(["VAULT_TOKEN_FILE": path]) { $1 }[$0] }
        settings.patienceSeconds = 1
        return settings
    }

    private func service(_ server: FakeServer, _ variables: [String: String] = [:]) throws -> VaultService {
        try VaultService("http://127.0.0.1:\(server.port)/transit/prod", settings: try settings(variables))
    }

    private func answer(_ body: String, _ status: String = "200 OK", _ more: String = "") -> String {
        "HTTP/1.1 \(status)\r\nContent-Length: \(body.utf8.count)\r\n\(more)Connection: close\r\n\r\n\(body)"
    }

    private static let sealed = #"{"data":{"ciphertext":"vault:v1:AAAA"}}"#

    @Test(
        arguments: [
            ("https://h:8200/transit/prod", nil, "https://h:8200", "transit/prod"),
            ("https://h/a/b/c", "http://other", "https://h", "a/b/c"),
            ("http://127.0.0.1:1/t/k", nil, "http://127.0.0.1:1", "t/k"),
            ("t/k-1_2.3", "https://h:1/", "https://h:1", "t/k-1_2.3"),
            ("t/k", "unix:///run/bao.sock", "unix:///run/bao.sock", "t/k"),
        ] as [(String, String?, String, String)])
    func `an address is read`(text: String, variable: String?, base: String, name: String) throws {
        let address = try VaultAddress(text, address: variable)
        #expect(address.base == base && address.name == name)
    }

    @Test(arguments: [
        "", "https://", "https://h", "https://h/", "https://h/t", "https://h//k", "https://h/t/", "https://h/t/../k",
        "https://h/t/k?x=1", "https://h/t/k#x", "https://h/t k/k", "https://user:word@h/t/k", "https://h/t/k%2F",
        "ftp://h/t/k",
        "https://h/t/k\nX: y", "t/k",
    ])
    func `what is no address is refused`(text: String) {
        #expect(throws: KeyringError.self) { try VaultAddress(text, address: nil) }
    }

    @Test func `without TLS nobody but this machine is spoken to`() throws {
        for base in ["http://127.0.0.1:9", "http://localhost:9", "http://[::1]:9"] {
            #expect(HTTPPlace(url: base).isLocal, "\(base)")
        }
        for base in ["http://127.0.0.1.example", "http://example", "http://localhost.example:9", "https://127.0.0.1"] {
            #expect(!HTTPPlace(url: base).isLocal, "\(base)")
        }
        let service = try VaultService("http://127.0.0.1.example/t/k", settings: try settings())
        #expect { try service.seal(try SecretKey.random(), for: context) } throws: { error in
            guard case KeyringError.service(let fault) = error else { return false }
            return fault.reason == .misconfigured && fault.message.contains("TLS")
        }
    }

    @Test func `a request has a token, a namespace and no more than it should`() throws {
        let server = try FakeServer(answer(Self.sealed))
        defer { server.stop() }
        _ = try service(server, ["VAULT_NAMESPACE": "team/a"]).seal(try SecretKey.random(), for: context)
        let request = server.request.withLock { $0 }
        #expect(request.hasPrefix("POST /v1/transit/encrypt/prod HTTP/1.1\r\n"))
        #expect(request.contains("X-Vault-Token: s.token\r\n") && request.contains("X-Vault-Namespace: team/a\r\n"))
        #expect(request.contains("\r\n\r\n{\"plaintext\":\""))
        #expect(throws: KeyringError.self) {
            try service(server, ["VAULT_NAMESPACE": "a\r\nX-Other: b"]).seal(try SecretKey.random(), for: context)
        }
    }

    @Test(arguments: [
        "", "{", "[]", "null", "{}", #"{"data":null}"#, #"{"data":{}}"#, #"{"data":{"ciphertext":1}}"#,
        #"{"data":{"ciphertext":"AAAA"}}"#, #"{"data":{"ciphertext":"vault:v1:\"}"}}"#,
        #"{"data":{"ciphertext":"vault:v1:A\u0041"}}"#, #"{"data":{"ciphertext":"vault:v1:A B"}}"#,
        #"{"data":["ciphertext","vault:v1:AAAA"]}"#, #"{"data":{"ciphertext":"vault:v1:AAAA"#,
        String(repeating: "[", count: 1000),
        #"{"data":{"ciphertext":"vault:v1:"# + String(repeating: "A", count: 4000) + #""}}"#,
        String(repeating: " ", count: 70_000) + VaultTests.sealed,
    ])
    func `an answer that is none is malformed`(body: String) throws {
        let server = try FakeServer(answer(body))
        defer { server.stop() }
        try expect(.malformedAnswer, of: server)
    }

    @Test(arguments: [
        #"{"data":{"plaintext":"AAAA"}}"#, #"{"data":{"plaintext":""}}"#, #"{"data":{"plaintext":"!!!"}}"#, "{}",
        #"{"data":{"plaintext":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}}"#,
    ])
    func `a key that is none is malformed, and another key does not open`(body: String) throws {
        let sealing = try FakeServer(answer(Self.sealed))
        defer { sealing.stop() }
        let slot = try service(sealing).seal(try SecretKey.random(), for: context)
        let server = try FakeServer(answer(body))
        defer { server.stop() }
        #expect(throws: KeyringError.self) { try service(server).unseal(slot, for: context) }
        let zeros = String(repeating: "A", count: 43) + "="
        let other = try FakeServer(answer(#"{"data":{"plaintext":"\#(zeros)"}}"#))
        defer { other.stop() }
        #expect(throws: KeyringError.wrongSecret) { try service(other).unseal(slot, for: context) }
    }

    @Test(
        arguments: [
            ("403 Forbidden", .denied), ("401 Unauthorized", .denied), ("404 Not Found", .keyMissing),
            ("503 Service Unavailable", .unreachable), ("501 Not Implemented", .unreachable),
            ("500 Error", .unreachable),
            ("429 Too Many", .unreachable), ("307 Temporary Redirect", .unreachable),
            ("400 Bad Request", .misconfigured),
            ("418 Teapot", .unreachable),
        ] as [(String, KeyServiceFault.Reason)])
    func `a status is told for what it means`(status: String, reason: KeyServiceFault.Reason) throws {
        let server = try FakeServer(answer(#"{"errors":["s.token"]}"#, status, "Location: http://127.0.0.1:1/\r\n"))
        defer { server.stop() }
        try expect(reason, of: server)
    }

    @Test func `a service that says nothing is waited for and no longer`() throws {
        let server = try FakeServer(nil)
        defer { server.stop() }
        try expect(.timedOut, of: server)
    }

    @Test(arguments: ["", "nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"])
    func `a connection that breaks is no answer`(answer: String) throws {
        let server = try FakeServer(answer)
        defer { server.stop() }
        #expect(throws: KeyringError.self) { try service(server).seal(try SecretKey.random(), for: context) }
    }

    private func expect(
        _ reason: KeyServiceFault.Reason, of server: FakeServer, at place: SourceLocation = #_sourceLocation
    ) throws {
        try expectFault(reason, of: try service(server), for: context, hiding: "s.token", at: place)
    }
}

@Suite struct JSONTextTests {
    private func string(_ text: String, _ path: String) -> String? {
        Array(text.utf8).withUnsafeBytes { bytes in
            let json = JSONText(bytes)
            let parts = path.split(separator: ".").map(String.init)
            let found = parts.count == 1 ? json.string(parts[0]) : json.string(parts[0], parts[1])
            return found.map { String(decoding: $0, as: UTF8.self) }
        }
    }

    @Test func `finds what stands there`() {
        let text =
            #" { "x" : [ 1 , {"b":"no"} , "]" , [] ] , "e":{}, "a\"":1, "a" : { "n": -1.5e3, "b" : "yes" } , "c":true}"#
        #expect(string(text, "a.b") == "yes")
        #expect(string(text, "x.b") == nil && string(text, "a.n") == nil && string(text, "c") == nil)
        #expect(string(#"{"a":"1","a":"2"}"#, "a") == "1" && string(#"{"a":"x\n"}"#, "a") == nil)
    }

    @Test func `the strings of an array`() {
        let text = #"{"errors":["one", "two\"", "three"], "x":1}"#
        let found = Array(text.utf8).withUnsafeBytes { bytes in
            JSONText(bytes).strings("errors").map { String(decoding: $0, as: UTF8.self) }
        }
        #expect(found == ["one", #"two\""#, "three"])
    }

    @Test func `whatever is cut or changed neither traps nor runs on`() {
        let text = Array(#"{"x":[1,{"b":"no"},"]",[]],"a":{"n":-1.5e3,"b":"yes\\"}}"#.utf8)
        var state: UInt64 = 7
        func random() -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33)
        }
        for round in 0..<20_000 {
            var bytes = Array(text.prefix(round % (text.count + 1)))
            for _ in 0..<random() % 4 where !bytes.isEmpty { bytes[random() % bytes.count] = UInt8(random() & 255) }
            bytes.withUnsafeBytes { bytes in
                _ = JSONText(bytes).string("a", "b")
                _ = JSONText(bytes).strings("x")
            }
        }
        let deep = Array((String(repeating: #"{"a":["#, count: 5000)).utf8)
        deep.withUnsafeBytes { _ = JSONText($0).string("b") }
    }
}
