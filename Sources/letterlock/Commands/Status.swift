import ArgumentParser
import Glibc

struct Status: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show a mounted keyring, or what can be told of a store without its key.")

    @Argument(help: "A mount point, or the directory of a store.", completion: .directory)
    var place: String

    @Flag(help: "As JSON; of a mounted keyring exactly what its control file says.")
    var json = false

    func run() throws {
        if let control = Control.ifMounted(at: place) { return try show(control) }
        if case .failure(let number) = Paths.resolved(place), number.value == ENOTCONN {
            throw Control.dead(place)
        }
        let store = try StoreDescription(at: place)
        // A store that is being served tells through its mount, with the key at hand.
        if let mountpoint = store.holder?.mountpoint, let control = Control.ifMounted(at: mountpoint) {
            return try show(control)
        }
        json ? Output.line(store.json) : store.table.show()
    }

    private func show(_ control: Control) throws(Failure) {
        guard !json else { return Output.line(try control.text("status")) }
        let status = try control.json("status")
        var table = Table()
        for (title, name) in [("keyring", "keyring"), ("store id", "store_id"), ("state", "state")] {
            table.add([title, status[name].words])
        }
        table.add(["mounted on", control.mountpoint])
        table.add(["primary", "KEK version \(status["primary"].words)"])
        for (title, name) in [
            ("files", "files"), ("versions", "versions"), ("key services", "key_services"),
            ("last verified", "last_verify"),
        ] where status[name] != .null {
            table.add([title, status[name].words])
        }
        let jobs = status["jobs"].elements.map { job in
            let failed = job["failed"].integer ?? 0
            return "\(job["kind"].words) \(job["state"].words), \(job["done"].words) of \(job["total"].words) files"
                + (failed > 0 ? ", \(failed) failed" : "")
        }
        table.add(["jobs", jobs.isEmpty ? "none" : jobs.joined(separator: "; ")])
        let server = status["server"]
        table.add(["server", "process \(server["pid"].words), version \(server["version"].words)"])
        let problems = status["problems"].elements
        table.add(["problems", problems.isEmpty ? "none" : String(problems.count)])
        table.show()
        for problem in problems { Output.line("  " + Output.printable(problem.words)) }
    }
}
