//! Config maps and secrets, both ways.

use super::check::{At, FieldError};
use super::meta::{Marks, marks_from_wire, meta_to_wire};
use crate::name::check_subdomain;
use crate::v1;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::State;
use domain::config::{Blob, CONFIG_BYTES_MAX, Config, ConfigSpec};
use domain::id::{Key, Name};
use domain::spec::Labels;
use std::collections::BTreeMap;

const KEY_LEN_MAX: usize = 253;
const SECRET_TYPE_DEFAULT: &str = "Opaque";

type Entries = BTreeMap<Name, Blob>;

/// Reads a config map.
///
/// # Errors
/// The first field that breaks a rule.
pub fn config_map_from_wire(wire: &v1::ConfigMap) -> Result<(Key, Labels, Labels, ConfigSpec), FieldError> {
    let Marks { key, labels, annotations } = marks_from_wire(wire.metadata.as_ref(), check_subdomain)?;
    let data = entries(&wire.data, At::root("data"), |text, _| Ok(text.as_bytes().to_vec()))?;
    let binary_at = At::root("binaryData");
    let binary_data = entries(&wire.binary_data, binary_at, decoded)?;
    if let Some(twice) = binary_data.keys().find(|key| data.contains_key(*key)) {
        return Err(binary_at.to(twice.as_str()).refuse("is there in data, too"));
    }
    let spec = ConfigSpec { data, binary_data, type_name: Name::default(), is_immutable: wire.immutable };
    check_size(&spec)?;
    Ok((key, labels, annotations, spec))
}

/// Reads a secret.
///
/// # Errors
/// The first field that breaks a rule.
pub fn secret_from_wire(wire: &v1::Secret) -> Result<(Key, Labels, Labels, ConfigSpec), FieldError> {
    let Marks { key, labels, annotations } = marks_from_wire(wire.metadata.as_ref(), check_subdomain)?;
    let mut data = entries(&wire.data, At::root("data"), decoded)?;
    data.append(&mut entries(&wire.string_data, At::root("stringData"), |text, _| Ok(text.as_bytes().to_vec()))?);
    let type_name = if wire.r#type.is_empty() { SECRET_TYPE_DEFAULT } else { &wire.r#type };
    let spec =
        ConfigSpec { data, binary_data: Entries::new(), type_name: type_name.into(), is_immutable: wire.immutable };
    check_size(&spec)?;
    Ok((key, labels, annotations, spec))
}

fn entries(
    wire: &BTreeMap<String, String>,
    at: At<'_>,
    content: impl Fn(&str, At<'_>) -> Result<Vec<u8>, FieldError>,
) -> Result<Entries, FieldError> {
    let entry = |(key, text): (&String, &String)| {
        let at = at.to(key);
        check_key(key).map_err(|rule| at.refuse(rule))?;
        Ok((Name::new(key), Blob::from(content(text, at)?)))
    };
    wire.iter().map(entry).collect()
}

/// A key is a file name, too.
pub(super) fn check_key(key: &str) -> Result<(), &'static str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if key.is_empty() || KEY_LEN_MAX < key.len() || !key.chars().all(is_plain) {
        return Err("must be a key of 1 to 253 letters, digits, '-', '_' and '.'");
    }
    if key == "." || key.starts_with("..") { Err("must not begin with \"..\"") } else { Ok(()) }
}

fn decoded(text: &str, at: At<'_>) -> Result<Vec<u8>, FieldError> {
    // Long texts are broken into lines, as `base64` writes them.
    let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    // What is wrong may not be shown: it may be a secret that somebody forgot to encode.
    STANDARD.decode(text).map_err(|_| at.refuse("must be base64 (stringData of a secret takes plain text)"))
}

fn check_size(spec: &ConfigSpec) -> Result<(), FieldError> {
    let bytes: usize = spec.contents().map(|(_, content)| content.0.len()).sum();
    if bytes <= CONFIG_BYTES_MAX {
        return Ok(());
    }
    let rule = format_args!("must hold no more than {CONFIG_BYTES_MAX} bytes (1 MiB) together, and holds {bytes}");
    Err(At::root("data").refuse(rule))
}

/// Writes a config map.
#[must_use]
pub fn config_map_to_wire(state: &State, key: &Key, config: &Config) -> v1::ConfigMap {
    let text = |(key, content): (&Name, &Blob)| (key.to_string(), String::from_utf8_lossy(&content.0).into_owned());
    v1::ConfigMap {
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        metadata: Some(meta_to_wire(state, key, &config.meta)),
        data: config.spec.data.iter().map(text).collect(),
        binary_data: encoded(&config.spec.binary_data),
        immutable: config.spec.is_immutable,
    }
}

/// Writes a secret.
#[must_use]
pub fn secret_to_wire(state: &State, key: &Key, config: &Config) -> v1::Secret {
    v1::Secret {
        api_version: "v1".to_owned(),
        kind: "Secret".to_owned(),
        metadata: Some(meta_to_wire(state, key, &config.meta)),
        data: encoded(&config.spec.data),
        string_data: BTreeMap::new(),
        r#type: config.spec.type_name.to_string(),
        immutable: config.spec.is_immutable,
    }
}

fn encoded(entries: &Entries) -> BTreeMap<String, String> {
    entries.iter().map(|(key, content)| (key.to_string(), STANDARD.encode(&content.0))).collect()
}
