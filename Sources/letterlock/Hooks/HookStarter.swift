import Access
import Glibc
import SecretFS

/// Starts the processes that run hooks, for a server: each is on its own, and goes on when the server ends.
struct HookStarter {
    let mountpoint: String
    let keyring: String
    let isDetached: Bool

    /// Where a runner finds the memory that it has in common with its server.
    static let board: Int32 = 3

    /// - Parameter memory: A descriptor of the memory with the board in it.
    /// - Returns: nil if it cannot be started.
    func start(_ order: HookOrder, _ memory: Int32) -> Int32? {
        var words = [
            "run-hook", "--place=\(order.place)", "--ticket=\(order.ticket)", "--timeout=\(order.hook.timeout)",
            "--mountpoint=\(mountpoint)", "--keyring=\(keyring)", "--name=\(order.hook.name)",
        ]
        if isDetached { words.append("--detached") }
        if let user = order.hook.user { words.append("--user=\(user)") }
        switch order.hook.action {
        case .run(let command): words += ["--"] + command
        case .signal(let unit, let number): words += ["--unit=\(unit)", "--signal=\(number)"]
        }
        // What the mount was started with may be gone from its path; this very program is not.
        var spawning = Spawning(Spawning.ownProgram, words)
        spawning.isDetached = true
        spawning.descriptors = [(memory, Self.board)]
        return try? spawning.start()
    }
}
