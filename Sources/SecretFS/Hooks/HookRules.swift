import Access
import Fuse
import Glibc
import Keyring
import SecretTree
import Synchronization

/// The keyring's hooks: the document, and what runs them.
final class HookRules: Sendable {
    private let tree: SecretTree
    private let document: Mutex<Document?>
    private let count = Atomic(0)
    /// One replacement at a time.
    private let replacing = Mutex<Void>(())
    /// Nil if this mount runs none.
    let engine: HookEngine?

    init(_ tree: SecretTree, _ writers: HandleTable<Writer>, _ options: SecretFSOptions) {
        self.tree = tree
        let events = options.events
        engine = options.hooks.map { stage in
            HookEngine(stage) { paths in
                let nodes = Set(paths.compactMap { Self.node(at: $0, in: tree) })
                return writers.contains { writer in
                    nodes.contains(writer.node)
                        && (writer.isActive.load(ordering: .relaxed)
                            || writer.isOpenPastCommit.load(ordering: .relaxed))
                }
            } tell: { end in
                var event = Event(end.hasWorked ? .hookDone : .hookFailed)
                event.add("hook", .text(end.hook))
                event.add("outcome", .text(end.description))
                event.add("milliseconds", .number(Int(clamping: end.milliseconds)))
                events.tell(event)
            }
        }
        var found: Document?
        var hooks = Hooks.none
        do throws(TreeError) { found = try tree.document(.hooks) } catch {}
        if let found {
            // What cannot be trusted or understood runs nothing.
            do throws(PolicyMistakes) { hooks = try Hooks.parse(String(decoding: found.bytes, as: UTF8.self)) } catch {
                tree.report(
                    Problem(
                        node: nil, description: "the hooks are not understood, so that none is run", isDamage: false))
            }
        }
        document = Mutex(found)
        count.store(hooks.all.count, ordering: .relaxed)
        engine?.replace(hooks)
    }

    /// Nothing is done after a change.
    var isEmpty: Bool { engine == nil || count.load(ordering: .relaxed) == 0 }

    private static func node(at path: [UInt8], in tree: SecretTree) -> NodeID? {
        var node = NodeID.root
        for name in path.split(separator: UInt8(ascii: "/")) {
            guard let next = name.withUnsafeBytes({ try? tree.lookup($0, in: node) }) else { return nil }
            node = next.id
        }
        return node
    }

    /// The document as it was written, for `hooks`.
    func text() throws(Errno) -> String {
        let known = document.withLock { $0 }
        var found = known
        if found == nil { found = try answering { () throws(TreeError) in try tree.document(.hooks) } }
        guard let found else { return "" }
        return String(decoding: found.bytes, as: UTF8.self) + "\n"
    }

    /// - Throws: EINVAL if there is any mistake in it, and the old one stays.
    func replace(_ text: String) throws(Errno) -> Int {
        let hooks: Hooks
        do throws(PolicyMistakes) { hooks = try Hooks.parse(text) } catch { throw .invalid }
        try replacing.withLock { _ throws(Errno) in
            let new = try answering { () throws(TreeError) in
                try tree.replace(.hooks, with: Array(text.utf8), now: .now())
            }
            document.withLock { $0 = new }
            count.store(hooks.all.count, ordering: .relaxed)
            engine?.replace(hooks)
        }
        return hooks.all.count
    }

    /// For `status`.
    var report: JSON {
        .array(
            (engine?.reports ?? []).map { name, report in
                .object([
                    ("name", .text(name)),
                    ("state", report.isRunning ? "running" : report.isWaiting ? "waiting" : "idle"),
                    ("done", .number(report.done)), ("failed", .number(report.failed)),
                    ("last", .optional(report.lastOutcome)),
                ])
            })
    }

    func add(to page: inout MetricsText) {
        let reports = engine?.reports ?? []
        guard !reports.isEmpty else { return }
        page.begin("hook_runs_total", .counter, "Runs of hooks that came to their end.")
        for (name, report) in reports {
            page.sample("hook_runs_total", [("hook", name), ("result", "ok")], report.done)
            page.sample("hook_runs_total", [("hook", name), ("result", "failed")], report.failed)
        }
    }
}

extension SecretFS {
    /// Replaces the hooks; those that are gone are not run any more.
    func replaceHooks(_ text: String) throws(Errno) {
        let count = try hooks.replace(text)
        var event = Event(.hooksReplaced)
        event.add("hooks", .number(count))
        options.events.tell(event)
    }

    /// What is moved to a name is what there is to read now; both names have something else after an exchange.
    func noteMove(
        of name: UnsafeRawBufferPointer, in parent: NodeID, to newName: UnsafeRawBufferPointer, in newParent: NodeID,
        isExchange: Bool
    ) {
        guard !hooks.isEmpty else { return }
        for (name, parent) in [(newName, newParent)] + (isExchange ? [(name, parent)] : []) {
            guard let path = gate.paths.path(of: name, in: parent) else { continue }
            let isDirectory = (try? tree.lookup(name, in: parent))?.type == .directory
            hooks.engine?.changed(path, orBelow: isDirectory)
        }
    }

    /// An earlier server has moved it, but perhaps not said so.
    func afterRepeatedRename(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, to newName: UnsafeRawBufferPointer, in newParent: UInt64,
        flags: UInt32, _ caller: Caller
    ) {
        let (old, new) = (NodeID(rawValue: parent), NodeID(rawValue: newParent))
        noteMove(of: name, in: old, to: newName, in: new, isExchange: flags & 2 != 0)
        guard let path = gate.paths.path(of: newName, in: new) else { return }
        var event = Event(.valueChanged)
        event.add("path", path: path)
        event.add("moved_from", path: gate.paths.path(of: name, in: old))
        event.add(caller)
        options.events.tell(event)
    }
}
