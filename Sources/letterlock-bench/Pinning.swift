import Glibc

/// Client and server on one core: the figures that do not depend on which core the scheduler wakes up.
enum Pinning {
    static func pin(_ processes: [pid_t]) { set(processes, mask: 1) }
    static func release(_ processes: [pid_t]) { set(processes, mask: .max) }

    private static func set(_ processes: [pid_t], mask: UInt64) {
        var words = [UInt64](repeating: mask == 1 ? 0 : .max, count: MemoryLayout<cpu_set_t>.size / 8)
        words[0] = mask
        for process in processes {
            for thread in threads(of: process) {
                words.withUnsafeBytes { bytes in
                    _ = sched_setaffinity(
                        thread, bytes.count, bytes.baseAddress!.assumingMemoryBound(to: cpu_set_t.self))
                }
            }
        }
    }

    private static func threads(of process: pid_t) -> [pid_t] {
        guard let stream = opendir("/proc/\(process)/task") else { return [] }
        defer { closedir(stream) }
        var threads: [pid_t] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if let thread = pid_t(name) { threads.append(thread) }
        }
        return threads
    }
}
