//! What a measurement found, as tables or as JSON.

use serde_json::{Map, Value, json};

use super::machine::Machine;
use crate::print::{self, Table};

/// A measurement's results.
#[derive(Debug)]
pub(super) struct Report {
    bench: &'static str,
    machine: Machine,
    tables: Vec<Rows>,
}

/// Rows of one sort.
#[derive(Debug)]
pub(super) struct Rows {
    name: &'static str,
    /// As the table shows them; JSON has the same in small letters.
    columns: &'static [&'static str],
    rows: Vec<Vec<Cell>>,
}

/// One value.
#[derive(Debug)]
pub(super) enum Cell {
    /// A word.
    Word(String),
    /// A number, shown with so many decimals.
    Number(f64, usize),
}

impl Cell {
    pub(super) fn word(word: impl Into<String>) -> Self {
        Self::Word(word.into())
    }

    pub(super) fn count(count: impl TryInto<u32>) -> Self {
        Self::Number(f64::from(count.try_into().unwrap_or(u32::MAX)), 0)
    }

    fn shown(&self) -> String {
        match self {
            Self::Word(word) => word.clone(),
            Self::Number(number, decimals) => format!("{number:.decimals$}"),
        }
    }

    fn value(&self) -> Value {
        match self {
            Self::Word(word) => json!(word),
            Self::Number(number, 0) => json!(number.round() as i64),
            Self::Number(number, _) => json!(number),
        }
    }
}

impl Rows {
    pub(super) const fn new(name: &'static str, columns: &'static [&'static str]) -> Self {
        Self { name, columns, rows: Vec::new() }
    }

    pub(super) fn push(&mut self, cells: Vec<Cell>) {
        assert_eq!(cells.len(), self.columns.len(), "a cell for every column of {}", self.name);
        self.rows.push(cells);
    }

    fn json(&self) -> Value {
        let key = |column: &str| column.to_lowercase().replace([' ', '/'], "_").replace('%', "percent");
        let row = |cells: &Vec<Cell>| {
            let fields = self.columns.iter().zip(cells).map(|(column, cell)| (key(column), cell.value()));
            Value::Object(fields.collect::<Map<_, _>>())
        };
        self.rows.iter().map(row).collect()
    }
}

impl Report {
    pub(super) const fn new(bench: &'static str, machine: Machine) -> Self {
        Self { bench, machine, tables: Vec::new() }
    }

    #[must_use]
    pub(super) fn with(mut self, rows: Rows) -> Self {
        if !rows.rows.is_empty() {
            self.tables.push(rows);
        }
        self
    }

    pub(super) fn print(&self, as_json: bool) {
        if as_json {
            let mut all = Map::from_iter([
                ("bench".to_owned(), json!(self.bench)),
                ("machine".to_owned(), json!(self.machine.lines().into_iter().collect::<Map<_, _>>())),
            ]);
            all.extend(self.tables.iter().map(|rows| (rows.name.to_owned(), rows.json())));
            print::line(Value::Object(all).to_string());
            return;
        }
        for (what, value) in self.machine.lines() {
            print::line(format!("{what}: {}", value.as_str().unwrap_or_default()));
        }
        for rows in &self.tables {
            let mut table = Table::new(rows.columns.iter().copied());
            rows.rows.iter().for_each(|cells| table.row(cells.iter().map(Cell::shown).collect()));
            print::line("");
            table.print();
        }
    }
}
