//! Kubernetes' quantities: "250m" of cpu, "1Gi" of memory or storage. Rounds up as Kubernetes does; never takes negatives.

use thiserror::Error;

/// Why a text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// It does not start with a number.
    #[error("{text:?} is no quantity: write a number and an optional suffix, such as 250m, 2, 500M or 1Gi")]
    NoNumber {
        /// What was given.
        text: String,
    },
    /// What follows the number is not one of the suffixes.
    #[error(
        "{text:?} is no quantity: the suffix {suffix:?} is none of n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei"
    )]
    UnknownSuffix {
        /// What was given.
        text: String,
        /// What follows the number.
        suffix: String,
    },
    /// Less than nothing.
    #[error("{text:?} is negative: a quantity must not be")]
    Negative {
        /// What was given.
        text: String,
    },
    /// More than can be counted.
    #[error("{text:?} is too large a quantity")]
    TooLarge {
        /// What was given.
        text: String,
    },
}

const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// Digits beyond this many cannot matter for a 64-bit count.
const DIGITS_MAX: usize = 24;

/// Reads an amount of cpu, in thousandths of one.
///
/// # Errors
/// If `text` is no quantity, negative, or too large.
pub fn parse_cpu_milli(text: &str) -> Result<u64, QuantityError> {
    parse(text, 3)
}

/// Reads an amount of memory or storage, in bytes.
///
/// # Errors
/// If `text` is no quantity, negative, or too large.
pub fn parse_bytes(text: &str) -> Result<u64, QuantityError> {
    parse(text, 0)
}

/// Writes an amount of cpu as Kubernetes does: "250m", "2".
#[must_use]
pub fn format_cpu_milli(milli: u64) -> String {
    if milli.is_multiple_of(1000) { (milli / 1000).to_string() } else { format!("{milli}m") }
}

/// Writes an amount of memory or storage with the suffix that makes it shortest and loses nothing: "1Gi", "500M", "1500".
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    let binary = BINARY.iter().rev().find(|(_, shift)| bytes.is_multiple_of(1 << shift));
    let decimal =
        DECIMAL[3..].iter().rev().find(|(_, exponent)| bytes.is_multiple_of(10_u64.pow(exponent.unsigned_abs())));
    let binary = binary.map(|(suffix, shift)| format!("{}{suffix}", bytes >> shift));
    let decimal = decimal.map(|(suffix, exponent)| format!("{}{suffix}", bytes / 10_u64.pow(exponent.unsigned_abs())));
    match (bytes, binary, decimal) {
        (0, ..) => "0".to_owned(),
        (_, Some(binary), Some(decimal)) if decimal.len() < binary.len() => decimal,
        (_, Some(binary), _) => binary,
        (_, None, Some(decimal)) => decimal,
        (_, None, None) => bytes.to_string(),
    }
}

/// Reads a quantity, times ten to the power of `scale`.
fn parse(text: &str, scale: i32) -> Result<u64, QuantityError> {
    let too_large = || QuantityError::TooLarge { text: text.to_owned() };
    if text.starts_with('-') {
        return Err(QuantityError::Negative { text: text.to_owned() });
    }
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    let number_len = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(number_len);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || fraction.contains('.') {
        return Err(QuantityError::NoNumber { text: text.to_owned() });
    }
    let significant = digits.trim_start_matches('0');
    if DIGITS_MAX < significant.len() {
        return Err(too_large());
    }
    let mantissa: u128 = if significant.is_empty() { 0 } else { significant.parse().map_err(|_| too_large())? };
    let (exponent, shift) = parse_suffix(suffix)
        .ok_or_else(|| QuantityError::UnknownSuffix { text: text.to_owned(), suffix: suffix.to_owned() })?;
    let fraction_digits = i32::try_from(fraction.len()).map_err(|_| too_large())?;
    let exponent = exponent.saturating_add(scale).saturating_sub(fraction_digits);
    scaled(mantissa, exponent, shift).ok_or_else(too_large)
}

/// What a suffix stands for: a power of ten and a power of two.
fn parse_suffix(suffix: &str) -> Option<(i32, u32)> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(known, _)| *known == suffix) {
        return Some((*exponent, 0));
    }
    if let Some((_, shift)) = BINARY.iter().find(|(known, _)| *known == suffix) {
        return Some((0, *shift));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    exponent.parse().ok().map(|exponent| (exponent, 0))
}

/// The mantissa times ten to the `exponent` times two to the `shift`, rounded up.
fn scaled(mantissa: u128, exponent: i32, shift: u32) -> Option<u64> {
    if mantissa == 0 {
        return Some(0);
    }
    let shifted = mantissa.checked_mul(1_u128 << shift)?;
    let value = match 10_u128.checked_pow(exponent.unsigned_abs()) {
        Some(power) if 0 <= exponent => shifted.checked_mul(power)?,
        Some(power) => shifted.div_ceil(power),
        None if exponent < 0 => 1,
        None => return None,
    };
    u64::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cpu_is_read_in_thousandths_and_rounded_up() {
        let table = [
            ("2", 2000),
            ("250m", 250),
            ("0.5", 500),
            (".5", 500),
            ("1.", 1000),
            ("+1", 1000),
            ("1k", 1_000_000),
            ("1e2", 100_000),
            ("1E-1", 100),
            ("100u", 1),
            ("1n", 1),
            ("0", 0),
            ("0m", 0),
            ("00.10", 100),
            ("1.0005", 1001),
            ("1e-999", 1),
        ];
        for (text, milli) in table {
            assert_eq!(parse_cpu_milli(text), Ok(milli), "{text}");
        }
    }

    #[test]
    fn bytes_are_read_with_every_suffix() {
        let table = [
            ("1Gi", 1 << 30),
            ("1.5Gi", 3 << 29),
            ("128Mi", 128 << 20),
            ("4Ki", 4096),
            ("1Ti", 1 << 40),
            ("1Pi", 1 << 50),
            ("1Ei", 1 << 60),
            ("500M", 500_000_000),
            ("1k", 1000),
            ("1E", 10_u64.pow(18)),
            ("1E3", 1000),
            ("1500m", 2),
            ("1073741824", 1 << 30),
            ("0", 0),
            ("0e99", 0),
        ];
        for (text, bytes) in table {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused_with_the_reason() {
        for text in ["", "Gi", "one", ".", "1.2.3", " 1"] {
            assert_eq!(parse_bytes(text), Err(QuantityError::NoNumber { text: text.into() }), "{text}");
        }
        for (text, suffix) in [("1GB", "GB"), ("1gi", "gi"), ("1 Gi", " Gi"), ("1e", "e"), ("1K", "K"), ("5-", "-")] {
            let expected = QuantityError::UnknownSuffix { text: text.into(), suffix: suffix.into() };
            assert_eq!(parse_bytes(text), Err(expected), "{text}");
        }
        for text in ["16Ei", "1e20", "99999999999999999999999999", "1e999"] {
            assert_eq!(parse_bytes(text), Err(QuantityError::TooLarge { text: text.into() }), "{text}");
        }
        assert_eq!(parse_bytes("-1"), Err(QuantityError::Negative { text: "-1".into() }));
    }

    #[test]
    fn amounts_are_written_in_their_shortest_exact_form() {
        let table = [
            (0, "0"),
            (1, "1"),
            (1000, "1k"),
            (1024, "1Ki"),
            (1 << 30, "1Gi"),
            (3 << 29, "1536Mi"),
            (500_000_000, "500M"),
            (128_000, "128k"),
            (1_500, "1500"),
            (u64::MAX, "18446744073709551615"),
        ];
        for (bytes, text) in table {
            assert_eq!(format_bytes(bytes), text);
        }
        for (milli, text) in [(0, "0"), (250, "250m"), (1000, "1"), (1500, "1500m")] {
            assert_eq!(format_cpu_milli(milli), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(amount: u64) {
            prop_assert_eq!(parse_bytes(&format_bytes(amount)), Ok(amount));
            prop_assert_eq!(parse_cpu_milli(&format_cpu_milli(amount)), Ok(amount));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-+0-9.eEKMGTPimnu]{0,30}") {
            let _ = parse_bytes(&text);
        }
    }
}
