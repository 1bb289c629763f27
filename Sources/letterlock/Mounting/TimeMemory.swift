import Keyring

/// When something was last done with a store, as far as anybody here knows: beside what else is remembered of it.
struct TimeMemory {
    private let path: String

    /// - Parameter suffix: What was done, as the end of the file's name.
    init(history: String, suffix: String) { path = "\(EpochMemory.directory)/\(history).\(suffix)" }

    /// When `verify` has last found nothing wrong.
    static func verification(history: String) -> TimeMemory { TimeMemory(history: history, suffix: "verified") }

    /// Nil if it was never done from here.
    var last: Timestamp? {
        guard let bytes = try? SmallFile.read(path, limit: 64) else { return nil }
        let words = String(decoding: bytes, as: UTF8.self).split { $0 == " " || $0 == "\n" }
        guard words.count == 2, let seconds = Int64(words[0]), let nanoseconds = UInt32(words[1]) else { return nil }
        return Timestamp(seconds: seconds, nanoseconds: nanoseconds)
    }

    /// What cannot be remembered was done nevertheless.
    func note(_ time: Timestamp) {
        EpochMemory.makeDirectory(EpochMemory.directory)
        try? SmallFile.replace(path, with: "\(time.seconds) \(time.nanoseconds)\n")
    }
}
