import Keyring
import Testing

@testable import KeyServices

/// URIs of keys in tokens (RFC 7512). Against a token: see MountTests.
@Suite struct PKCS11Tests {
    @Test func `a URI is read, in whatever order and spelling`() throws {
        let uri = try PKCS11URI(
            "token=My%20token;object=k;id=%01%ff;type=secret-key;slot-id=3?module-path=/m.so&pin-source=file:/p")
        #expect(uri.token == "My token" && uri.object == "k" && uri.id == [1, 255] && uri.slot == 3)
        #expect(uri.module == "/m.so" && uri.pinFile == "/p")
        #expect(uri.name == "id=%01%ff;object=k;slot-id=3;token=My%20token;type=secret-key")
        #expect(try PKCS11URI("object=a;token=b").name == PKCS11URI("token=%62;object=%61?pin-source=/p").name)
    }

    @Test(arguments: [
        "", "token=a", "object", "object=a;object=b", "object=%zz", "object=%4", "object=a%00", "object=%ff",
        "object=a;x=y",
        "object=a;type=private", "object=a;slot-id=-1", "object=a?x=y", "object=a?pin-source=pin",
        "object=a?module-path=m.so",
        "object=a?pin-source=|/bin/sh", "object=a?pin-value=1234",
    ])
    func `what is none is refused, and a PIN is not repeated`(text: String) {
        do {
            _ = try PKCS11URI(text)
            Issue.record("it is taken")
        } catch {
            #expect(!"\(error)".contains("1234"))
        }
    }
}
