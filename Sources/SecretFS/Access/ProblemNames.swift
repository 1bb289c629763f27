public import SecretTree

extension NodePaths {
    /// What is damaged, by the paths of the files that it concerns where there are any.
    func named(_ problems: [Problem]) -> [String] {
        problems.map { problem in
            guard let path = problem.node.flatMap(path) else { return problem.description }
            return String(decoding: path, as: UTF8.self) + ": " + problem.description
        }
    }
}

extension SecretTree {
    /// What is damaged in a tree that nobody serves, as `status` would say it.
    public func named(_ problems: [Problem]) -> [String] { NodePaths(self).named(problems) }
}
