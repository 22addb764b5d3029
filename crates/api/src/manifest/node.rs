//! YAML as a tree in which every value knows its place. Only reads; never asks what a value means.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Location, Options, Spanned};

/// A place in a file; lines and columns count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        Self { line: location.line(), column: location.column() }
    }
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Place,
}

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file, duplicates included.
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// Reads one document.
    pub(super) fn parse(text: &str) -> Result<Self, serde_saphyr::Error> {
        serde_saphyr::from_str_with_options(text, options())
    }

    /// The key of an entry, as text.
    pub(super) fn as_key(&self) -> String {
        match &self.value {
            Value::Text(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Null | Value::List(_) | Value::Map(_) => String::new(),
        }
    }

    /// The entry of a map: the key's node and the value's.
    pub(super) fn entry(&self, key: &str) -> Option<(&Self, &Self)> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|(name, _)| name.as_key() == key).map(|(name, value)| (name, value))
    }

    /// Whether it holds nothing.
    pub(super) const fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// Whether it is a list or a map.
    pub(super) const fn has_parts(&self) -> bool {
        matches!(self.value, Value::List(_) | Value::Map(_))
    }

    /// What it is, for messages.
    pub(super) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(flag) => format!("the boolean {flag}"),
            Value::Integer(number) => format!("the number {number}"),
            Value::Float(number) => format!("the number {number}"),
            Value::Text(text) => format!("the string {text:?}"),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        }
    }
}

/// Beyond this many values that come from aliases, a document is refused.
const ALIASED_VALUES_MAX: usize = 50_000;

/// `yes` and `no` are words, `0644` is octal, and a doubled key is for the reader to see.
fn options() -> Options {
    serde_saphyr::options! {
        strict_booleans: true,
        legacy_octal_numbers: true,
        underscored_numbers_as_strings: true,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: ALIASED_VALUES_MAX },
        with_snippet: false,
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { value: spanned.value, place: spanned.referenced.into() })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Integer(number.into()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Integer(number.into()))
    }

    fn visit_i128<E: Error>(self, number: i128) -> Result<Value, E> {
        Ok(Value::Integer(number))
    }

    fn visit_u128<E: Error>(self, number: u128) -> Result<Value, E> {
        Ok(i128::try_from(number).map_or_else(|_| Value::Text(number.to_string()), Value::Integer))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<'a>(node: &'a Node, path: &[&str]) -> &'a Node {
        path.iter().fold(node, |node, key| node.entry(key).unwrap().1)
    }

    #[test]
    fn every_value_knows_its_place() {
        let node = Node::parse("a:\n  b: 1\n  c:\n  - x\n  - {y: z}\n").unwrap();
        let (key, value) = node.entry("a").unwrap();
        assert_eq!((key.place, value.place), (Place { line: 1, column: 1 }, Place { line: 2, column: 3 }));
        assert_eq!(at(&node, &["a", "b"]).place, Place { line: 2, column: 6 });
        let Value::List(items) = &at(&node, &["a", "c"]).value else { panic!("a list") };
        assert_eq!(items[1].entry("y").unwrap().1.place, Place { line: 5, column: 9 });
    }

    #[test]
    fn scalars_are_what_kubernetes_reads() {
        let table = [
            ("yes", "the string \"yes\""),
            ("true", "the boolean true"),
            ("0644", "the number 420"),
            ("5", "the number 5"),
            ("-5", "the number -5"),
            ("1.5", "the number 1.5"),
            ("\"5\"", "the string \"5\""),
            ("1_000", "the string \"1_000\""),
            ("1Gi", "the string \"1Gi\""),
            ("~", "nothing"),
            ("", "nothing"),
            ("2024-05-01T12:00:00Z", "the string \"2024-05-01T12:00:00Z\""),
        ];
        for (text, described) in table {
            let node = Node::parse(&format!("a: {text}\n")).unwrap();
            assert_eq!(at(&node, &["a"]).describe(), described, "{text}");
        }
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut text = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (name, before) in
            ["b", "c", "d", "e", "f", "g", "h", "i"].into_iter().zip(["a", "b", "c", "d", "e", "f", "g", "h"])
        {
            text.push_str(&format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 10].join(", ")));
        }
        assert!(Node::parse(&text).is_err());
    }
}
