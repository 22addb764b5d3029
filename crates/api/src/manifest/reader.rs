//! Reads an object from a tree and notes everything that is wrong on the way, instead of stopping at the first mistake.
//!
//! Owns what is said about unknown fields and wrong types; never checks what values mean.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde::de::value::{Error, StringDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::known::{closest, has_field_elsewhere};
use super::node::{Node, Place, Value};

/// Something wrong at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) place: Place,
    pub(super) path: String,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

/// What was found while reading.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) findings: RefCell<Vec<Finding>>,
    /// Where every field stands.
    pub(super) places: RefCell<Vec<(String, Place)>>,
}

/// Reads one value.
pub(super) struct Reader<'a> {
    node: &'a Node,
    path: String,
    notes: &'a Notes,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(node: &'a Node, path: String, notes: &'a Notes) -> Self {
        Self { node, path, notes }
    }

    fn note(&self, place: Place, path: String, message: String, hint: Option<String>) {
        self.notes.findings.borrow_mut().push(Finding { place, path, message, hint });
    }

    fn note_wrong_type(&self, wanted: &str) {
        let message = format!("{} must be {wanted}, not {}", field_of(&self.path), self.node.describe());
        let hint = match (&self.node.value, wanted) {
            (Value::Integer(number), "a string") => Some(format!("write it in quotes: \"{number}\"")),
            (Value::Bool(flag), "a string") => Some(format!("write it in quotes: \"{flag}\"")),
            (Value::Float(_), "a string") => Some("write it in quotes".to_owned()),
            (Value::Text(text), "a number") if text.parse::<i64>().is_ok() => {
                Some(format!("write it without quotes: {text}"))
            }
            _ => None,
        };
        self.note(self.node.place, self.path.clone(), message, hint);
    }

    fn note_unknown_field(&self, key: &Node, name: &str, message: &str, fields: &[&'static str]) {
        let path = child_path(&self.path, name);
        let text = if has_field_elsewhere(message, name) {
            format!("`{name}` is known to Kubernetes, not supported here")
        } else {
            match closest(name, fields.iter().copied()) {
                Some(meant) => format!("unknown field `{name}`, did you mean `{meant}`?"),
                None => format!("unknown field `{name}`"),
            }
        };
        self.note(key.place, path, text, None);
    }

    /// An integer within bounds, or 0 with a note.
    fn integer(&self, min: i128, max: i128) -> i128 {
        match &self.node.value {
            Value::Integer(number) if (min..=max).contains(number) => *number,
            Value::Integer(number) => {
                let message = format!("{} must be between {min} and {max}, not {number}", field_of(&self.path));
                self.note(self.node.place, self.path.clone(), message, None);
                0
            }
            _ => {
                self.note_wrong_type("a number");
                0
            }
        }
    }

    /// The entries of a map; with a note if it is none.
    fn entries(&self) -> &'a [(Node, Node)] {
        match &self.node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            _ => {
                self.note_wrong_type("a map");
                &[]
            }
        }
    }

    /// The entries whose key is not a repetition, each with its name and path.
    fn distinct_entries(&self) -> Vec<Entry<'a>> {
        let mut seen = BTreeSet::new();
        let mut distinct = Vec::new();
        for (key, value) in self.entries() {
            let name = key.as_key();
            let path = child_path(&self.path, &name);
            if seen.insert(name.clone()) {
                // What has parts is shown by its key: its first part says nothing about the others.
                let place = if value.has_parts() { key.place } else { value.place };
                self.notes.places.borrow_mut().push((path.clone(), place));
                distinct.push(Entry { key, name, path, value });
            } else {
                self.note(key.place, path, format!("`{name}` is there twice"), None);
            }
        }
        distinct
    }
}

struct Entry<'a> {
    key: &'a Node,
    name: String,
    path: String,
    value: &'a Node,
}

/// `spec.replicas`, or `metadata.labels["app.kubernetes.io/name"]` where the name has dots of its own.
pub(super) fn child_path(path: &str, name: &str) -> String {
    match (path.is_empty(), name.contains(['.', '/'])) {
        (_, true) => format!("{path}[{name:?}]"),
        (true, false) => name.to_owned(),
        (false, false) => format!("{path}.{name}"),
    }
}

/// The last part of a path, for messages.
fn field_of(path: &str) -> String {
    match path.rsplit('.').next() {
        Some("") | None => "the document".to_owned(),
        Some(field) => format!("`{field}`"),
    }
}

macro_rules! integers {
    ($($method:ident $type:ty, $visit:ident;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let number = self.integer(<$type>::MIN.into(), <$type>::MAX.into());
            visitor.$visit(<$type>::try_from(number).map_err(Error::custom)?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Error;

    integers! {
        deserialize_i32 i32, visit_i32;
        deserialize_i64 i64, visit_i64;
        deserialize_u32 u32, visit_u32;
        deserialize_u64 u64, visit_u64;
    }

    /// A number or a string: the only fields that take several types.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_str(text),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Integer(number) => match i64::try_from(*number) {
                Ok(number) => visitor.visit_i64(number),
                Err(_) => visitor.visit_str(&number.to_string()),
            },
            Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => {
                self.note_wrong_type("a string or a number");
                visitor.visit_str("")
            }
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Value::Bool(flag) = self.node.value else {
            self.note_wrong_type("true or false");
            return visitor.visit_bool(false);
        };
        visitor.visit_bool(flag)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_str(text),
            Value::Null => visitor.visit_str(""),
            _ => {
                self.note_wrong_type("a string");
                visitor.visit_str("")
            }
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.node.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let items: &[Node] = match &self.node.value {
            Value::List(items) => items,
            Value::Null => &[],
            _ => {
                self.note_wrong_type("a list");
                &[]
            }
        };
        visitor.visit_seq(Items { items: items.iter().enumerate(), path: self.path, notes: self.notes })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let entries = self.distinct_entries();
        visitor.visit_map(Entries { entries: entries.into_iter(), value: None, notes: self.notes })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let mut entries = self.distinct_entries();
        entries.retain(|entry| {
            let is_known = fields.contains(&entry.name.as_str());
            if !is_known {
                self.note_unknown_field(entry.key, &entry.name, name, fields);
            }
            // As in Kubernetes, a field without a value is an absent field.
            is_known && !entry.value.is_null()
        });
        visitor.visit_map(Entries { entries: entries.into_iter(), value: None, notes: self.notes })
    }

    forward_to_deserialize_any! {
        i8 i16 i128 u8 u16 u128 f32 f64 char bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct enum
        identifier ignored_any
    }
}

struct Items<'a> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
    path: String,
    notes: &'a Notes,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        let path = format!("{}[{index}]", self.path);
        self.notes.places.borrow_mut().push((path.clone(), node.place));
        seed.deserialize(Reader::new(node, path, self.notes)).map(Some)
    }
}

struct Entries<'a> {
    entries: std::vec::IntoIter<Entry<'a>>,
    value: Option<(String, &'a Node)>,
    notes: &'a Notes,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(entry) = self.entries.next() else { return Ok(None) };
        self.value = Some((entry.path, entry.value));
        let key: StringDeserializer<Error> = entry.name.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (path, node) = self.value.take().ok_or_else(|| Error::custom("a value was asked for before its key"))?;
        seed.deserialize(Reader::new(node, path, self.notes))
    }
}
