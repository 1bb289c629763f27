import Glibc
import Testing

@Suite("The examples run", .enabled(if: !Mounted.isPlain))
struct ExampleTests {
    /// The repository, as the compiler saw this file in it.
    static let examples: String = {
        var path = #filePath
        for _ in 0..<3 { path = String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)]) }
        return path + "/mount-examples"
    }()

    @Test(arguments: ["demo", "fstab", "systemd", "nginx", "postgresql", "rotation", "backup"])
    func anExampleEndsWell(name: String) throws {
        let work = try Workspace()
        let outcome = try work.run(
            ["\(Self.examples)/\(name)/run.sh"], environment: ["LETTERLOCK": try Workspace.program()], seconds: 120)
        #expect(outcome.status == 0, "\(outcome.text)\n\(outcome.complaint)")
    }

    @Test func noExampleIsForgotten() throws {
        let all = try names(Self.examples).filter { exists("\(Self.examples)/\($0)/run.sh") }
        #expect(all == ["backup", "demo", "fstab", "nginx", "postgresql", "rotation", "systemd"])
    }

    @Test func itIsInstalledWhereOneSays() throws {
        let work = try Workspace()
        let root = Self.examples + "/.."
        try work.shell(
            """
            mkdir -p '\(work("tree"))/.build/release' && cd '\(work("tree"))'
            cp -r '\(root)'/{Makefile,README.md,LICENCE,mount-examples} .
            cp '\(try Workspace.program())' .build/release/letterlock
            make --silent install DESTDIR='\(work("dest"))' PREFIX=/opt/letterlock HELPERDIR=/sbin
            cd '\(work("dest"))'
            [[ $(opt/letterlock/bin/letterlock --version) == 'letterlock '* ]]
            [[ $(readlink sbin/mount.fuse.letterlock) == /opt/letterlock/bin/letterlock ]]
            grep -q '^ExecStart=/opt/letterlock/bin/letterlock mount' opt/letterlock/lib/systemd/system/letterlock@.service
            bash -n opt/letterlock/share/bash-completion/completions/letterlock
            grep -q '^#compdef letterlock' opt/letterlock/share/zsh/site-functions/_letterlock
            grep -q 'letterlock' opt/letterlock/share/fish/vendor_completions.d/letterlock.fish
            make --silent --directory '\(work("tree"))' uninstall DESTDIR='\(work("dest"))' PREFIX=/opt/letterlock \
                HELPERDIR=/sbin
            [[ -z $(find . -type f -o -type l) ]]
            """)
    }
}
