//! Where in an object something stands, and what is wrong with it there.

use domain::id::Name;
use domain::spec::Labels;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};

use crate::name::{NameError, check_label_key, check_label_value};

/// A field that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {rule}")]
pub struct FieldError {
    /// Where, as Kubernetes writes it: `spec.template.spec.containers[0].name`.
    pub path: String,
    /// What must be so.
    pub rule: String,
}

/// A place in an object; becomes text only when something is wrong there.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    parent: Option<&'a At<'a>>,
    name: &'a str,
    index: Option<usize>,
}

impl<'a> At<'a> {
    /// A field of the object itself.
    pub(super) const fn root(name: &'a str) -> Self {
        Self { parent: None, name, index: None }
    }

    /// A field of what stands here.
    pub(super) const fn to(&'a self, name: &'a str) -> Self {
        Self { parent: Some(self), name, index: None }
    }

    /// An element of a list of what stands here.
    pub(super) const fn item(&'a self, name: &'a str, index: usize) -> Self {
        Self { parent: Some(self), name, index: Some(index) }
    }

    /// That a rule is broken here.
    pub(super) fn refuse(&self, rule: impl Display) -> FieldError {
        FieldError { path: self.to_string(), rule: rule.to_string() }
    }

    /// A part that must be there.
    pub(super) fn required<T>(&self, part: Option<T>) -> Result<T, FieldError> {
        part.ok_or_else(|| self.refuse("is required"))
    }

    /// A text that must be there.
    pub(super) fn not_empty<'t>(&self, text: &'t str) -> Result<&'t str, FieldError> {
        if text.is_empty() { Err(self.refuse("is required")) } else { Ok(text) }
    }

    /// A name by its rule.
    pub(super) fn name(
        &self,
        name: &str,
        check: impl FnOnce(&str) -> Result<(), NameError>,
    ) -> Result<Name, FieldError> {
        self.not_empty(name)?;
        check(name).map_err(|error| self.refuse(error))?;
        Ok(name.into())
    }

    /// A number that must not be negative.
    pub(super) fn count(&self, number: i32) -> Result<u32, FieldError> {
        u32::try_from(number).map_err(|_| self.refuse(format_args!("must not be negative, and is {number}")))
    }

    /// Seconds that must not be negative, as milliseconds.
    pub(super) fn seconds(&self, seconds: i64) -> Result<u64, FieldError> {
        let seconds =
            u64::try_from(seconds).map_err(|_| self.refuse(format_args!("must not be negative, and is {seconds}")))?;
        Ok(seconds.saturating_mul(1000))
    }

    /// The number of a port.
    pub(super) fn port(&self, number: i32) -> Result<u32, FieldError> {
        match u32::try_from(number) {
            Ok(port @ 1..=65_535) => Ok(port),
            _ => Err(self.refuse(format_args!("must be 1 to 65535, and is {number}"))),
        }
    }

    /// One of a few words; the first is what empty means.
    pub(super) fn word<T: Copy>(&self, word: &str, known: &[(&str, T)]) -> Result<T, FieldError> {
        if word.is_empty()
            && let Some((_, first)) = known.first()
        {
            return Ok(*first);
        }
        if let Some((_, value)) = known.iter().find(|(text, _)| *text == word) {
            return Ok(*value);
        }
        let words: Vec<_> = known.iter().map(|(text, _)| format!("{text:?}")).collect();
        Err(self.refuse(format_args!("must be {}, and is {word:?}", words.join(" or "))))
    }

    /// The protocol of a port.
    pub(super) fn protocol(&self, protocol: &str) -> Result<Name, FieldError> {
        self.word(protocol, &[("TCP", "TCP"), ("UDP", "UDP")]).map(Name::from)
    }

    pub(super) fn labels(&self, wire: &BTreeMap<String, String>) -> Result<Labels, FieldError> {
        self.pairs(wire, check_label_value)
    }

    /// Keys as in labels, and values of any kind.
    pub(super) fn annotations(&self, wire: &BTreeMap<String, String>) -> Result<Labels, FieldError> {
        self.pairs(wire, |_| Ok(()))
    }

    fn pairs(
        &self,
        wire: &BTreeMap<String, String>,
        check_value: impl Fn(&str) -> Result<(), NameError>,
    ) -> Result<Labels, FieldError> {
        let pair = |(key, value): (&String, &String)| {
            check_label_key(key).and_then(|()| check_value(value)).map_err(|error| self.refuse(error))?;
            Ok((key.as_str().into(), value.as_str().into()))
        };
        wire.iter().map(pair).collect()
    }
}

impl Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}.")?;
        }
        f.write_str(self.name)?;
        self.index.map_or(Ok(()), |index| write!(f, "[{index}]"))
    }
}

/// Refuses a name that is there already.
pub(super) fn once<'n>(seen: &mut BTreeSet<&'n str>, name: &'n str, at: At<'_>) -> Result<(), FieldError> {
    if seen.insert(name) { Ok(()) } else { Err(at.refuse(format_args!("{name:?} is there twice"))) }
}

/// Labels as they are written.
pub(super) fn labels_to_wire(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}
