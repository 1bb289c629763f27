import Glibc
import Synchronization

final class Flag: Sendable { let raised = Atomic(false) }

/// Something that an application does, again and again.
class Application {
    let path: String
    init(_ path: String) { self.path = path }

    var name: String { String(describing: Self.self) }
    /// Before the first kill.
    func prepare() throws {}
    func act(_ round: Int) throws {}
    /// After the last.
    func finish() throws {}

    func require(_ holds: Bool, _ complaint: @autoclosure () -> String) throws {
        guard holds else { throw HarnessError(complaint()) }
    }
}

/// A thread of an application, until it is told to stop or it fails.
final class Soaker: @unchecked Sendable {
    // Written by the thread, read when it has ended.
    private(set) var count = 0
    private var failure: String?
    private var thread = pthread_t()
    private let stops: Flag
    private var application: Application?
    let name: String

    init(_ application: Application, _ stops: Flag) throws {
        self.application = application
        name = application.name
        self.stops = stops
        try application.prepare()
        pthread_create(
            &thread, nil,
            { argument in
                Unmanaged<Soaker>.fromOpaque(argument!).takeUnretainedValue().run()
                return nil
            }, Unmanaged.passUnretained(self).toOpaque())
    }

    private func run() {
        do {
            while !stops.raised.load(ordering: .acquiring) {
                try application?.act(count)
                count += 1
            }
            try application?.finish()
        } catch { failure = "\(name): \(error) in round \(count)" }
    }

    /// Closes what it has open.
    func letGo() { application = nil }

    /// What went wrong; nil if nothing did.
    func end() -> String? {
        pthread_join(thread, nil)
        return failure
    }
}
