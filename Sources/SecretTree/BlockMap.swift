internal import Keyring
internal import Sodium
internal import Storage

/// Labels that keep one use of a key apart from every other.
enum Labels {
    static let record: StaticString = "letterlock record 1"
    static let root: StaticString = "letterlock root 1"
    static let body: StaticString = "letterlock body 1"
    static let block: StaticString = "letterlock block 1"
    static let names: StaticString = "letterlock names 1"
    static let others: StaticString = "letterlock other purposes 1"
    static let freshness: StaticString = "letterlock freshness 1"
    static let backup: StaticString = "letterlock backup 1"
    static let catalogue: StaticString = "letterlock backup catalogue 1"
}

/// Where 16 neighbouring blocks of a content lie, and how each is opened: 48 bytes a block,
/// `block number 8 | tag 16 | nonce 24`; number 0 is a hole.
struct BlockMap {
    struct Slot {
        var block: UInt64 = 0
        var tag: (UInt64, UInt64) = (0, 0)
        var nonce: (UInt64, UInt64, UInt64) = (0, 0, 0)

        func withSealParts<R>(_ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer) -> R) -> R {
            withUnsafeBytes(of: tag) { tag in withUnsafeBytes(of: nonce) { nonce in body(tag, nonce) } }
        }
    }

    static let slotByteCount = 48
    static let byteCount = slotByteCount * Contents.blocksPerMap

    let index: UInt64
    private var slots: [Slot]

    init(index: UInt64) {
        self.index = index
        slots = [Slot](repeating: Slot(), count: Contents.blocksPerMap)
    }

    init?(_ bytes: UnsafeRawBufferPointer, index: UInt64) {
        guard bytes.count == Self.byteCount else { return nil }
        self.index = index
        slots = (0..<Contents.blocksPerMap).map { slot in
            let place = slot * Self.slotByteCount
            return Slot(
                block: bytes.number(UInt64.self, at: place),
                tag: (
                    bytes.loadUnaligned(fromByteOffset: place + 8, as: UInt64.self),
                    bytes.loadUnaligned(fromByteOffset: place + 16, as: UInt64.self)
                ),
                nonce: (
                    bytes.loadUnaligned(fromByteOffset: place + 24, as: UInt64.self),
                    bytes.loadUnaligned(fromByteOffset: place + 32, as: UInt64.self),
                    bytes.loadUnaligned(fromByteOffset: place + 40, as: UInt64.self)
                ))
        }
    }

    func put(into bytes: UnsafeMutableRawBufferPointer) {
        for (index, slot) in slots.enumerated() {
            let place = index * Self.slotByteCount
            bytes.put(slot.block, at: place)
            slot.withSealParts { tag, nonce in
                bytes.put(tag, at: place + 8)
                bytes.put(nonce, at: place + 24)
            }
        }
    }

    subscript(slot: Int) -> Slot {
        get { slots[slot] }
        set { slots[slot] = newValue }
    }

    var isEmpty: Bool { slots.allSatisfy { $0.block == 0 } }
    var blocks: [UInt64] { slots.compactMap { $0.block == 0 ? nil : $0.block } }
}

/// The associated data of a block: what seals a record, with the block's index in its content.
func withBlockBinding<R>(
    store: StoreID, _ content: UInt64, _ map: UInt64, _ slot: Int, _ body: (UnsafeRawBufferPointer) -> R
) -> R {
    withBinding(Labels.block, store: store, RecordKey(.map, content, high: map, low: UInt64(slot)), body)
}
