/// What the program ends with, as the manual promises it.
enum ExitCode: Int32 {
    case done = 0
    case failed = 1
    case usage = 2
    /// Wrong passphrase, PIN or token.
    case wrongSecret = 3
    /// Locked, or the key service cannot be reached.
    case locked = 4
    case integrity = 5
    /// Mounted elsewhere, or a job is running.
    case busy = 6
    /// As env(1) has them, of a program that was to be run.
    case commandNotExecutable = 126
    case commandNotFound = 127
}

/// An error as its reader sees it: what went wrong, what to do about it, and the exit code.
///
/// Both texts are lower case and end without a full stop; neither ever holds a secret.
struct Failure: Error {
    var message: String
    var hint: String?
    var code: ExitCode
    /// What a key service has, which the exit code does not tell from others: a disabled key from a service that is not there.
    var serviceErrno: Int32?

    init(_ message: String, hint: String? = nil, code: ExitCode = .failed) {
        self.message = message
        self.hint = hint
        self.code = code
    }

    /// A failed system call: `what` and the error number in words.
    init(_ what: String, errno number: Int32, hint: String? = nil, code: ExitCode = .failed) {
        self.init("\(what): \(SystemError.text(number))", hint: hint, code: code)
    }
}
