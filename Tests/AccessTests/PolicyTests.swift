import Glibc
import Testing

@testable import Access

/// Documents, and what they decide.
struct PolicyTests {
    static let accounts = Accounts(users: ["root": 0, "shop": 900], groups: ["ops": 50])

    private func policy(_ text: String) throws -> Policy {
        try Policy.parse(text, accounts: Self.accounts, isNew: true)
    }

    private func rule(_ more: String, name: String = "r", effect: String = "allow", paths: String = "[\"/web/**\"]")
        -> String
    {
        """
        [[rule]]
        name = "\(name)"
        effect = "\(effect)"
        paths = \(paths)
        operations = ["read"]
        \(more)

        """
    }

    private func someone(
        uid: UInt32 = 1, gid: UInt32 = 1, exe: String? = "/usr/bin/cat", cgroup: String? = "/", groups: [UInt32] = []
    ) -> Requester {
        Requester(
            uid: uid, gid: gid,
            process: ProcessIdentity(supposedPID: getpid(), exe: exe, cgroup: cgroup, groups: groups))
    }

    private func decide(
        _ policy: Policy, _ path: String, _ who: Requester, _ operation: Access.Operation = .read,
        isOpening: Bool = true
    ) -> String {
        let decision = policy.decide(operation, on: Array(path.utf8), for: who, isOpening: isOpening)
        return (decision.isAllowed ? "allow " : "deny ") + decision.rule
    }

    @Test func `a path that an allow rule names is open to those alone whom one matches`() throws {
        let policy = try policy(rule("uids = [7]"))
        #expect(decide(policy, "/web/key", someone(uid: 7)) == "allow r")
        #expect(decide(policy, "/web/key", someone(uid: 8)) == "deny r")
        #expect(decide(policy, "/web/key", someone(uid: 8), .list) == "allow default")
        #expect(decide(policy, "/other", someone(uid: 8)) == "allow default")
    }

    @Test func `an explicit deny wins wherever it stands`() throws {
        let allow = rule("", name: "all")
        let deny = rule("uids = [7]", name: "not seven", effect: "deny")
        for text in [allow + deny, deny + allow] {
            let policy = try policy(text)
            #expect(decide(policy, "/web/key", someone(uid: 7)) == "deny not seven")
            #expect(decide(policy, "/web/key", someone(uid: 8)) == "allow all")
        }
    }

    @Test func `default deny shuts what no rule names`() throws {
        let policy = try policy("default = \"deny\"\n" + rule(""))
        #expect(decide(policy, "/web", someone()) == "allow r")
        #expect(decide(policy, "/", someone()) == "deny default")
        #expect(decide(policy, "/.letterlock/policy", someone(uid: 0), .control) == "deny default")
    }

    @Test func `all matchers that are given must match`() throws {
        let policy = try policy(rule("users = [\"shop\"]\ngroups = [\"ops\"]\nexes = [\"/usr/sbin/nginx\"]"))
        let all = someone(uid: 900, exe: "/usr/sbin/nginx", groups: [50])
        #expect(decide(policy, "/web/a", all) == "allow r")
        #expect(decide(policy, "/web/a", someone(uid: 901, exe: "/usr/sbin/nginx", groups: [50])) == "deny r")
        #expect(decide(policy, "/web/a", someone(uid: 900, exe: "/usr/sbin/nginx")) == "deny r")
        #expect(decide(policy, "/web/a", someone(uid: 900, gid: 50, exe: "/usr/sbin/nginx")) == "allow r")
        #expect(decide(policy, "/web/a", someone(uid: 900, exe: "/usr/sbin/nginx2", groups: [50])) == "deny r")
    }

    @Test func `units and control groups`() throws {
        let policy = try policy(rule("units = [\"nginx@*.service\"]\ncgroups = [\"/system.slice/**\"]"))
        let inside = someone(cgroup: "/system.slice/system-nginx.slice/nginx@a.service")
        #expect(decide(policy, "/web/a", inside) == "allow r")
        #expect(decide(policy, "/web/a", someone(cgroup: "/user.slice/nginx@a.service")) == "deny r")
        #expect(decide(policy, "/web/a", someone(cgroup: nil)) == "deny r")
    }

    @Test func `what cannot be told lets nobody in, and keeps him out`() throws {
        let unsure = Requester(
            uid: 1, gid: 1,
            process: ProcessIdentity(
                pid: 3, startTime: 1, exe: "/usr/sbin/nginx", isExeVerified: false, file: nil, cgroup: "/", groups: []))
        let matcher = "exes = [\"/usr/sbin/nginx\"]"
        #expect(decide(try policy(rule(matcher)), "/web/a", unsure) == "deny r")
        #expect(decide(try policy(rule(matcher, effect: "deny")), "/web/a", unsure) == "deny r")
        let hash = "exe_sha256 = [\"\(String(repeating: "ab", count: 32))\"]"
        #expect(decide(try policy(rule(hash)), "/web/a", someone()) == "deny r")
        #expect(decide(try policy(rule(hash, effect: "deny")), "/web/a", someone()) == "deny r")
    }

    @Test func `another pid namespace needs a rule that lets it in`() throws {
        let foreign = Requester(uid: 7, gid: 7, process: .unknown)
        #expect(decide(.none, "/web/a", foreign) == "allow default")
        let policy = try policy(rule("uids = [7]") + rule("exes = [\"/bin/cat\"]", name: "x", paths: "[\"/x\"]"))
        #expect(decide(policy, "/web/a", foreign) == "allow r")
        #expect(decide(policy, "/x", foreign) == "deny x")
        #expect(decide(policy, "/elsewhere", foreign) == "deny pid namespace")
    }

    @Test func `time windows go past midnight`() throws {
        let day = try #require(TimeWindow("08:00-18:00"))
        #expect(day.contains(minute: 480) && day.contains(minute: 1079) && !day.contains(minute: 1080))
        let night = try #require(TimeWindow("22:00-06:00"))
        #expect(night.contains(minute: 1439) && night.contains(minute: 0) && !night.contains(minute: 360))
        #expect(TimeWindow("00:00-24:00")?.contains(minute: 1439) == true)
        for text in ["8:00-18:00", "08:00", "08:60-09:00", "25:00-26:00", "08:00-08:00", "08:00-+9:00", "-"] {
            #expect(TimeWindow(text) == nil, "\(text)")
        }
        let policy = try policy(rule("between = \"08:00-18:00\""))
        let path = Array("/web/a".utf8)
        #expect(policy.explain(.read, on: path, for: someone(), minuteOfDay: 700).decision.isAllowed)
        #expect(!policy.explain(.read, on: path, for: someone(), minuteOfDay: 1200).decision.isAllowed)
    }

    @Test func `openings are counted by process`() throws {
        let policy = try policy(rule("opens_per_process = 2"))
        #expect(decide(policy, "/web/a", someone()) == "allow r")
        // Looking is not opening.
        #expect(decide(policy, "/web/a", someone(), isOpening: false) == "allow r")
        #expect(decide(policy, "/web/b", someone()) == "allow r")
        #expect(decide(policy, "/web/a", someone()) == "deny r")
        let other = Requester(
            uid: 1, gid: 1, process: ProcessIdentity(supposedPID: 1, exe: nil, cgroup: nil))
        #expect(decide(policy, "/web/a", other) == "allow r")
        #expect(!policy.decide(.read, on: Array("/web/a".utf8), for: other, isOpening: true).isLasting)
    }

    @Test func `nobody moves what he may not read to where he may`() throws {
        let policy = try policy(rule("uids = [7]", paths: "[\"/web/tls/*\"]"))
        func moves(_ path: String, _ uid: UInt32, isDirectory: Bool) -> Bool {
            policy.decideMoving(Array(path.utf8), isDirectory: isDirectory, for: someone(uid: uid)).isAllowed
        }
        #expect(!moves("/web/tls/key", 8, isDirectory: false) && moves("/web/tls/key", 7, isDirectory: false))
        #expect(!moves("/web", 8, isDirectory: true) && moves("/web", 7, isDirectory: true))
        #expect(moves("/other", 8, isDirectory: true))
        #expect(!policy.decideNameless(.read, for: someone(uid: 8)).isAllowed)
        #expect(policy.decideNameless(.read, for: someone(uid: 7)).isAllowed)
        #expect(policy.decideNameless(.write, for: someone(uid: 8)).isAllowed)
    }

    @Test(arguments: [
        ("default = \"maybe\"", 1), ("defualt = \"deny\"", 1), ("default = 1", 1), ("rule = 3", 1),
        ("[rule]\nname=\"a\"", 1),
        ("x = ", 1), ("[[rule]]\nname = \"a\"", 1),
        ("[[rule]]\nname = \"a\"\neffect = \"permit\"\npaths = [\"/a\"]\noperations = [\"read\"]", 3),
        ("[[rule]]\nname = \"a\"\neffect = \"allow\"\npaths = [\"a\"]\noperations = [\"read\"]", 4),
        ("[[rule]]\nname = \"a\"\neffect = \"allow\"\npaths = []\noperations = [\"read\"]", 4),
        ("[[rule]]\nname = \"a\"\neffect = \"allow\"\npaths = [\"/a\"]\noperations = [\"open\"]", 5),
        ("[[rule]]\nname = \"default\"\neffect = \"allow\"\npaths = [\"/a\"]\noperations = [\"read\"]", 2),
    ])
    func `mistakes are told by line`(text: String, line: Int) {
        let error = #expect(throws: PolicyMistakes.self) { try policy(text) }
        #expect(error?.mistakes.first?.line == line)
    }

    @Test(arguments: [
        "exe = [\"/a\"]", "uids = [-1]", "uids = [4294967295]", "uids = [\"root\"]", "uids = []",
        "users = [\"nobody-here\"]",
        "groups = [\"gone\"]", "exe_sha256 = [\"abc\"]", "between = \"8-9\"", "opens_per_process = 0",
        "units = [\"[\"]",
        "exes = [\"nginx\"]", "cgroups = 4",
    ])
    func `one wrong matcher refuses the whole document`(matcher: String) {
        #expect(throws: PolicyMistakes.self) { try policy(rule("") + rule(matcher, name: "second")) }
    }

    @Test func `names of rules are unique, and every mistake is told`() throws {
        let error = #expect(throws: PolicyMistakes.self) {
            try policy(rule("") + rule("uids = [-1]") + "[[rule]]\nname = \"z\"\n")
        }
        let told = error?.mistakes.map(\.what).joined(separator: "; ") ?? ""
        for part in ["two rules are called 'r'", "uids holds", "no effect", "no paths", "no operations"] {
            #expect(told.contains(part), "\(part) in \(told)")
        }
    }

    @Test func `names that have gone match nobody`() throws {
        let text = rule("users = [\"gone\"]")
        let policy = try Policy.parse(text, accounts: Self.accounts, isNew: false)
        #expect(decide(policy, "/web/a", someone(uid: 0)) == "deny r")
    }

    @Test func `a damaged policy allows nothing`() {
        #expect(decide(.damaged(), "/", someone(uid: 0), .control) == "deny damaged policy")
        #expect(!Policy.damaged().isEmpty && Policy.none.isEmpty)
    }

    @Test func `passwd lines`() {
        #expect(
            Accounts.parse("root:x:0:0::/root:/bin/sh\nbad\n:x:3:\nshop:x:900:900::/:/x\nshop:x:901:\nq:x:z:\n")
                == ["root": 0, "shop": 900])
        #expect(Accounts.ofThisMachine().users["root"] == 0)
    }

    @Test func `a program's hash is told of real processes, and once`() throws {
        let table = ProcessTable()
        let identity = table.identify(thread: getpid(), uid: getuid(), gid: getgid())
        let hash = ExecutableHashes.shared.hash(identity)
        #expect(hash?.count == 32)
        #expect(ExecutableHashes.shared.hash(identity) == hash)
        #expect(ExecutableHashes.shared.hash(.unknown) == nil)
    }

    /// No document may bring the parser down.
    @Test func `cut and changed documents are refused or read`() {
        let whole = Array((rule("uids = [7]\nbetween = \"08:00-09:00\"") + rule("units = [\"a*\"]", name: "b")).utf8)
        var generator = SeededGenerator(seed: 11)
        for round in 0..<4000 {
            var bytes = round < whole.count ? Array(whole[..<round]) : whole
            for _ in 0..<Int.random(in: 1...4, using: &generator) where !bytes.isEmpty {
                bytes[Int.random(in: 0..<bytes.count, using: &generator)] = UInt8.random(in: 0...127, using: &generator)
            }
            _ = try? Policy.parse(String(decoding: bytes, as: UTF8.self), accounts: Self.accounts, isNew: true)
        }
    }
}
