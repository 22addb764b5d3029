//! The text of a manifest: where its documents begin, and what its author probably meant where it is no YAML.
//!
//! Owns guesses about syntax, each tried before it is told; never looks at what a document means.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use prost::Message as _;

use super::node::{Node, Place};
use super::reader::Finding;

/// How many mistakes of syntax are looked for in one document.
const MENDS_MAX: usize = 16;

/// One document of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// How many lines stand before it.
    pub(super) lines_before: u64,
    pub(super) text: String,
}

/// Cuts a file at its `---` lines.
pub(super) fn split(text: &str) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut chunk = Chunk { lines_before: 0, text: String::new() };
    for (line, lines_before) in text.trim_start_matches('\u{feff}').split_inclusive('\n').zip(0..) {
        let after_marker =
            line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if let Some(rest) = after_marker {
            chunks.push(chunk);
            // Blanks in place of the marker keep the columns right.
            chunk = Chunk { lines_before, text: format!("   {rest}") };
        } else if line.trim_end() == "..." || line.starts_with('%') {
            // The end of a document, or a directive: a line that says nothing of its own.
            chunk.text.push('\n');
        } else {
            chunk.text.push_str(line);
        }
    }
    chunks.push(chunk);
    chunks.retain(|chunk| chunk.text.lines().any(says_something));
    chunks
}

fn says_something(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with('#')
}

/// Reads a document, mending what can be mended; every mend is a finding.
pub(super) fn read(text: &str) -> (Option<Node>, Vec<Finding>) {
    let mut text = text.to_owned();
    let mut findings = Vec::new();
    loop {
        let error = match Node::parse(&text) {
            Ok(node) => return (Some(node), findings),
            Err(error) => error,
        };
        let place = error.location().map_or(Place { line: 1, column: 1 }, Place::from);
        let mend = if findings.len() < MENDS_MAX { find_mend(&text, place) } else { None };
        if let Some(mend) = mend {
            findings.push(mend.finding);
            text = mend.text;
        } else {
            let message = format!("this is no YAML: {}", plain_message(&error));
            findings.push(Finding { place, path: String::new(), message, hint: None });
            return (None, findings);
        }
    }
}

/// The parser's message, without the place, which we tell ourselves.
fn plain_message(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let line = text.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    let without_place = match (line.strip_prefix("line "), line.split_once(": ")) {
        (Some(_), Some((_, message))) => message,
        _ => line,
    };
    without_place.split(" at line ").next().unwrap_or(without_place).to_owned()
}

/// A document with one mistake less.
struct Mend {
    text: String,
    finding: Finding,
}

/// The first change of one line after which the document can be read, or at least further than to `failed_at`.
fn find_mend(text: &str, failed_at: Place) -> Option<Mend> {
    let lines: Vec<&str> = text.lines().collect();
    let mut block_indent = None;
    for (index, line) in lines.iter().enumerate() {
        let indent = indent_of(line);
        if block_indent.is_some_and(|block| !says_something(line) || block < indent) {
            continue;
        }
        block_indent = opens_block_scalar(line).then_some(indent);
        let next = lines[index + 1..].iter().find(|line| says_something(line));
        for (mended, message) in guesses(line, next.copied()) {
            let text = replaced(&lines, index, &mended);
            let reads_further = match Node::parse(&text) {
                Ok(_) => true,
                Err(error) => error.location().is_some_and(|location| failed_at < Place::from(location)),
            };
            if reads_further {
                let column = line.chars().take_while(|&c| c.is_whitespace() || c == '-').count() as u64 + 1;
                let place = Place { line: index as u64 + 1, column };
                return Some(Mend { text, finding: Finding { place, path: String::new(), message, hint: None } });
            }
        }
    }
    None
}

fn replaced(lines: &[&str], index: usize, line: &str) -> String {
    let mut lines = lines.to_vec();
    lines[index] = line;
    lines.join("\n") + "\n"
}

fn indent_of(line: &str) -> usize {
    line.chars().take_while(|c| c.is_whitespace()).count()
}

/// Whether the lines that follow are text: `command: |`.
fn opens_block_scalar(line: &str) -> bool {
    let mut words = line.split(" #").next().unwrap_or(line).split_whitespace().rev();
    let is_header = words.next().is_some_and(|word| {
        word.starts_with(['|', '>']) && word[1..].chars().all(|c| c.is_ascii_digit() || matches!(c, '+' | '-'))
    });
    is_header && words.next().is_some_and(|word| word.ends_with(':') || word == "-")
}

/// What a line may have been meant to be, each with what is wrong with it.
fn guesses(line: &str, next: Option<&str>) -> Vec<(String, String)> {
    let mut guesses = Vec::new();
    let content_at = line.find(|c: char| !c.is_whitespace() && c != '-').unwrap_or(line.len());
    let (lead, content) = line.split_at(content_at);
    let content = content.split(" #").next().unwrap_or(content).trim_end();
    if lead.contains('\t') {
        let mended = format!("{}{content}", lead.replace('\t', "  "));
        guesses.push((mended, "the line is indented with a tab: YAML takes only spaces".to_owned()));
    }
    let opens_block = next.is_some_and(|next| {
        let is_item = next.trim_start().starts_with("- ");
        lead.chars().count() < indent_of(next) || (is_item && lead.chars().count() <= indent_of(next))
    });
    if is_word(content) && opens_block {
        guesses.push((format!("{lead}{content}:"), format!("`{content}` needs a colon: `{content}:`")));
    }
    if let Some((word, value)) = content.split_once(' ')
        && is_field(word)
    {
        let meant = format!("{word}: {}", value.trim_start());
        guesses.push((format!("{lead}{meant}"), format!("`{word}` needs a colon: `{meant}`")));
    }
    if let Some((word, value)) = content.split_once(':')
        && is_field(word)
        && !value.is_empty()
        && !value.starts_with(' ')
    {
        let meant = format!("{word}: {value}");
        guesses.push((format!("{lead}{meant}"), format!("`{word}:` needs a space after its colon: `{meant}`")));
    }
    guesses
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
}

/// Whether some object has a field of this name.
fn is_field(word: &str) -> bool {
    static FIELDS: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
        let files = prost_types::FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET)
            .expect("invariant: the build wrote the descriptors");
        let objects = files.file.into_iter().filter(|file| file.name() == "holdfast/v1/objects.proto");
        let fields = objects.flat_map(|file| file.message_type).flat_map(|message| message.field);
        fields.map(|field| field.json_name().to_owned()).collect()
    });
    FIELDS.contains(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_keep_their_line_numbers() {
        let chunks = split("# head\n---\na: 1\n--- # note\n\n---\nb: |\n  x\n  --- y\n...\n---\t\nc: 3");
        let found: Vec<_> = chunks.iter().map(|chunk| (chunk.lines_before, chunk.text.as_str())).collect();
        assert_eq!(found, [(1, "   \na: 1\n"), (5, "   \nb: |\n  x\n  --- y\n\n"), (10, "   \t\nc: 3")]);
    }

    #[test]
    fn likely_intentions_are_told() {
        let table = [
            ("metadata\n  name: x\nkind: y\n", "1:1 `metadata` needs a colon: `metadata:`"),
            ("kind: y\nitems\n- a: b\n- c\n", "2:1 `items` needs a colon: `items:`"),
            ("a: 1\nreplicas 3\nb: 2\n", "2:1 `replicas` needs a colon: `replicas: 3`"),
            ("a: 1\nreplicas:3\nb: 2\n", "2:1 `replicas:` needs a space after its colon: `replicas: 3`"),
            ("l:\n- a: 1\n- name x\n  b: 2\n", "3:3 `name` needs a colon: `name: x`"),
            ("spec:\n\treplicas: 3\n", "2:2 the line is indented with a tab: YAML takes only spaces"),
            ("a: |\n  spec\n    x\nspec\n  b: 1\n", "4:1 `spec` needs a colon: `spec:`"),
        ];
        for (text, expected) in table {
            let (node, findings) = read(text);
            let found: Vec<_> =
                findings.iter().map(|f| format!("{}:{} {}", f.place.line, f.place.column, f.message)).collect();
            assert_eq!(found, [expected], "{text}");
            assert!(node.is_some(), "{text}");
        }
    }

    #[test]
    fn several_mistakes_are_all_told() {
        let (node, findings) = read("metadata\n  name: x\nspec\n  replicas 3\n  serviceName: y\n");
        assert_eq!(findings.iter().map(|finding| finding.place.line).collect::<Vec<_>>(), [1, 3, 4]);
        assert!(node.is_some());
    }

    #[test]
    fn what_cannot_be_mended_is_told_as_it_is() {
        for text in ["a: [1, 2\nb: 3\n", "a: 'x\n", "a: 1\n b: 2\n", "}\n", "a: *b\n"] {
            let (node, findings) = read(text);
            assert!(node.is_none(), "{text}");
            assert_eq!(findings.len(), 1, "{text}");
            assert!(findings[0].message.starts_with("this is no YAML: "), "{text}");
            println!("{text:?} -> {:?} {}", findings[0].place, findings[0].message);
        }
    }
}
