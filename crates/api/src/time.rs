//! Times as objects show them: milliseconds since 1970 inside, RFC 3339 in UTC outside. Never asks a clock.

use jiff::Timestamp;
use thiserror::Error;

/// Why a text is no time.
#[derive(Debug, Error)]
pub enum TimeError {
    /// Not RFC 3339.
    #[error("{text:?} is no time: write it like 2024-05-01T12:00:00Z")]
    NotRfc3339 {
        /// What was given.
        text: String,
        /// What the parser says.
        source: jiff::Error,
    },
    /// Before the count begins.
    #[error("{text:?} is before 1970")]
    Before1970 {
        /// What was given.
        text: String,
    },
}

/// Writes a time: "2024-05-01T12:00:00Z", with milliseconds where there are any. Times beyond the year 9999 show as its end.
#[must_use]
pub fn format_ms(ms_since_epoch: u64) -> String {
    let ms = i64::try_from(ms_since_epoch).unwrap_or(i64::MAX);
    let timestamp = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
    if ms_since_epoch.is_multiple_of(1000) { format!("{timestamp:.0}") } else { format!("{timestamp:.3}") }
}

/// Reads a time with any offset; what is finer than a millisecond is cut.
///
/// # Errors
/// If `text` is not RFC 3339, or before 1970.
pub fn parse_ms(text: &str) -> Result<u64, TimeError> {
    let timestamp: Timestamp =
        text.parse().map_err(|source| TimeError::NotRfc3339 { text: text.to_owned(), source })?;
    u64::try_from(timestamp.as_millisecond()).map_err(|_| TimeError::Before1970 { text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_back() {
        let table = [
            (0, "1970-01-01T00:00:00Z"),
            (1_714_564_800_000, "2024-05-01T12:00:00Z"),
            (1_714_564_800_007, "2024-05-01T12:00:00.007Z"),
        ];
        for (ms, text) in table {
            assert_eq!(format_ms(ms), text);
            assert_eq!(parse_ms(text).unwrap(), ms);
        }
        assert!(format_ms(u64::MAX).starts_with("9999-12-3"));
    }

    #[test]
    fn offsets_are_read() {
        assert_eq!(parse_ms("2024-05-01T14:00:00+02:00").unwrap(), 1_714_564_800_000);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "yesterday", "2024-05-01", "1714564800000"] {
            assert!(matches!(parse_ms(text), Err(TimeError::NotRfc3339 { .. })), "{text}");
        }
        assert!(matches!(parse_ms("1969-12-31T23:59:59Z"), Err(TimeError::Before1970 { .. })));
    }
}
