/// What a policy allows or denies; the raw values are its words.
public enum Operation: String, CaseIterable, Sendable {
    case read, write, list
    /// Writing a control file, below `/.letterlock`.
    case control

    var bit: UInt8 {
        switch self {
        case .read: 1
        case .write: 2
        case .list: 4
        case .control: 8
        }
    }
}

/// Several operations at once.
public struct Operations: OptionSet, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    public init(_ operation: Operation) { rawValue = operation.bit }

    public static let read = Operations(.read)
    public static let write = Operations(.write)
    public static let list = Operations(.list)
    public static let control = Operations(.control)

    public func contains(_ operation: Operation) -> Bool { rawValue & operation.bit != 0 }

    /// The one that a record names when several are asked for: to write is the more.
    public var principal: Operation {
        if contains(.control) { return .control }
        if contains(.write) { return .write }
        return contains(.list) && !contains(.read) ? .list : .read
    }
}
