import Glibc

/// The subjects of one run, made, mounted and taken away again whatever happens.
final class Stage {
    let workspace: String
    private(set) var subjects: [Subject] = []
    private var memory: String?

    /// - Parameters:
    ///   - place: The directory, on a disk, that stores are made in.
    ///   - directories: Further directories to measure, each by its own path.
    init(in place: String, program: String, alone: String?, limit: String?, directories: [String]) throws(Failure) {
        var template = Array("\(place)/letterlock-bench.XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw .call(place) }
        workspace = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let log = workspace + "/log"
        subjects = [
            Letterlock(program: program, workspace: workspace + "/letterlock", log: log),
            Letterlock(program: program, "cache=none", workspace: workspace + "/letterlock-none", log: log),
            Letterlock(
                program: program, "audit=off", isVariant: true, workspace: workspace + "/letterlock-off", log: log),
            Letterlock(
                program: program, policy: Letterlock.benchPolicy, isVariant: true,
                workspace: workspace + "/letterlock-policy", log: log),
        ]
        if let alone {
            subjects.append(
                Alone(program: program, alone: alone, workspace: workspace + "/alone", log: log))
        }
        if let limit { subjects.append(Limit(program: limit, path: workspace + "/limit", log: log)) }
        if Process.exists("gocryptfs") { subjects.append(GoCryptFS(workspace: workspace + "/gocryptfs", log: log)) }
        if Process.exists("securefs") { subjects.append(SecureFS(workspace: workspace + "/securefs", log: log)) }
        subjects.append(Directory(name: Self.typeName(of: place), path: workspace + "/plain", log: log))
        if access("/dev/shm", W_OK) == 0 {
            let path = "/dev/shm/" + (workspace.split(separator: "/").last ?? "letterlock-bench")
            subjects.append(Directory(name: "tmpfs", path: path, isMemory: true, log: log))
        }
        for directory in directories {
            subjects.append(Directory(name: directory, path: directory + "/letterlock-bench.\(getpid())", log: log))
        }
    }

    /// Makes and mounts; says who could not take part, and goes on without it. Letterlock has to.
    func open(_ complain: (String) -> Void) throws(Failure) {
        var willing: [Subject] = []
        for subject in subjects {
            do throws(Failure) {
                try subject.create()
                try subject.mount()
                willing.append(subject)
            } catch {
                if subject is Letterlock { throw error }
                complain("without \(subject.name): \(error)")
                subject.unmount()
            }
        }
        subjects = willing
    }

    func close() {
        for subject in subjects {
            subject.unmount()
            subject.remove()
        }
        File.removeTree(workspace)
    }

    /// The type of the file system that a path lies on, from the mount table.
    private static func typeName(of path: String) -> String {
        var best = (length: -1, type: "disk")
        let table = (try? File.contents("/proc/self/mounts")).map { String(decoding: $0, as: UTF8.self) } ?? ""
        for line in table.split(separator: "\n") {
            let fields = line.split(separator: " ")
            guard fields.count > 2, path == fields[1] || path.hasPrefix(fields[1] == "/" ? "/" : fields[1] + "/") else {
                continue
            }
            if fields[1].count >= best.length { best = (fields[1].count, String(fields[2])) }
        }
        return best.type
    }
}
