import Access
import Glibc
import Keyring
import SecretTree

/// The page of `metrics`, in Prometheus' text format.
struct MetricsText {
    enum Kind: String { case counter, gauge, histogram }

    private(set) var text = ""

    /// Begins a metric; its samples follow.
    mutating func begin(_ name: String, _ kind: Kind, _ help: String) {
        text += "# HELP letterlock_\(name) \(help)\n# TYPE letterlock_\(name) \(kind.rawValue)\n"
    }

    mutating func sample(_ name: String, _ labels: [(name: String, value: String)], _ value: String) {
        text += "letterlock_" + name
        if !labels.isEmpty {
            let pairs = labels.map { "\($0.name)=\"\(Self.escaped($0.value))\"" }
            text += "{" + pairs.joined(separator: ",") + "}"
        }
        text += " " + value + "\n"
    }

    mutating func sample(_ name: String, _ value: some BinaryInteger) { sample(name, [], String(value)) }

    mutating func sample(_ name: String, _ labels: [(name: String, value: String)], _ value: some BinaryInteger) {
        sample(name, labels, String(value))
    }

    /// One series of a histogram.
    ///
    /// - Parameter counts: By bucket, one more than there are bounds; not summed up.
    mutating func add(
        _ name: String, _ labels: [(name: String, value: String)], _ bounds: [Double], _ counts: [Int], sum: Double
    ) {
        var total = 0
        for (bound, count) in zip(bounds.map { "\($0)" } + ["+Inf"], counts) {
            total += count
            sample(name + "_bucket", labels + [("le", bound)], total)
        }
        sample(name + "_sum", labels, "\(sum)")
        sample(name + "_count", labels, total)
    }

    private static func escaped(_ value: String) -> String {
        value.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
    }
}

extension SecretFS {
    var metricsText: String {
        var page = MetricsText()
        addServer(to: &page)
        addKeys(to: &page)
        addJobs(to: &page)
        addAccesses(to: &page)
        addCaches(to: &page)
        addKeyServices(to: &page)
        hooks.add(to: &page)
        return page.text
    }

    private func addServer(to page: inout MetricsText) {
        page.begin("build_info", .gauge, "The version that serves, always 1.")
        page.sample(
            "build_info", [("version", options.programVersion), ("keyring", tree.keyring.name)], 1)
        page.begin("start_time_seconds", .gauge, "When this server has started, in seconds since 1970.")
        page.sample("start_time_seconds", started.seconds)
        if let report = options.guardianReport?() {
            page.begin("server_restarts_total", .counter, "Servers that took the place of one that had died.")
            page.sample("server_restarts_total", report.restarts)
        }
        page.begin("files", .gauge, "Files in the keyring.")
        page.sample("files", tree.fileCount)
        page.begin("problems", .gauge, "Things that were found damaged or tampered with.")
        page.sample("problems", tree.problems.count)
        page.begin("audit_enabled", .gauge, "1 if accesses are recorded.")
        page.sample("audit_enabled", gate.audit == nil ? 0 : 1)
        page.begin("audit_failing", .gauge, "1 while the audit log cannot be written.")
        page.sample("audit_failing", (gate.audit?.failure ?? 0) == 0 ? 0 : 1)
        page.add(options.leaseReport?())
        page.begin("audit_failures_total", .counter, "Times that no device has taken a record.")
        page.sample("audit_failures_total", gate.audit?.failureCount ?? 0)
        page.begin("policy_rules", .gauge, "Rules of the policy.")
        page.sample("policy_rules", gate.guardian.policy.rules.count)
    }

    private func addKeys(to page: inout MetricsText) {
        let lifecycle = tree.keyring.lifecycle
        let counts = tree.versionCounts
        let now = Timestamp.now().seconds
        page.begin("kek_files", .gauge, "Files by the KEK version that guards them.")
        for record in lifecycle.versions {
            page.sample(
                "kek_files", [("kek_version", String(record.version.rawValue)), ("state", record.state.name)],
                counts[record.version] ?? 0)
        }
        page.begin("kek_primary_age_seconds", .gauge, "Age of the primary KEK version.")
        page.sample("kek_primary_age_seconds", lifecycle[lifecycle.primary].map { now - $0.created.seconds } ?? 0)
        if let next = lifecycle.nextRotation {
            page.begin(
                "kek_next_rotation_seconds", .gauge, "Seconds to the next automatic rotation, negative if overdue.")
            page.sample("kek_next_rotation_seconds", next.seconds - now)
        }
        let doomed = lifecycle.versions.filter { $0.state == .pendingDestruction && $0.destroyAt != nil }
        guard !doomed.isEmpty else { return }
        page.begin("kek_destruction_seconds", .gauge, "Seconds to the destruction of a KEK version.")
        for record in doomed {
            page.sample(
                "kek_destruction_seconds", [("kek_version", String(record.version.rawValue))],
                (record.destroyAt?.seconds ?? now) - now)
        }
    }

    private func addCaches(to page: inout MetricsText) {
        page.begin("cache_lookups_total", .counter, "What was known already, and what had to be found out.")
        for (name, use) in [("decision", gate.guardian.decisions.use.counts), ("process", gate.processes.use.counts)] {
            page.sample("cache_lookups_total", [("cache", name), ("result", "hit")], use.hits)
            page.sample("cache_lookups_total", [("cache", name), ("result", "miss")], use.misses)
        }
    }

    private func addKeyServices(to page: inout MetricsText) {
        let calls = (options.keyServiceReport?() ?? []).sorted {
            ($0.service, $0.isDone ? 0 : 1) < ($1.service, $1.isDone ? 0 : 1)
        }
        guard !calls.isEmpty else { return }
        page.begin("key_service_calls_total", .counter, "What was asked of key services.")
        func labels(_ call: SecretFSOptions.KeyServiceCalls) -> [(name: String, value: String)] {
            [("service", call.service), ("result", call.isDone ? "ok" : "failed")]
        }
        for call in calls { page.sample("key_service_calls_total", labels(call), call.counts.reduce(0, +)) }
        page.begin("key_service_duration_seconds", .histogram, "How long key services took to answer.")
        for call in calls {
            page.add(
                "key_service_duration_seconds", labels(call), SecretFSOptions.KeyServiceCalls.bounds, call.counts,
                sum: call.seconds)
        }
    }

    private func addJobs(to page: inout MetricsText) {
        let jobs = JobKind.allCases.map { ("\($0)", tree.job($0)) }
        page.begin("job_running", .gauge, "1 while a job runs.")
        for (name, job) in jobs { page.sample("job_running", [("job", name)], job.state == .running ? 1 : 0) }
        page.begin("job_files_done", .gauge, "Files that a job has done.")
        for (name, job) in jobs { page.sample("job_files_done", [("job", name)], job.done) }
        page.begin("job_files_expected", .gauge, "Files that a job has to do.")
        for (name, job) in jobs { page.sample("job_files_expected", [("job", name)], job.total) }
        page.begin("job_files_failed", .gauge, "Files that a job could not do.")
        for (name, job) in jobs { page.sample("job_files_failed", [("job", name)], job.failed) }
    }

    private func addAccesses(to page: inout MetricsText) {
        let counts = meter.counts
        page.begin("operations_total", .counter, "Accesses by kind and result.")
        for (series, count) in counts.operations.sorted(by: { $0.key.order < $1.key.order }) {
            page.sample(
                "operations_total", [("call", series.call.rawValue), ("result", series.result.rawValue)], count)
        }
        page.begin("denials_total", .counter, "Accesses that policy has refused, by rule.")
        // From the beginning, so that the first of them are seen as an increase.
        let policy = gate.guardian.policy
        var rules = Set(counts.denials.keys).union(policy.rules.map(\.name))
        if !policy.isEmpty { rules.insert(Decision.unopposed.rule) }
        for rule in rules.sorted() { page.sample("denials_total", [("rule", rule)], counts.denials[rule] ?? 0) }
        page.begin("operation_duration_seconds", .histogram, "How long accesses took.")
        for (call, histogram) in counts.durations.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
            page.add(
                "operation_duration_seconds", [("call", call.rawValue)], Meter.Histogram.bounds, histogram.counts,
                sum: Double(histogram.nanoseconds) / 1e9)
        }
    }
}

extension Meter.Series {
    fileprivate var order: String { call.rawValue + " " + result.rawValue }
}
