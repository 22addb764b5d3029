//! Manifests: objects as users write them, in YAML or JSON, in Kubernetes' shape.
//!
//! Owns spelling: every field that is unknown, unsupported or of the wrong type is told with its place and the likely
//! intention, all documents are looked at, and nothing is ever ignored. Never checks what values mean.

mod known;
mod node;
mod object;
mod reader;
mod syntax;

use std::collections::BTreeMap;
use std::fmt;

pub use node::Place;
pub use object::{KINDS, Kind, Object, list_to_json, list_to_yaml, to_json, to_yaml};

use node::{Node, Value};
use reader::{Finding, Notes, Reader};

/// Beyond this many, mistakes are not told.
const ERRORS_MAX: usize = 100;

/// An object and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The object.
    pub object: Object,
    /// The line of the file at which it begins, from 1.
    pub line: u64,
    places: BTreeMap<String, Place>,
}

impl Document {
    /// Where a field stands: `spec.template.spec.containers[0].image`. For a field that is not there, where the nearest
    /// field around it stands.
    #[must_use]
    pub fn place(&self, path: &str) -> Place {
        let mut path = path;
        loop {
            if let Some(place) = self.places.get(path) {
                return *place;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return Place { line: self.line, column: 1 },
            }
        }
    }
}

/// One mistake in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ManifestError {
    /// The file, as the caller named it.
    pub file: String,
    /// The line, from 1.
    pub line: u64,
    /// The column, in characters from 1.
    pub column: u64,
    /// The field, such as `spec.template.spec.containers[0].naem`; empty if it is the document.
    pub path: String,
    /// What is wrong, and what was probably meant.
    pub message: String,
    /// What to write instead, where more can be said.
    pub hint: Option<String>,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        if let Some((parent, _)) = self.path.rsplit_once('.') {
            write!(f, " (in {parent})")?;
        }
        Ok(())
    }
}

/// Reads all documents of a file.
///
/// # Errors
/// Every mistake of every document, in the order of the file; then no document is returned.
pub fn parse(file_name: &str, text: &str) -> Result<Vec<Document>, Vec<ManifestError>> {
    let mut documents = Vec::new();
    let mut findings = Vec::new();
    for chunk in syntax::split(text) {
        let mut found = Found::default();
        let (node, mended) = syntax::read(&chunk.text);
        found.findings.extend(mended);
        if let Some(node) = node.filter(|node| !node.is_null()) {
            found.read(&node);
        }
        found.shift(chunk.lines_before);
        documents.extend(found.documents);
        findings.extend(found.findings);
    }
    if documents.is_empty() && findings.is_empty() {
        let place = Place { line: 1, column: 1 };
        findings.push(Finding {
            place,
            path: String::new(),
            message: "there is no object in it".to_owned(),
            hint: None,
        });
    }
    if findings.is_empty() {
        return Ok(documents);
    }
    findings.sort_by_key(|finding| finding.place);
    findings.truncate(ERRORS_MAX);
    Err(findings.into_iter().map(|finding| located(file_name, finding)).collect())
}

fn located(file_name: &str, finding: Finding) -> ManifestError {
    let Finding { place, path, message, hint } = finding;
    ManifestError { file: file_name.to_owned(), line: place.line, column: place.column, path, message, hint }
}

/// What one document holds.
#[derive(Default)]
struct Found {
    documents: Vec<Document>,
    findings: Vec<Finding>,
}

impl Found {
    fn note(&mut self, node: &Node, path: &str, message: String) {
        self.findings.push(Finding { place: node.place, path: path.to_owned(), message, hint: None });
    }

    /// Reads an object, or a list of objects.
    fn read(&mut self, node: &Node) {
        let Value::Map(entries) = &node.value else {
            let message = format!("an object must be a map with apiVersion and kind, not {}", node.describe());
            return self.note(node, "", message);
        };
        let Some((_, kind_node)) = node.entry("kind") else {
            return self.note_missing_kind(node, entries);
        };
        let Value::Text(kind) = &kind_node.value else {
            let message = format!("`kind` must be a string, not {}", kind_node.describe());
            return self.note(kind_node, "kind", message);
        };
        if kind.strip_suffix("List").is_some_and(|item| item.is_empty() || KINDS.iter().any(|known| known.kind == item))
        {
            return self.read_list(node, entries);
        }
        let kind = match KINDS.iter().find(|known| known.kind == *kind) {
            Some(known) => *known,
            None => {
                self.note(kind_node, "kind", known::explain_kind(kind));
                // With the kind that was probably meant, the rest can be looked at, too.
                let meant = known::closest(kind, KINDS.iter().map(|known| known.kind));
                match KINDS.iter().find(|known| Some(known.kind) == meant) {
                    Some(known) if !known::is_kind_elsewhere(kind) => *known,
                    _ => return,
                }
            }
        };
        self.check_api_version(node, kind);
        self.read_object(node, kind);
    }

    fn note_missing_kind(&mut self, node: &Node, entries: &[(Node, Node)]) {
        let misspelt = entries.iter().find(|(key, _)| known::closest(&key.as_key(), ["kind"].into_iter()).is_some());
        match misspelt {
            Some((key, _)) => {
                let name = key.as_key();
                self.note(key, &name, format!("unknown field `{name}`, did you mean `kind`?"));
            }
            None => self.note(node, "kind", "`kind` is missing, such as `kind: StatefulSet`".to_owned()),
        }
    }

    fn check_api_version(&mut self, node: &Node, kind: Kind) {
        let wanted = kind.api_version;
        match node.entry("apiVersion") {
            Some((_, given)) if matches!(&given.value, Value::Text(text) if text == wanted) => {}
            Some((_, given)) => {
                let message = format!("`apiVersion` of a {} must be {wanted:?}, not {}", kind.kind, given.describe());
                self.note(given, "apiVersion", message);
            }
            None => self.note(node, "apiVersion", format!("`apiVersion` is missing: `apiVersion: {wanted}`")),
        }
    }

    fn read_list(&mut self, node: &Node, entries: &[(Node, Node)]) {
        for (key, _) in entries {
            let name = key.as_key();
            if !["apiVersion", "kind", "metadata", "items"].contains(&name.as_str()) {
                self.note(key, &name, format!("unknown field `{name}`"));
            }
        }
        match node.entry("items") {
            Some((_, Node { value: Value::List(items), .. })) => items.iter().for_each(|item| self.read(item)),
            Some((_, items)) if !items.is_null() => {
                self.note(items, "items", format!("`items` must be a list, not {}", items.describe()));
            }
            _ => {}
        }
    }

    fn read_object(&mut self, node: &Node, kind: Kind) {
        let notes = Notes::default();
        let object = match Object::read(kind.kind, Reader::new(node, String::new(), &notes)) {
            Ok(object) => object.expect("invariant: every kind in KINDS can be read"),
            Err(error) => return self.note(node, "", error.to_string()),
        };
        self.findings.extend(notes.findings.into_inner());
        let places: BTreeMap<_, _> = notes.places.into_inner().into_iter().collect();
        let document = Document { object, line: node.place.line, places };
        self.check_template(&document);
        self.documents.push(document);
    }

    /// A pod may have a node, which its set's template may not ask for.
    fn check_template(&mut self, document: &Document) {
        let path = "spec.template.spec.nodeName";
        if matches!(document.object, Object::StatefulSet(_))
            && let Some(place) = document.places.get(path)
        {
            let message = "`nodeName` is known to Kubernetes, not supported here".to_owned();
            self.findings.push(Finding { place: *place, path: path.to_owned(), message, hint: None });
        }
    }

    /// Moves everything down, to where the document stands in its file.
    fn shift(&mut self, lines: u64) {
        for finding in &mut self.findings {
            finding.place.line += lines;
        }
        for document in &mut self.documents {
            document.line += lines;
            document.places.values_mut().for_each(|place| place.line += lines);
        }
    }
}

#[cfg(test)]
mod tests;
