use std::fmt;

/// Rows of text under a header, aligned: columns of numbers to the right, others to the left.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

const GAP: usize = 2;

impl Table {
    pub(crate) fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|&name| name.to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn column(&self, column: usize) -> impl Iterator<Item = &str> {
        self.rows.iter().map(move |row| row.get(column).map_or("", String::as_str))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<_> = (0..columns)
            .map(|column| self.column(column).map(|cell| cell.chars().count()).max().unwrap_or(0))
            .collect();
        let numeric: Vec<_> =
            (0..columns).map(|column| self.column(column).skip(1).all(is_number)).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let gap = if column == 0 { 0 } else { GAP };
                let pad = widths[column] - cell.chars().count();
                let (before, after) = if numeric[column] { (pad, 0) } else { (0, pad) };
                line.push_str(&" ".repeat(gap + before));
                line.push_str(cell);
                line.push_str(&" ".repeat(after));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn is_number(cell: &str) -> bool {
    let cell = cell.trim_start_matches(['+', '-']);
    cell.is_empty() || cell.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_right_and_words_left() {
        let mut table = Table::new(&["name", "count", "note"]);
        table.row(["a".into(), "1,000".into(), "long words".into()]);
        table.row(["böse".into(), "-".into(), "x".into()]);
        let expected = "name  count  note\na     1,000  long words\nböse      -  x\n";
        assert_eq!(table.to_string(), expected);
    }
}
