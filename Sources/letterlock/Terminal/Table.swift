/// Columns of text for a reader, each as wide as its widest cell.
struct Table {
    private var rows: [[String]]

    init(header: [String]? = nil) { rows = header.map { [$0] } ?? [] }

    mutating func add(_ row: [String]) { rows.append(row.map(Output.printable)) }

    var lines: [String] {
        let columnCount = rows.map(\.count).max() ?? 0
        let widths = (0..<columnCount).map { column in
            rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0
        }
        return rows.map { row in
            var line = ""
            for (column, cell) in row.enumerated() {
                line += cell
                guard column < row.count - 1 else { break }
                line += String(repeating: " ", count: widths[column] - cell.count + 2)
            }
            while line.last == " " { line.removeLast() }
            return line
        }
    }

    func show() {
        for line in lines { Output.line(line) }
    }
}
