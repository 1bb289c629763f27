/// What is done after a value has changed.
public struct Hook: Sendable, Equatable {
    public enum Action: Sendable, Equatable {
        /// A program by its path, and its arguments.
        case run([String])
        /// A signal to a systemd unit's main process.
        case signal(unit: String, number: Int32)
    }

    public var name: String
    public var paths: [PathGlob]
    public var action: Action
    /// Whose rights a command has; nil for those of whoever serves the mount.
    public var user: String?
    /// For how long nothing may have changed before it is done (milliseconds).
    public var debounce: Int
    /// How long a command may take (milliseconds).
    public var timeout: Int

    /// Changes that never end put it off for so many times `debounce`.
    public static let patience = 10

    /// Whether the value at a path is meant, or, of a directory that was moved there, one below it.
    public func isAbout(_ path: some Collection<UInt8>, orBelow: Bool = false) -> Bool {
        paths.contains { $0.matches(path) || orBelow && $0.couldMatchBelow(path) }
    }
}

/// A keyring's hooks, as its document tells them.
public struct Hooks: Sendable, Equatable {
    public var all: [Hook]
    public static let none = Hooks(all: [])

    /// - Throws: all that is wrong with it.
    public static func parse(_ text: String) throws(PolicyMistakes) -> Hooks {
        var parser = HookParser()
        return try parser.hooks(text)
    }
}
