import Glibc
import Testing

/// A system call's error number.
struct Errno: Error, Equatable, CustomStringConvertible {
    var value: Int32

    init(_ value: Int32) { self.value = value }

    var description: String { "errno \(value) (\(String(cString: strerror(value))))" }
}

/// Something that the harness itself could not do.
struct HarnessError: Error, CustomStringConvertible {
    var description: String

    init(_ description: String) { self.description = description }
}

/// The result of a system call; throws its error number.
@discardableResult
func check<Result: SignedInteger>(_ result: Result) throws(Errno) -> Result {
    guard result != -1 else { throw Errno(errno) }
    return result
}

/// Expects a system call to succeed.
func expectDone(
    _ call: @autoclosure () -> some SignedInteger, _ comment: Comment? = nil,
    at place: SourceLocation = #_sourceLocation
) {
    let number = call() == -1 ? Errno(errno) : nil
    #expect(number == nil, comment, sourceLocation: place)
}

/// Expects a system call to fail with one error number.
func expectErrno(
    _ expected: Int32, _ call: @autoclosure () -> some SignedInteger, _ comment: Comment? = nil,
    at place: SourceLocation = #_sourceLocation
) {
    let number = call() == -1 ? Errno(errno) : nil
    #expect(number == Errno(expected), comment, sourceLocation: place)
}

/// Expects whatever calls are made in `body` to end with one error number.
func expectErrno(
    _ expected: Int32, _ comment: Comment? = nil, at place: SourceLocation = #_sourceLocation,
    in body: () throws -> Void
) {
    var number: Errno?
    do {
        try body()
    } catch {
        number = error as? Errno
    }
    #expect(number == Errno(expected), comment, sourceLocation: place)
}

/// Waits until `condition` holds; false after 30 seconds.
func eventually(_ condition: () throws -> Bool) rethrows -> Bool {
    for _ in 0..<3000 {
        if try condition() { return true }
        usleep(10_000)
    }
    return try condition()
}
