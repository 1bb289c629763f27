import Access
import Fuse
import Glibc
import SecretTree
import Synchronization

/// What policy says of a request.
extension Gate {
    /// - Parameter isOpening: It counts among the openings of the process.
    func decide(_ request: AccessRequest, _ requester: Requester, isOpening: Bool) -> Decision {
        let policy = guardian.policy
        guard !policy.isEmpty else { return .unopposed }
        guard let node = request.node, request.newSubject == nil else {
            return decide(request, policy, requester, isOpening: isOpening)
        }
        let key = DecisionCache.Key(
            pid: requester.process.pid, uid: requester.uid, gid: requester.gid,
            operations: request.operations.rawValue, node: node)
        // Read before what is decided upon: what changes meanwhile makes the decision old.
        let (generation, pathGeneration) = (guardian.generation, paths.generation)
        if !requester.isForeign,
            let known = guardian.decisions.decision(
                for: key, requester.process, policy: generation, paths: pathGeneration)
        {
            return known
        }
        let decision = decide(request, guardian.policy, requester, isOpening: isOpening)
        if decision.isLasting, !requester.isForeign {
            guardian.decisions.keep(
                decision, for: key, requester.process, policy: generation, paths: pathGeneration)
        }
        return decision
    }

    /// All that is asked for, at every path that it has, must be allowed.
    private func decide(_ request: AccessRequest, _ policy: Policy, _ requester: Requester, isOpening: Bool)
        -> Decision
    {
        var result = Decision.unopposed
        /// False if that is the end of it.
        func take(_ decision: Decision) -> Bool {
            let isLasting = result.isLasting && decision.isLasting
            if !decision.isAllowed || result.rule == Decision.unopposed.rule { result = decision }
            result.isLasting = isLasting
            return decision.isAllowed
        }
        for (index, subject) in [request.subject, request.newSubject].enumerated() {
            guard let subject else { continue }
            let found = paths(of: subject)
            for operation in Operation.allCases where request.operations.contains(operation) {
                if found.isEmpty, !take(policy.decideNameless(operation, for: requester)) { return result }
                for path in found {
                    let decision = policy.decide(operation, on: path, for: requester, isOpening: isOpening)
                    guard take(decision) else { return result }
                }
            }
            // Other rules hold where it goes, and where what is exchanged for it goes.
            guard request.newSubject != nil, index == 0 || request.isExchange else { continue }
            for path in found {
                let decision = policy.decideMoving(path, isDirectory: isDirectory(subject), for: requester)
                guard take(decision) else { return result }
            }
        }
        return result
    }

    private func isDirectory(_ subject: AccessRequest.Subject) -> Bool {
        guard case .name(let name, let parent) = subject,
            let found = try? tree.lookup(name, in: NodeID(rawValue: parent))
        else { return false }
        return found.type == .directory
    }
}

extension SecretFS {
    /// Judges once more what a descriptor that was opened under another policy is used for, by whoever uses it.
    ///
    /// - Parameter policy: The generation of that policy, of which a handle may have kept the low 24 bits.
    /// - Returns: true if the policy is another one now.
    @discardableResult
    func recheck(_ id: NodeID, openedUnder policy: UInt32, _ call: AccessCall, _ operation: Operation, _ caller: Caller)
        throws(Errno) -> Bool
    {
        guard (gate.guardian.generation ^ policy) & Handle.policyMask != 0 else { return false }
        let request = AccessRequest(call, Operations(operation), .node(id))
        let decision = gate.decide(request, gate.requester(caller), isOpening: false)
        guard !decision.isAllowed else { return true }
        try refuse(Passage(request, caller, gate), decision)
    }

    /// What is not allowed is told, and has not happened.
    func refuse(_ passage: Passage, _ decision: Decision) throws(Errno) -> Never {
        try record(passage, decision, errno: EACCES)
        gate.tell(passage.event(decision, errno: EACCES))
        throw .accessDenied
    }

    /// A file system object of this mount has had another policy before: descriptors may be open that it let pass.
    var hasOlderPolicies: Bool {
        guard let ledger = options.ledger else { return false }
        return ledger.firstPolicy != gate.guardian.generation
    }

    /// Replaces the policy; descriptors that are open are judged by the new one from now on.
    func replacePolicy(_ text: String) throws(Errno) {
        try gate.guardian.replace(text)
        gate.reconsider()
        dropPagesOfOldPolicy()
        var event = Event(.policyReplaced)
        event.add("rules", .number(gate.guardian.policy.rules.count))
        options.events.tell(event)
    }

    /// What the page cache holds would be read without anybody being asked.
    func dropPagesOfOldPolicy() {
        let generation = gate.guardian.generation
        dropPages(of: filesWithPages() + listedDirectories())
        options.ledger?.droppedPolicy = generation
    }

    /// Directories of which the kernel may have a listing.
    private func listedDirectories() -> [NodeID] {
        guard tree.inheritsHolds else { return gate.listed.withLock { Array($0) } }
        var found = [NodeID.root]
        var place = 0
        while place < found.count {
            try? tree.readDirectory(found[place], after: 0, withAttributes: false) { _, entry in
                if entry.type == .directory { found.append(entry.node) }
                return true
            }
            place += 1
        }
        return found
    }
}
