import Access
import Glibc
import Testing

/// The document that says what is done after a value has changed.
struct HookTests {
    private let web = """
        [[hook]]
        name = "web"
        paths = ["/web/**", "/shared/key"]
        command = ["/usr/bin/systemctl", "reload", "nginx.service"]
        """

    private func mistakes(_ text: String) -> [String] {
        do throws(PolicyMistakes) { _ = try Hooks.parse(text) } catch {
            return error.mistakes.map { "\($0.line): \($0.what)" }
        }
        return []
    }

    @Test func aCommandHasDefaults() throws {
        let hook = try #require(try Hooks.parse(web).all.first)
        #expect(hook.name == "web" && hook.user == nil)
        #expect(hook.action == .run(["/usr/bin/systemctl", "reload", "nginx.service"]))
        #expect(hook.debounce == 1000 && hook.timeout == 60_000)
        #expect(try Hooks.parse("").all.isEmpty)
    }

    @Test func aUnitGetsASignal() throws {
        let unit = "[[hook]]\nname = \"u\"\npaths = \"/**\"\nunit = \"db@1.service\"\n"
        #expect(try Hooks.parse(unit).all[0].action == .signal(unit: "db@1.service", number: SIGHUP))
        let other = try Hooks.parse(unit + "signal = \"USR1\"\ndebounce = \"500ms\"\ntimeout = 5")
        #expect(other.all[0].action == .signal(unit: "db@1.service", number: SIGUSR1))
        #expect(other.all[0].debounce == 500 && other.all[0].timeout == 5000)
    }

    @Test func itIsAboutPathsAndWhatWasMovedAboveThem() throws {
        let hook = try #require(try Hooks.parse(web).all.first)
        #expect(hook.isAbout("/web/a/b".utf8) && hook.isAbout("/shared/key".utf8))
        #expect(!hook.isAbout("/shared".utf8) && !hook.isAbout("/other".utf8) && !hook.isAbout("/webs".utf8))
        #expect(hook.isAbout("/shared".utf8, orBelow: true))
        #expect(!hook.isAbout("/other".utf8, orBelow: true))
    }

    @Test(arguments: [
        ("x = 1", "1: 'x' is not known here: hooks begin with [[hook]]"),
        ("[[hook]]\nname = \"a\"\npaths = \"/a\"", "a hook has a command"),
        ("[[hook]]\npaths = \"/a\"\ncommand = \"/bin/true\"", "1: a hook has no name"),
        ("[[hook]]\nname = \"a\"\ncommand = \"/bin/true\"", "1: a hook has no paths"),
        ("[[hook]]\nname = \"a\"\npaths = \"/a\"\ncommand = \"true\"", "4: command begins with the path"),
        ("[[hook]]\nname = \"a\"\npaths = \"a\"\ncommand = \"/bin/true\"", "3: paths: 'a' does not begin with /"),
        ("[[hook]]\nname = \"a\"\npaths = \"/a\"\ncommand = []", "4: command is a list"),
        ("[[hook]]\nname = \"a\"\npaths = \"/a\"\nunit = \"a.socket\"", "4: unit is the name of a service"),
        ("[[hook]]\nname = \"a\"\npaths = \"/a\"\nunit = \"../a.service\"", "4: unit is the name of a service"),
        ("[[hook]]\nname = \"a\"\npaths = \"/a\"\nunit = \"a.service\"\nsignal = \"KILL\"", "5: signal is one of"),
        ("[[hook]]\nname = \"a\"\npaths = \"/a\"\nunit = \"a.service\"\nuser = \"b\"", "a hook has a command"),
        ("[[hook]]\nname = \"a\"\npaths = \"/a\"\ncommand = \"/b\"\nsignal = \"HUP\"", "a hook has a command"),
        ("[[hook]]\nname = \"a\"\npaths = \"/a\"\ncommand = \"/b\"\ndebounce = \"2h\"", "5: debounce is a time"),
        ("[[hook]]\nname = \"a\"\npaths = \"/a\"\ncommand = \"/b\"\ndebounce = \"-1s\"", "5: debounce is a time"),
        (
            "[[hook]]\nname = \"a\"\npaths = \"/a\"\ncommand = \"/b\"\ntimeout = \"9223372036854775807h\"",
            "5: timeout is a time"
        ),
        ("[[hook]]\nname = \"a\"\npaths = \"/a\"\ncommand = \"/b\"\nevery = 1", "5: 'every' is not known in a hook"),
    ])
    func aMistakeIsToldByLine(_ text: String, _ said: String) {
        #expect(mistakes(text).contains { $0.contains(said) }, "\(mistakes(text))")
    }

    @Test func noTwoHooksHaveOneName() {
        #expect(mistakes(web + "\n" + web) == ["6: two hooks are called 'web'"])
        let many = (0..<65).map { "[[hook]]\nname = \"\($0)\"\npaths = \"/a\"\ncommand = \"/b\"\n" }.joined()
        #expect(mistakes(many) == ["1: there are more than 64 hooks"])
    }
}
