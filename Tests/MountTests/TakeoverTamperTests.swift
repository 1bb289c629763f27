import Glibc
import Testing

/// The store is changed behind a server's back, and the server dies.
@Suite(.serialized, .enabled(if: !Mounted.isPlain))
struct TakeoverTamperTests {
    private let mounted: Mounted
    private var edit: StoreEdit { StoreEdit(work: mounted.workspace) }

    init() throws { mounted = try Mounted(options: "cache=none") }

    /// The records of a kind, once the table has what `isThere` looks for: it gets it with a fold, when nothing has been
    /// written for a moment.
    private func folded(_ kind: StoreEdit.Kind, _ isThere: ([String: String]) -> Bool) throws -> [String: String] {
        var records: [String: String] = [:]
        #expect(
            eventually {
                records = (try? self.edit.records(kind)) ?? [:]
                return isThere(records)
            })
        return records
    }

    @Test func aRecordPutBackIsRefusedByTheServerThatLooksFirst() throws {
        // A server that finds out ends and says so.
        mounted.mayCrash = true
        try put("first", mounted("f"))
        try put("other", mounted("g"))
        let old = try folded(.envelope) { $0.count == 2 }
        let writer = try OpenFile(mounted("f"), O_WRONLY)
        #expect(pwrite(writer.descriptor, "FIRST", 5, 0) == 5)
        try writer.close()
        let new = try folded(.envelope) { $0 != old }
        let changed = try #require(old.keys.first { old[$0] != new[$0] })
        try edit.set(changed, try #require(old[changed]))
        kill(try mounted.process("server"), SIGKILL)
        #expect(
            eventually {
                do throws(Errno) { _ = try contents(self.mounted("f")) } catch { return error.value == EBADMSG }
                return false
            })
        #expect(try text(mounted("g")) == "other")
        try put("more", mounted("h"))
        let status = try text(mounted.control("status"))
        #expect(status.contains("\"restarts\":2") && !status.contains("\"problems\":[]"), "\(status)")
        #expect(status.contains("exit code 5"), "\(status)")
    }

    @Test func keysOfAnotherTimeEndTheMount() throws {
        try put("value", mounted("f"))
        let old = try folded(.lifecycle) { $0.count == 1 }
        try mounted.command("1", "keys/rotate")
        let new = try folded(.lifecycle) { $0 != old }
        let (key, value) = try #require(old.first)
        try edit.set(key, value)
        kill(try mounted.process("server"), SIGKILL)
        let guardian = mounted.guardian
        #expect(eventually { Workspace.mountpoints(below: self.mounted.workspace.path).isEmpty })
        #expect(eventually { kill(guardian, 0) != 0 })
        try edit.set(key, try #require(new[key]))
        try mounted.mount()
        #expect(try text(mounted("f")) == "value")
    }
}
