/// Who is told of what a tree finds and finishes by itself.
public protocol TreeObserver: AnyObject, Sendable {
    /// Something is damaged that nobody has heard of yet. The tree may be locked: not to be called back from here.
    func found(_ problem: Problem)
    /// A job has come to its end, done or failed.
    func ended(_ job: JobKind)
}
