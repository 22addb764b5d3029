//! The only place that writes to the terminal: data to stdout, everything else to stderr; tables, ages, words.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::CliError;

/// The gap between two columns.
const GAP: usize = 3;
/// What a table shows where there is nothing.
pub(crate) const NONE: &str = "<none>";

static IS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Writes data, as it is.
pub(crate) fn data(bytes: &[u8]) {
    let mut stdout = io::stdout().lock();
    // A closed pipe is the reader's wish to have no more; endless verbs ask for it with `is_closed`.
    if stdout.write_all(bytes).and_then(|()| stdout.flush()).is_err() {
        IS_CLOSED.store(true, Ordering::Relaxed);
    }
}

/// Writes a line of data.
pub(crate) fn line(text: impl AsRef<str>) {
    data(format!("{}\n", text.as_ref()).as_bytes());
}

/// Whether nobody reads what is written any more.
pub(crate) fn is_closed() -> bool {
    IS_CLOSED.load(Ordering::Relaxed)
}

/// Writes a line that is no data: progress, warnings.
pub(crate) fn note(text: impl AsRef<str>) {
    // Nothing can be told about a stderr that cannot be written to.
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}

/// Writes to stderr, as it is.
pub(crate) fn error_data(bytes: &[u8]) {
    // Nothing can be told about a stderr that cannot be written to.
    let _ = io::stderr().lock().write_all(bytes);
}

/// Writes why a verb failed, and what to try next.
pub(crate) fn error(error: &CliError) {
    if !error.message.is_empty() {
        note(format!("error: {}", error.message));
    }
    if let Some(hint) = &error.hint {
        note(format!("hint: {hint}"));
    }
}

/// A table: a header in capitals, columns as wide as they must be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Self {
        Self { header: header.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row; nothing shows as `<none>`.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        let or_none = |cell: String| if cell.is_empty() { NONE.to_owned() } else { cell };
        self.rows.push(cells.into_iter().map(or_none).collect());
    }

    /// How wide each column is, at least as wide as it was.
    pub(crate) fn widths(&self, at_least: &[usize]) -> Vec<usize> {
        let mut widths: Vec<usize> = at_least.to_vec();
        for row in std::iter::once(&self.header).chain(&self.rows) {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        widths
    }

    /// The table as text.
    pub(crate) fn render(&self, widths: &[usize], has_header: bool) -> String {
        let mut text = String::new();
        for row in has_header.then_some(&self.header).into_iter().chain(&self.rows) {
            let start = text.len();
            for (cell, &width) in row.iter().zip(widths) {
                text.push_str(cell);
                text.extend(std::iter::repeat_n(' ', width + GAP - cell.chars().count()));
            }
            text.truncate(start + text[start..].trim_end().len());
            text.push('\n');
        }
        text
    }

    /// Writes the table, header and all.
    pub(crate) fn print(&self) {
        data(self.render(&self.widths(&[]), true).as_bytes());
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// An amount of storage as people read it: three digits say enough.
pub(crate) fn size(bytes: u64) -> String {
    const UNIT: u64 = 1024;
    let (mut unit, mut suffix) = (1, "");
    for larger in ["Ki", "Mi", "Gi", "Ti", "Pi"] {
        if bytes / unit < UNIT {
            break;
        }
        (unit, suffix) = (unit * UNIT, larger);
    }
    let (whole, tenth) = (bytes / unit, bytes % unit * 10 / unit);
    if whole < 10 && 1 < unit { format!("{whole}.{tenth}{suffix}") } else { format!("{whole}{suffix}") }
}

/// How long ago a time was, given as objects show it.
pub(crate) fn age(timestamp: &str) -> String {
    match api::time::parse_ms(timestamp) {
        Ok(at_ms) => duration(now_ms().saturating_sub(at_ms)),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// A length of time in two units at most, as kubectl writes it: 3m12s.
pub(crate) fn duration(ms: u64) -> String {
    let pair = |big: u64, big_unit, small: u64, small_unit| match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit}{small}{small_unit}"),
    };
    let seconds = ms / 1_000;
    let (minutes, hours) = (seconds / 60, seconds / 3_600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, "d", hours % 24, "h"),
        _ if years < 2 => format!("{days}d"),
        _ if years < 8 => pair(years, "y", days % 365, "d"),
        _ => format!("{years}y"),
    }
}

/// Reads a length of time: 500ms, 60s, 2m, 1h, 1m30s, or plain seconds.
pub(crate) fn parse_duration(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no length of time: write it like 500ms, 60s, 2m or 1h");
    if let Ok(seconds) = text.parse::<u64>() {
        return seconds.checked_mul(1_000).ok_or_else(wrong);
    }
    let (mut rest, mut total) = (text, 0u64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let count: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = &rest[..rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len())];
        rest = &rest[unit.len()..];
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        total = count.checked_mul(unit_ms).and_then(|ms| total.checked_add(ms)).ok_or_else(wrong)?;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_kubectl_writes_them() {
        let table = [
            (0, "0s"),
            (119_999, "119s"),
            (192_000, "3m12s"),
            (180_000, "3m"),
            (3_600_000, "60m"),
            (11_000_000, "3h3m"),
            (90_000_000, "25h"),
            (180_000_000, "2d2h"),
            (864_000_000, "10d"),
        ];
        for (ms, text) in table {
            assert_eq!(duration(ms), text);
        }
    }

    #[test]
    fn durations_are_read() {
        let good = [("5", 5_000), ("500ms", 500), ("60s", 60_000), ("1m30s", 90_000), ("1h", 3_600_000)];
        for (text, ms) in good {
            assert_eq!(parse_duration(text), Ok(ms), "{text}");
        }
        for text in ["", "s", "5x", "-1s", "1.5s", "m5"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_table_is_as_wide_as_it_must_be() {
        let mut table = Table::new(["NAME", "AGE"]);
        table.row(vec!["web-0".into(), "3s".into()]);
        table.row(vec!["a".into(), String::new()]);
        assert_eq!(table.render(&table.widths(&[]), true), "NAME    AGE\nweb-0   3s\na       <none>\n");
    }
}
