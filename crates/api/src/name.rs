//! What objects, labels and their values may be called. Only checks spelling; never asks whether a name is taken.

use thiserror::Error;

/// The longest DNS label, and the longest label value.
pub const LABEL_LEN_MAX: usize = 63;
/// The longest DNS subdomain.
pub const SUBDOMAIN_LEN_MAX: usize = 253;
/// The longest name of a set: its pods' revision label must still fit.
pub const SET_NAME_LEN_MAX: usize = 52;

/// Why a name is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a name must not be empty")]
    Empty,
    /// More characters than there is room for.
    #[error("{name:?} has {len} characters: at most {len_max} are allowed")]
    TooLong {
        /// What was given.
        name: String,
        /// How many characters it has.
        len: usize,
        /// How many it may have.
        len_max: usize,
    },
    /// A character that names of this sort do not have.
    #[error("{name:?} has the character {found:?}: {allowed} are allowed")]
    BadCharacter {
        /// What was given.
        name: String,
        /// The first character that is wrong.
        found: char,
        /// Which characters may be used.
        allowed: &'static str,
    },
    /// A first or last character that is good inside only.
    #[error("{name:?} must start and end with a letter or a digit, and so must each of its parts")]
    BadEdge {
        /// What was given.
        name: String,
    },
}

const LOWER: &str = "lower-case letters, digits and '-'";
const LOWER_AND_DOT: &str = "lower-case letters, digits, '-' and '.'";
const ANY_CASE: &str = "letters, digits, '-', '_' and '.'";

/// Checks the name of a set: a DNS label that leaves room for what its pods are called.
///
/// # Errors
/// If it is no such name.
pub fn check_set_name(name: &str) -> Result<(), NameError> {
    check_label(name)?;
    check_len(name, SET_NAME_LEN_MAX)
}

/// Checks a DNS label: namespaces, services, containers, ports, claim templates.
///
/// # Errors
/// If it is no DNS label.
pub fn check_label(name: &str) -> Result<(), NameError> {
    check_len(name, LABEL_LEN_MAX)?;
    check_part(name, name, LOWER, |c| c == '-' || is_lower_or_digit(c))
}

/// Checks a DNS subdomain: pods, claims, volumes, classes, nodes.
///
/// # Errors
/// If it is no DNS subdomain.
pub fn check_subdomain(name: &str) -> Result<(), NameError> {
    check_len(name, SUBDOMAIN_LEN_MAX)?;
    name.split('.').try_for_each(|part| check_part(name, part, LOWER_AND_DOT, |c| c == '-' || is_lower_or_digit(c)))
}

/// Checks a label's or an annotation's key: a name, with an optional subdomain and `/` before it.
///
/// # Errors
/// If it is no such key.
pub fn check_label_key(key: &str) -> Result<(), NameError> {
    let name = match key.split_once('/') {
        Some((prefix, name)) => {
            check_subdomain(prefix)?;
            name
        }
        None => key,
    };
    check_len(name, LABEL_LEN_MAX)?;
    check_part(key, name, ANY_CASE, is_label_character)
}

/// Checks a label's value; it may be empty.
///
/// # Errors
/// If it is no such value.
pub fn check_label_value(value: &str) -> Result<(), NameError> {
    if value.is_empty() {
        return Ok(());
    }
    check_len(value, LABEL_LEN_MAX)?;
    check_part(value, value, ANY_CASE, is_label_character)
}

fn check_len(name: &str, len_max: usize) -> Result<(), NameError> {
    let len = name.chars().count();
    match len {
        0 => Err(NameError::Empty),
        _ if len <= len_max => Ok(()),
        _ => Err(NameError::TooLong { name: name.to_owned(), len, len_max }),
    }
}

fn check_part(name: &str, part: &str, allowed: &'static str, is_good: fn(char) -> bool) -> Result<(), NameError> {
    if let Some(found) = part.chars().find(|&c| !is_good(c)) {
        return Err(NameError::BadCharacter { name: name.to_owned(), found, allowed });
    }
    let starts_well = part.starts_with(|c: char| c.is_ascii_alphanumeric());
    let ends_well = part.ends_with(|c: char| c.is_ascii_alphanumeric());
    if starts_well && ends_well { Ok(()) } else { Err(NameError::BadEdge { name: name.to_owned() }) }
}

const fn is_lower_or_digit(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

const fn is_label_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    type Check = fn(&str) -> Result<(), NameError>;

    #[test]
    fn good_names_pass() {
        let table: [(Check, &[&str]); 5] = [
            (check_set_name, &["web", "a", "0-9", &"a".repeat(52)]),
            (check_label, &["www", "web-0", &"a".repeat(63)]),
            (check_subdomain, &["web-0", "n1.example.com", &"a".repeat(253)]),
            (check_label_key, &["app", "app.kubernetes.io/name", "A_b.c"]),
            (check_label_value, &["", "Web_1.0"]),
        ];
        for (check, names) in table {
            for name in names {
                assert_eq!(check(name), Ok(()), "{name}");
            }
        }
    }

    /// semantics A13-186, A13-187.
    #[test]
    fn bad_names_are_refused() {
        let table: [(Check, &[&str]); 5] = [
            (check_set_name, &["", "Web", "web_1", "-web", "web-", "a.b", "wéb", &"a".repeat(53)]),
            (check_label, &["", "a b", &"a".repeat(64)]),
            (check_subdomain, &["", ".", "a..b", "a.", "a.-b", "A", &"a".repeat(254)]),
            (check_label_key, &["", "/", "a/", "/a", "a/b/c", "_a", "A/b"]),
            (check_label_value, &["-", "a b", "ä", &"a".repeat(64)]),
        ];
        for (check, names) in table {
            for name in names {
                assert!(check(name).is_err(), "{name}");
            }
        }
    }
}
