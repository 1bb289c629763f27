/// What the passing of time asks for.
public enum LifecycleAction: Sendable, Equatable {
    case rotate
    case disable(KEKVersion)
    case scheduleDestruction(KEKVersion)
    case destroy(KEKVersion)
}

extension KeyLifecycle {
    /// What should have happened by now, in order. However long the pause was, there is one rotation in it: the next is
    /// a period after that.
    ///
    /// - Parameter files: How many files a version guards: while there is one, the version is not taken away by itself.
    public func dueActions(now: Timestamp, files: (KEKVersion) -> Int) -> [LifecycleAction] {
        var actions: [LifecycleAction] = []
        if let nextRotation, nextRotation <= now { actions.append(.rotate) }
        for record in records where record.version != primary {
            if record.state == .pendingDestruction {
                if let deadline = record.destroyAt, deadline <= now { actions.append(.destroy(record.version)) }
            } else if let action = retirement(of: record, now), files(record.version) == 0 {
                actions.append(action)
            }
        }
        return actions
    }

    private func retirement(of record: KEKRecord, _ now: Timestamp) -> LifecycleAction? {
        guard record.state != .destroyed, let retired = record.retired else { return nil }
        func hasPassed(_ period: Int64) -> Bool { period > 0 && retired.adding(seconds: period) <= now }
        if deletionAllowed, hasPassed(destroyAfter) { return .scheduleDestruction(record.version) }
        return record.state == .enabled && hasPassed(disableAfter) ? .disable(record.version) : nil
    }

    /// Does what was due. A destruction waits as short as it may.
    public mutating func perform(_ action: LifecycleAction, now: Timestamp) throws(LifecycleError) {
        switch action {
        case .rotate: try rotate(now: now)
        case .disable(let version): try disable(version, now: now)
        case .scheduleDestruction(let version):
            try scheduleDestruction(
                of: version, days: Self.destructionDays.lowerBound, force: false, files: 0, now: now)
        case .destroy: destroyDue(now: now)
        }
    }
}
