/// What can go wrong between a store and its disk.
public enum StorageError: Error, Equatable {
    /// No space left; nothing was changed.
    case full
    /// The store was opened for reading only.
    case readOnly
    /// The system refused: errno, and what was being done.
    case io(Int32, String)
    /// What is on the disk is not what a store writes.
    case corrupt(String)
    /// There is no store there, or no place for one.
    case notAStore(String)
    /// Written by a later version, of this format number.
    case newerFormat(Int)
    /// Another process has it open: what it says of itself.
    case busy(holder: String)
    /// An expectation of the batch does not hold.
    case conflict
    /// The store was closed.
    case closed
}
