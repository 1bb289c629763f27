/// The command lines that mount(8) and umount(8) run helpers with.
enum MountHelper {
    /// `mount.fuse.letterlock STORE MOUNTPOINT [-sfnv] [-N namespace] [-o options] [-t type]`
    static func mount(_ words: [String]) throws(Failure) {
        let line = try parse(words, flags: "sfnv", valued: "Not", operands: 2)
        // -f of mount(8) is a rehearsal.
        guard !line.flags.contains("f") else { return }
        var request = MountRequest(store: line.operands[0], mountpoint: line.operands[1])
        request.options = try MountOptions(parsing: line.options)
        request.toleratesSameMount = true
        try request.run()
    }

    /// `umount.fuse.letterlock MOUNTPOINT [-flnrv] [-N namespace] [-t type]`
    static func unmount(_ words: [String]) throws(Failure) {
        let line = try parse(words, flags: "flnrv", valued: "Nt", operands: 1)
        try Unmounting.unmount(line.operands[0], detaches: line.flags.contains("l"))
    }

    struct Line {
        var operands: [String] = []
        var options: [String] = []
        var flags: Set<Character> = []
    }

    static func parse(_ words: [String], flags: String, valued: String, operands: Int) throws(Failure) -> Line {
        var line = Line()
        var rest = words[...]
        while let word = rest.popFirst() {
            guard word.hasPrefix("-"), word.count > 1 else {
                line.operands.append(word)
                continue
            }
            var letters = word.dropFirst()
            while let letter = letters.popFirst() {
                if valued.contains(letter) {
                    guard let value = letters.isEmpty ? rest.popFirst() : String(letters) else {
                        throw Failure("-\(letter) lacks its value", code: .usage)
                    }
                    if letter == "o" { line.options.append(value) }
                    letters = ""
                } else if flags.contains(letter) {
                    line.flags.insert(letter)
                } else {
                    throw Failure("unknown flag -\(letter)", code: .usage)
                }
            }
        }
        guard line.operands.count == operands else {
            throw Failure(
                operands == 2 ? "a store and a mount point are needed" : "a mount point is needed",
                hint: "this program is run by mount(8) and umount(8)", code: .usage)
        }
        return line
    }
}
