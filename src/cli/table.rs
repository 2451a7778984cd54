//! What is a table for people, as `kubectl get` prints it, and a document for scripts.

use std::io::{self, Write};

/// How it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    /// Aligned columns, for people
    Table,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
}

/// Without control characters: a terminal obeys them, and much of what is shown was written by others.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Writes the rows under their headings, each column as wide as its longest cell; the last one is not padded.
pub(super) fn write<const N: usize>(out: &mut impl Write, headings: [&str; N], rows: &[[String; N]]) -> io::Result<()> {
    let headings = headings.map(str::to_owned);
    let all = || std::iter::once(&headings).chain(rows);
    let mut widths = [0; N];
    for row in all() {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in all() {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{:<width$}", printable(cell))).collect();
        writeln!(out, "{}", cells.join("   ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_as_wide_as_their_longest_cell_in_letters() {
        let mut out = Vec::new();
        let rows = [["ä".to_owned(), "x".to_owned()], ["long".to_owned(), String::new()]];
        super::write(&mut out, ["A", "B"], &rows).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "A      B\nä      x\nlong\n");
    }
}
