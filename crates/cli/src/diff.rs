//! `diff`: what applying manifests would change, as unified differences of YAML. Changes nothing.

use std::path::PathBuf;

use api::manifest::{self, Object};
use serde_json::Value;

use crate::apply::{LAST_APPLIED, apply_one, placed, read_files};
use crate::connect::Session;
use crate::error::CliError;
use crate::fetch::ApplyOptions;
use crate::print;

/// How many equal lines are shown around a difference.
const CONTEXT: usize = 3;

/// Prints the differences; a quiet error if there are any.
pub(crate) async fn diff(session: &Session, files: &[PathBuf], namespace: Option<&str>) -> Result<(), CliError> {
    let mut is_same = true;
    for given in read_files(files, namespace)? {
        let object = given.object();
        let options = ApplyOptions { dry_run: true, ..ApplyOptions::default() };
        let (live, merged, _) = apply_one(session, &given, &options).await.map_err(|error| placed(&given, error))?;
        let (live, merged) = masked(live, merged);
        let old = live.as_ref().map(text).transpose()?.unwrap_or_default();
        let new = text(&merged)?;
        if old != new {
            is_same = false;
            let name = format!("{}.{}.{}", object.kind().kind, object.namespace(), object.name());
            print::data(unified(&name, &old, &new).as_bytes());
        }
    }
    if is_same { Ok(()) } else { Err(CliError::quiet()) }
}

/// Secrets show which of their keys would change, and never what is in them.
fn masked(live: Option<Object>, merged: Object) -> (Option<Object>, Object) {
    let Object::Secret(mut new) = merged else { return (live, merged) };
    let mut old = match live {
        Some(Object::Secret(old)) => Some(old),
        _ => None,
    };
    for (key, value) in &mut new.data {
        let before = old.as_mut().and_then(|old| old.data.get_mut(key));
        let is_same = before.as_ref().is_some_and(|before| **before == *value);
        if let Some(before) = before {
            *before = if is_same { "***" } else { "*** (before)" }.to_owned();
        }
        *value = if is_same { "***" } else { "*** (after)" }.to_owned();
    }
    for (_, value) in old.iter_mut().flat_map(|old| &mut old.data).filter(|(key, _)| !new.data.contains_key(*key)) {
        *value = "***".to_owned();
    }
    (old.map(Object::Secret), Object::Secret(new))
}

/// An object without what the server alone writes.
fn text(object: &Object) -> Result<String, CliError> {
    let mut value = serde_json::to_value(object)?;
    if let Value::Object(fields) = &mut value {
        fields.remove("status");
        if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
            for field in ["uid", "generation", "resourceVersion", "creationTimestamp"] {
                metadata.remove(field);
            }
            if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
                annotations.remove(LAST_APPLIED);
            }
        }
    }
    Ok(manifest::to_yaml(&value)?)
}

/// One line of both texts, or of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line<'a> {
    Same(&'a str),
    Old(&'a str),
    New(&'a str),
}

fn unified(name: &str, old: &str, new: &str) -> String {
    let lines = compare(&old.lines().collect::<Vec<_>>(), &new.lines().collect::<Vec<_>>());
    let mut text = format!("--- LIVE/{name}\n+++ MERGED/{name}\n");
    let (mut old_at, mut new_at, mut index) = (1, 1, 0);
    while index < lines.len() {
        let Some(first) = lines[index..].iter().position(|line| !matches!(line, Line::Same(_))) else { break };
        let skipped = first.saturating_sub(CONTEXT);
        (old_at, new_at, index) = (old_at + skipped, new_at + skipped, index + skipped);
        let end = hunk_end(&lines, index);
        let hunk = &lines[index..end];
        let old_count = hunk.iter().filter(|line| !matches!(line, Line::New(_))).count();
        let new_count = hunk.iter().filter(|line| !matches!(line, Line::Old(_))).count();
        // A side without lines is named by the line before.
        let line = |at: usize, count: usize| if count == 0 { at - 1 } else { at };
        let (old_line, new_line) = (line(old_at, old_count), line(new_at, new_count));
        text.push_str(&format!("@@ -{old_line},{old_count} +{new_line},{new_count} @@\n"));
        for line in hunk {
            let (mark, line) = match line {
                Line::Same(line) => (' ', line),
                Line::Old(line) => ('-', line),
                Line::New(line) => ('+', line),
            };
            text.push_str(&format!("{mark}{line}\n"));
        }
        (old_at, new_at, index) = (old_at + old_count, new_at + new_count, end);
    }
    text
}

/// A hunk goes on while differences are close to each other.
fn hunk_end(lines: &[Line<'_>], start: usize) -> usize {
    let mut end = start;
    for (index, line) in lines.iter().enumerate().skip(start) {
        if !matches!(line, Line::Same(_)) {
            end = index + 1;
        } else if start < end && end + 2 * CONTEXT <= index {
            break;
        }
    }
    (end + CONTEXT).min(lines.len())
}

/// The lines of both texts with as many in common as possible.
fn compare<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let width = new.len() + 1;
    // common[i * width + j]: how many lines old[i..] and new[j..] have in common at most.
    let mut common = vec![0_usize; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(Line::Same(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || i < old.len() && common[i * width + j + 1] <= common[(i + 1) * width + j] {
            lines.push(Line::Old(old[i]));
            i += 1;
        } else {
            lines.push(Line::New(new[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_shown_with_what_is_around_them() {
        let old: String = (1..=20).map(|n| format!("{n}\n")).collect();
        let new = old.replace("\n10\n", "\nten\n").replace("20\n", "");
        let expected = "--- LIVE/x\n+++ MERGED/x\n@@ -7,7 +7,7 @@\n 7\n 8\n 9\n-10\n+ten\n 11\n 12\n 13\n\
                        @@ -17,4 +17,3 @@\n 17\n 18\n 19\n-20\n";
        assert_eq!(unified("x", &old, &new), expected);
        assert_eq!(unified("x", "", "a\n"), "--- LIVE/x\n+++ MERGED/x\n@@ -0,0 +1,1 @@\n+a\n");
    }
}
