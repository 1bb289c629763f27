import Glibc

/// What a measurement could not do.
struct Failure: Error, CustomStringConvertible {
    var description: String

    init(_ description: String) { self.description = description }

    /// A failed system call, with errno in words.
    static func call(_ what: String) -> Failure { Failure("\(what): \(String(cString: strerror(errno)))") }
}

/// The result of a system call that has to succeed.
@discardableResult
func check<Result: SignedInteger>(_ result: Result, _ what: @autoclosure () -> String) throws(Failure) -> Result {
    guard result != -1 else { throw .call(what()) }
    return result
}
