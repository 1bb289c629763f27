import ArgumentParser
import Keyring
import SecretFS
import SecretTree
import Storage

struct Verify: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Check every record of an unmounted store; exit 5 if anything is wrong.")

    @Argument(help: "The directory of the keyring.", completion: .directory)
    var store: String

    @OptionGroup var keys: KeyOptions

    @Flag(help: "Take an older copy of the store than was seen before, as after a restore.")
    var acceptRollback = false

    func run() throws {
        let path = try StoreDescription.directory(store)
        if let holder = StoreHolder.staying(in: path) {
            throw Messages.failure(.busy(holder: holder.text), store: path)
        }
        let open = try StoreOpening.open(
            path, key: .source(try keys.source()), readOnly: true, purpose: "verify", acceptsRollback: acceptRollback)
        open.warnings.forEach(Output.warn)
        let report = try open.tree.verify()
        let problems = open.tree.named(report.problems)
        try? open.tree.close()
        for problem in problems { Output.line(Output.printable(problem)) }
        guard report.problems.isEmpty else {
            let count = report.problems.count
            throw Failure(
                "\(store): \(count) \(count == 1 ? "thing is" : "things are") wrong",
                hint: "the files named above cannot be trusted: restore them from a backup", code: .integrity)
        }
        TimeMemory.verification(history: open.keyring.historyName).note(.now())
        if report.unreadableCount > 0 {
            Output.warn(
                "\(report.unreadableCount) files are under KEK versions that may not be used; not opened")
        }
        Output.line("\(store): \(report.recordCount) records verified, nothing is wrong")
    }
}
