import CLinux
import Glibc

/// A server that the guardian has started.
final class ServerChild {
    let process: pid_t
    let channel: Channel
    /// It answers the kernel.
    var isServing = false
    /// It says nothing any more: its end will be known in a moment.
    var hasHungUp = false
    /// What it said of its failure.
    var failure: Failure?

    /// Descriptor numbers at which a server finds what it shares with its guardian.
    enum Place {
        static let channel: Int32 = 3
        static let board: Int32 = 4
        static let key: Int32 = 5
        static let events: Int32 = 6
        static let invalidations: Int32 = 7
        static let passphrase: Int32 = 8
    }

    /// What is given to a server.
    struct Inheritance {
        var board: Int32
        var key: Int32
        var events: Int32
        var invalidations: Int32
        var passphrase: Int32?
    }

    /// Starts `program` (a descriptor of it) in a session of its own, with nothing but what it is given, standard
    /// streams as here, and every signal as if it were new.
    init(_ program: Int32, _ arguments: [String], _ given: Inheritance) throws(Failure) {
        let (own, other) = try Channel.pair()
        defer { close(other.descriptor) }
        var spawning = Spawning(program: program, arguments)
        spawning.isDetached = true
        spawning.descriptors = [
            (other.descriptor, Place.channel), (given.board, Place.board), (given.key, Place.key),
            (given.events, Place.events), (given.invalidations, Place.invalidations),
        ]
        if let passphrase = given.passphrase { spawning.descriptors.append((passphrase, Place.passphrase)) }
        do { process = try spawning.start() } catch {
            close(own.descriptor)
            throw error
        }
        channel = own
    }

    deinit { close(channel.descriptor) }
}
