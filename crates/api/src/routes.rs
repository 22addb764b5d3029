//! The text that says by which way a process reaches each server: a line `ID=HOST:PORT` for each.
//! Words only; reads no file and connects nowhere.

use std::collections::BTreeMap;

/// Understands a text of routes.
///
/// # Errors
/// The sentence that says which line is none.
pub fn from_text(text: &str) -> Result<BTreeMap<u64, String>, String> {
    text.lines().filter(|line| !line.trim().is_empty()).map(one_from_text).collect()
}

/// Understands one route.
///
/// # Errors
/// The sentence that says what is wrong.
pub fn one_from_text(text: &str) -> Result<(u64, String), String> {
    let parts =
        text.split_once('=').and_then(|(id, address)| Some((id.trim().parse().ok()?, address.trim().to_owned())));
    parts.ok_or_else(|| format!("{text:?} is not ID=HOST:PORT"))
}

/// The text of routes.
#[must_use]
pub fn to_text<A: std::fmt::Display>(routes: &BTreeMap<u64, A>) -> String {
    routes.iter().map(|(id, address)| format!("{id}={address}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_as_they_are_written() {
        let routes: BTreeMap<u64, String> = [(1, "10.0.0.1:7000".to_owned()), (12, "host:1".to_owned())].into();
        assert_eq!(from_text(&to_text(&routes)), Ok(routes));
        assert_eq!(from_text("\n"), Ok(BTreeMap::new()));
        assert!(from_text("1=a:1\nx=b:2\n").unwrap_err().contains("x=b:2"));
    }
}
