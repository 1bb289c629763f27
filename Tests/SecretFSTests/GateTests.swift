import Access
import Fuse
import Glibc
import SecretTree
import Synchronization
import Testing

@testable import SecretFS

/// Keeps what it was told.
final class Listener: AccessObserver {
    private let heard = Mutex<[AccessEvent]>([])
    var events: [AccessEvent] { heard.withLock { $0 } }
    func observed(_ event: AccessEvent) { heard.withLock { $0.append(event) } }
}

/// What passes through the gate, and the paths of nodes.
struct GateTests {
    private func text(_ path: [UInt8]?) -> String? { path.map { String(decoding: $0, as: UTF8.self) } }

    private func makeDirectory(_ name: String, in parent: UInt64 = 1, of mounted: MountedTree) throws(Errno) -> UInt64 {
        try mounted.named(name) { name throws(Errno) in
            try mounted.fileSystem.makeDirectory(name, in: parent, mode: 0o755, mounted.caller).node
        }
    }

    @Test func `what is made, opened, renamed and removed is told with paths and process`() throws {
        let mounted = try MountedTree()
        let listener = Listener()
        mounted.fileSystem.gate.add(listener)
        let web = try makeDirectory("web", of: mounted)
        let node = try mounted.make("key", "v")
        try mounted.named("key") { name throws(Errno) in
            try mounted.fileSystem.rename(name, in: 1, to: name, in: web, flags: 0, mounted.caller)
        }
        #expect(try mounted.value(node) == "v")
        try mounted.command("1", "keys/rotate")
        try mounted.named("key") { name throws(Errno) in
            try mounted.fileSystem.unlink(name, in: web, mounted.caller)
        }
        _ = try mounted.fileSystem.createTemporary(in: web, mode: 0o600, flags: O_WRONLY, mounted.caller)
        let events = listener.events
        #expect(events.map(\.call) == [.makeDirectory, .create, .rename, .open, .control, .unlink, .create])
        #expect(
            events.map { text($0.path) } == [
                "/web", "/key", "/key", "/web/key", "/.letterlock/keys/rotate", "/web/key", "/web/#tmpfile",
            ])
        #expect(text(events[2].newPath) == "/web/key")
        #expect(events.map(\.operation) == [.write, .write, .write, .read, .control, .write, .write])
        #expect(events.allSatisfy { $0.requester.process.pid == getpid() && $0.isAllowed && $0.errno == 0 })
        #expect(events[3].node == NodeID(rawValue: node))
    }

    @Test func `a file has a path for each of its links, and those follow every change`() throws {
        let mounted = try MountedTree()
        let paths = mounted.fileSystem.gate.paths
        let a = try makeDirectory("a", of: mounted)
        let b = try makeDirectory("b", in: a, of: mounted)
        let id = NodeID(rawValue: try mounted.make("one", "v"))
        #expect(paths.paths(of: id).map { text($0) } == ["/one"])
        _ = try mounted.named("two") { name throws(Errno) in
            try mounted.fileSystem.link(id.rawValue, as: name, in: b, mounted.caller)
        }
        #expect(Set(paths.paths(of: id).map { text($0) }) == ["/one", "/a/b/two"])
        try mounted.named("a") { old throws(Errno) in
            try mounted.named("z") { new throws(Errno) in
                try mounted.fileSystem.rename(old, in: 1, to: new, in: 1, flags: 0, mounted.caller)
            }
        }
        #expect(Set(paths.paths(of: id).map { text($0) }) == ["/one", "/z/b/two"])
        try mounted.named("one") { name throws(Errno) in try mounted.fileSystem.unlink(name, in: 1, mounted.caller) }
        #expect(paths.paths(of: id).map { text($0) } == ["/z/b/two"])
    }

    @Test func `a server that has looked nothing up finds paths by reading`() throws {
        let mounted = try MountedTree()
        let a = try makeDirectory("a", of: mounted)
        let id = NodeID(rawValue: try mounted.make("one", "v"))
        try mounted.named("one") { name throws(Errno) in
            _ = try mounted.fileSystem.link(id.rawValue, as: name, in: a, mounted.caller)
        }
        let fresh = NodePaths(mounted.tree)
        #expect(Set(fresh.paths(of: id).map { text($0) }) == ["/one", "/a/one"])
        #expect(fresh.paths(of: .root).map { text($0) } == ["/"])
        #expect(fresh.paths(of: NodeID(rawValue: 999)).isEmpty)
    }
}
