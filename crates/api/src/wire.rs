//! How single fields are read and written where their protobuf type and their Kubernetes form differ. Never checks values.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// Whether a number or a flag need not be written.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A string that may be written as a number.
struct NumberOrString(String);

impl<'de> Deserialize<'de> for NumberOrString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrStringVisitor).map(Self)
    }
}

struct NumberOrStringVisitor;

impl Visitor<'_> for NumberOrStringVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a number")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }
}

/// Reads a map of quantities, each a string or a number.
pub(crate) fn quantities<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let map = BTreeMap::<String, NumberOrString>::deserialize(deserializer)?;
    Ok(map.into_iter().map(|(resource, quantity)| (resource, quantity.0)).collect())
}

/// A field that takes an integer or a word.
pub(crate) mod int_or_string {
    use super::NumberOrString;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        Ok(NumberOrString::deserialize(deserializer)?.0)
    }

    pub(crate) fn serialize<S: Serializer>(value: &str, serializer: S) -> Result<S::Ok, S::Error> {
        match value.parse::<i32>() {
            Ok(number) if number.to_string() == value => serializer.serialize_i32(number),
            _ => serializer.serialize_str(value),
        }
    }
}

/// A field that takes an integer or a word, or is absent.
pub(crate) mod optional_int_or_string {
    use super::NumberOrString;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
        Ok(Option::<NumberOrString>::deserialize(deserializer)?.map(|value| value.0))
    }

    #[allow(clippy::ref_option, reason = "the signature that serde's `with` calls")]
    pub(crate) fn serialize<S: Serializer>(value: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::int_or_string::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }
}
