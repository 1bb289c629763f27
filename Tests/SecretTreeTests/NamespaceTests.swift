import SecretTree
import Testing

@Suite struct NamespaceTests {
    @Test func `names are found, refused and taken away as POSIX has it`() throws {
        let tree = try House().tree
        let directory = try tree.make("d", .directory)
        let file = try tree.make("f", in: directory)
        #expect(try tree.find("f", in: directory).id == file)
        #expect(refusal { try tree.make("f", in: directory) } == "exists")
        #expect(refusal { try tree.find("nothing") } == "notFound")
        #expect(refusal { try tree.make("x", in: file) } == "notADirectory")
        #expect(refusal { try tree.remove("d") } == "isADirectory")
        #expect(refusal { try tree.make(String(repeating: "n", count: 256)) } == "nameTooLong")
        #expect(try tree.attributes(of: .root).linkCount == 3)
        #expect(tree.fileCount == 1)
        try tree.remove("f", in: directory)
        #expect(tree.fileCount == 0)
        #expect(try tree.names(in: directory).isEmpty)
    }

    @Test func `a rename replaces, refuses or exchanges, and counts stay right`() throws {
        let house = try House()
        let tree = house.tree
        let one = try tree.make("one", .directory)
        let two = try tree.make("two", .directory)
        let a = try tree.make("a", in: one)
        let b = try tree.make("b", in: two)
        #expect(refusal { try tree.move("a", in: one, to: "b", in: two, .noReplace) } == "exists")
        try tree.move("a", in: one, to: "b", in: two, .exchange)
        #expect(try tree.find("a", in: one).id == b)
        #expect(try tree.find("b", in: two).id == a)
        try tree.move("a", in: one, to: "b", in: two)
        #expect(try tree.find("b", in: two).id == b)
        #expect(try tree.names(in: one).isEmpty)
        #expect(refusal { try tree.attributes(of: a) } == "notFound")

        let deep = try tree.make("deep", in: two, .directory)
        #expect(refusal { try tree.move("two", in: .root, to: "inside", in: deep) } == "invalid")
        try tree.move("one", in: .root, to: "under", in: deep)
        #expect(try tree.attributes(of: .root).linkCount == 3)
        #expect(try tree.attributes(of: deep).linkCount == 3)
        #expect(try tree.attributes(of: one).parent == deep)
        #expect(refusal { try tree.move("b", in: two, to: "deep", in: two) } == "isADirectory")
        #expect(try house.reopened().verify().problems.isEmpty)
    }

    @Test func `a file made without a name is given one once, or goes`() throws {
        let house = try House()
        let tree = house.tree
        func makeTemporary(canBeLinked: Bool = true) throws -> NodeID {
            let new = NewNode(type: .file, permissions: 0o600, uid: 1, gid: 2)
            let made = try tree.makeTemporary(new, in: .root, canBeLinked: canBeLinked, now: House.now)
            #expect(made.linkCount == 0)
            tree.hold(made.id)
            try tree.put(Array("value".utf8), to: made.id)
            return made.id
        }
        func link(_ node: NodeID, _ name: String) throws {
            var name = name
            try name.withUTF8Bytes { name throws(TreeError) in
                _ = try tree.link(node, as: name, in: .root, now: House.now)
            }
        }
        let named = try makeTemporary()
        #expect(tree.fileCount == 0)
        try link(named, "named")
        #expect(tree.fileCount == 1)
        #expect(try tree.find("named").linkCount == 1)
        #expect(try tree.find("named").parent == .root)
        try tree.remove("named")
        #expect(refusal { try link(named, "again") } == "notFound")
        #expect(refusal { try link(try makeTemporary(canBeLinked: false), "never") } == "notFound")
        let released = try makeTemporary()
        tree.release(released, now: House.now)
        #expect(refusal { try tree.bytes(of: released) } == "notFound")
        let kept = try makeTemporary()
        try link(kept, "kept")
        tree.release(kept, now: House.now)
        let left = try makeTemporary()
        let later = try house.reopened()
        #expect(refusal { try later.bytes(of: left) } == "notFound")
        #expect(try later.bytes(of: try later.find("kept").id) == Array("value".utf8))
        #expect(try later.names() == ["kept"])
        #expect(try later.verify().problems.isEmpty)
    }

    @Test func `a directory is read in pages, each name once, whatever comes and goes`() throws {
        let tree = try House().tree
        let stays = (0..<700).map { "stays-\($0)" }
        for name in stays { _ = try tree.make(name) }
        for number in 0..<300 { _ = try tree.make("goes-\(number)") }
        var seen: [String: Int] = [:]
        var cookie: UInt64 = 0
        var removed = 0
        while true {
            var page = 0
            try tree.readDirectory(.root, after: cookie, withAttributes: page == 0) { name, entry in
                seen[String(decoding: name, as: UTF8.self), default: 0] += 1
                #expect(entry.cookie > cookie)
                cookie = entry.cookie
                page += 1
                return page < 50
            }
            if page == 0 { break }
            for _ in 0..<20 where removed < 300 {
                try tree.remove("goes-\(removed)")
                removed += 1
            }
        }
        #expect(stays.allSatisfy { seen[$0] == 1 })
        #expect(seen.values.allSatisfy { $0 == 1 })
    }

    @Test func `extended attributes come back, are listed and counted`() throws {
        let house = try House()
        let tree = house.tree
        let file = try tree.make("f")
        try tree.setAttribute("user.a", Array("value".utf8), of: file)
        try tree.setAttribute("user.b", Array(repeating: 1, count: 65_536), of: file)
        #expect(refusal { try tree.setAttribute("user.a", [], of: file, .create) } == "exists")
        #expect(refusal { try tree.setAttribute("user.c", [], of: file, .replace) } == "noAttribute")
        #expect(
            refusal { try tree.setAttribute("user.c", Array(repeating: 0, count: 65_537), of: file) }
                == "attributeTooLarge")
        var value: [UInt8] = []
        var name = "user.a"
        try name.withUTF8Bytes { try tree.withExtendedAttribute(of: file, $0) { value = Array($0) } }
        #expect(value == Array("value".utf8))
        var list = ""
        try tree.listExtendedAttributes(of: file) { list = String(decoding: $0, as: UTF8.self) }
        #expect(Set(list.split(separator: "\0")) == ["user.a", "user.b"])
        try name.withUTF8Bytes { try tree.removeExtendedAttribute(of: file, $0, now: House.now) }
        #expect(
            refusal { try name.withUTF8Bytes { try tree.withExtendedAttribute(of: file, $0) { _ in } } }
                == "noAttribute")
        try tree.remove("f")
        #expect(try house.reopened().verify().problems.isEmpty)
    }
}

extension SecretTree {
    func setAttribute(_ name: String, _ value: [UInt8], of node: NodeID, _ mode: AttributeMode = .createOrReplace)
        throws
    {
        var name = name
        try name.withUTF8Bytes { name in
            try value.withUnsafeBytes { try setExtendedAttribute(of: node, name, $0, mode, now: House.now) }
        }
    }
}

/// The error's case by name; "" if there was none.
func refusal<R>(_ body: () throws -> R) -> String {
    do {
        _ = try body()
        return ""
    } catch {
        return String("\(error)".prefix { $0 != "(" })
    }
}
