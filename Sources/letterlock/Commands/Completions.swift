import ArgumentParser

struct Completions: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Print the completion script for a shell.",
        discussion: "For example: letterlock completions bash >/etc/bash_completion.d/letterlock")

    enum Shell: String, ExpressibleByArgument, CaseIterable { case bash, zsh, fish }

    @Argument(help: "bash, zsh or fish.")
    var shell: Shell

    func run() {
        let script =
            switch shell {
            case .bash: Letterlock.completionScript(for: .bash)
            case .zsh: Letterlock.completionScript(for: .zsh)
            case .fish: Letterlock.completionScript(for: .fish)
            }
        Output.line(script)
    }
}
