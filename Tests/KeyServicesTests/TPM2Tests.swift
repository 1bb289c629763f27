import Keyring
import Testing

@testable import KeyServices

/// What stands behind `tpm2:`. Against a TPM: see MountTests.
@Suite struct TPM2Tests {
    private func spec(_ text: String, _ variables: [String: String] = [:], files: [String] = []) throws -> TPM2Spec {
        try TPM2Spec(text, { variables[$0] }, exists: { files.contains($0) })
    }

    @Test func `its parts are read, and a policy has one spelling`() throws {
        let whole = try spec("bank=sha384;pcrs=7+0?tcti=device:/dev/tpm1&pin-source=file:/p")
        #expect(whole.pcrs == 0x81 && whole.bank == 384 && whole.pinFile == "/p" && whole.tcti == "device:/dev/tpm1")
        #expect(whole.policy == "pcrs=0+7;bank=sha384;pin")
        #expect(try spec("").policy == "" && spec("pcrs=23").policy == "pcrs=23;bank=sha256")
    }

    @Test func `a PIN may be a credential, and the TPM be named by the environment`() throws {
        let variables = ["CREDENTIALS_DIRECTORY": "/c", "TPM2TOOLS_TCTI": "swtpm:port=1"]
        #expect(try spec("", variables).pinFile == nil)
        let found = try spec("", variables, files: ["/c/tpm2-pin"])
        #expect(found.pinFile == "/c/tpm2-pin" && found.policy == "pin" && found.tcti == "swtpm:port=1")
        #expect(try spec("?pin-source=/p", variables, files: ["/c/tpm2-pin"]).pinFile == "/p")
    }

    @Test(arguments: [
        "pcrs", "pcrs=", "pcrs=24", "pcrs=-1", "pcrs=7+7", "pcrs=7+", "pcrs=a", "bank=sha256", "pcrs=1;bank=md5",
        "pcrs=1;pcrs=2", "x=y", "?x=y", "?pin-source=pin", "?pin-source=", "pin-value=1234", "?tcti=a&tcti=b",
    ])
    func `what names none is refused, and a PIN is not repeated`(text: String) {
        do {
            _ = try spec(text)
            Issue.record("it is taken")
        } catch { #expect(!"\(error)".contains("1234")) }
    }
}
