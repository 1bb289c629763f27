import SecretTree
import Testing

/// Entries of a list: owner 1, user 2, owning group 4, group 8, mask 16, other 32.
private typealias Entry = (tag: UInt16, permissions: UInt16, id: UInt32)

private func list(_ entries: [Entry], version: UInt32 = 2) -> [UInt8] {
    func bytes(_ number: some FixedWidthInteger) -> [UInt8] { withUnsafeBytes(of: number.littleEndian) { Array($0) } }
    return entries.reduce(bytes(version)) { $0 + bytes($1.tag) + bytes($1.permissions) + bytes($1.id) }
}

private let none = UInt32.max
private let (access, initial) = ("system.posix_acl_access", "system.posix_acl_default")

@Suite struct AccessControlTests {
    private func set(_ tree: SecretTree, _ node: NodeID, _ name: String, _ value: [UInt8], clears: Bool = false) throws
    {
        var name = name
        try name.withUTF8Bytes { name throws(TreeError) in
            let result = value.withUnsafeBytes { value in
                Result { () throws(TreeError) in
                    try tree.setExtendedAttribute(
                        of: node, name, value, .createOrReplace, clearsSetGroupID: clears, now: House.now)
                }
            }
            try result.get()
        }
    }

    private func get(_ tree: SecretTree, _ node: NodeID, _ name: String) throws(TreeError) -> [UInt8] {
        var name = name
        var value: [UInt8] = []
        try name.withUTF8Bytes { name throws(TreeError) in
            try tree.withExtendedAttribute(of: node, name) { value = Array($0) }
        }
        return value
    }

    private func permissions(_ tree: SecretTree, _ node: NodeID) throws -> UInt16 {
        try tree.attributes(of: node).permissions
    }

    private func chmod(_ tree: SecretTree, _ node: NodeID, _ permissions: UInt16) throws {
        var change = AttributeChange()
        change.permissions = permissions
        _ = try tree.setAttributes(of: node, change, now: House.now)
    }

    @Test func `the mode shows the mask of a list, and changes it`() throws {
        let house = try House()
        let tree = house.tree
        let file = try tree.make("f")
        try set(tree, file, access, list([(1, 6, none), (2, 7, 10), (4, 4, none), (16, 5, none), (32, 0, none)]))
        #expect(try permissions(tree, file) == 0o650)
        try chmod(tree, file, 0o417)
        #expect(
            try get(tree, file, access)
                == list([(1, 4, none), (2, 7, 10), (4, 4, none), (16, 1, none), (32, 7, none)]))
        // What a mode says as well is kept as that alone.
        try set(tree, file, access, list([(1, 6, none), (4, 4, none), (32, 4, none)]))
        #expect(try permissions(tree, file) == 0o644)
        #expect(refusal { try get(tree, file, access) } == "noAttribute")
        var name = access
        try name.withUTF8Bytes { name throws(TreeError) in
            try tree.removeExtendedAttribute(of: file, name, now: House.now)
        }
        #expect(try house.reopened().verify().problems.isEmpty)
    }

    @Test func `a list of somebody outside the group takes the set-group-id bit`() throws {
        let tree = try House().tree
        let file = try tree.make("f")
        for (clears, expected): (Bool, UInt16) in [(false, 0o2770), (true, 0o770)] {
            try chmod(tree, file, 0o2755)
            let value = list([(1, 7, none), (2, 1, 10), (4, 0, none), (16, 7, none), (32, 0, none)])
            try set(tree, file, access, value, clears: clears)
            #expect(try permissions(tree, file) == expected)
        }
    }

    @Test func `what is made in a directory begins with its initial list instead of the mask`() throws {
        let house = try House()
        let tree = house.tree
        let directory = try tree.make("d", .directory)
        let value = list([(1, 7, none), (2, 7, 10), (4, 5, none), (16, 7, none), (32, 5, none)])
        try set(tree, directory, initial, value)
        #expect(try permissions(tree, directory) == 0o644)
        func make(_ name: String, _ type: NodeType, _ permissions: UInt16, in parent: NodeID) throws -> NodeID {
            var new = NewNode(type: type, permissions: permissions, uid: 1, gid: 2)
            new.mask = 0o077
            let node = new
            var name = name
            return try name.withUTF8Bytes { name throws(TreeError) in
                try tree.make(node, named: name, in: parent, now: House.now).id
            }
        }
        let file = try make("f", .file, 0o660, in: directory)
        #expect(try permissions(tree, file) == 0o660)
        #expect(
            try get(tree, file, access)
                == list([(1, 6, none), (2, 7, 10), (4, 5, none), (16, 6, none), (32, 0, none)]))
        let inner = try make("inner", .directory, 0o777, in: directory)
        #expect(try get(tree, inner, initial) == value)
        #expect(try permissions(tree, inner) == 0o775)
        let link = try make("l", .symbolicLink, 0o777, in: directory)
        #expect(refusal { try get(tree, link, access) } == "noAttribute")
        #expect(try permissions(tree, try make("masked", .file, 0o666, in: .root)) == 0o600)
        // One that says no more than a mode.
        try set(tree, inner, initial, list([(1, 6, none), (4, 6, none), (32, 0, none)]))
        let plain = try make("plain", .file, 0o666, in: inner)
        #expect(try permissions(tree, plain) == 0o660)
        #expect(refusal { try get(tree, plain, access) } == "noAttribute")
        #expect(try house.reopened().verify().problems.isEmpty)
    }

    @Test(arguments: [
        list([]), list([(1, 6, none), (4, 4, none)]), list([(1, 6, none), (4, 4, none), (32, 8, none)]),
        list([(1, 6, none), (2, 4, 5), (4, 4, none), (32, 0, none)]),
        list([(4, 4, none), (1, 6, none), (32, 0, none)]),
        list([(1, 6, none), (4, 4, none), (32, 0, none)], version: 1),
        list([(1, 6, none), (1, 6, none), (4, 4, none), (32, 0, none)]),
        list([(1, 6, none), (4, 4, none), (64, 0, none)]),
        Array(list([(1, 6, none), (4, 4, none), (32, 0, none)]).dropLast()), [1, 2],
    ])
    func `what is no list is refused`(value: [UInt8]) throws {
        let tree = try House().tree
        let directory = try tree.make("d", .directory)
        #expect(refusal { try set(tree, directory, access, value) } == "invalid")
        #expect(refusal { try set(tree, directory, initial, value) } == "invalid")
        #expect(try permissions(tree, directory) == 0o644)
    }
}
