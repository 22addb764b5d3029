//! Volumes that are made with the pod and end with it, both ways.

use super::check::{At, FieldError, once};
use super::config::check_key;
use super::env::{config_ref, field_to_wire, file_field_from_wire, resource_from_wire, resource_to_wire};
use crate::quantity::{format_bytes, parse_bytes};
use crate::v1;
use domain::config::ConfigKind;
use domain::spec::{EnvValue, FieldFile, KeyFile, LocalSource, LocalVolume};
use std::collections::BTreeSet;

const MODE_DEFAULT: u32 = 0o644;
const MODE_MAX: i32 = 0o777;

/// What is in a volume, if it is one that ends with its pod.
pub(super) fn source_from_wire(wire: &v1::Volume, at: At<'_>) -> Result<Option<LocalSource>, FieldError> {
    let source = match (&wire.empty_dir, &wire.config_map, &wire.secret, &wire.downward_api) {
        (Some(dir), None, None, None) => empty_dir_from_wire(dir, at.to("emptyDir"))?,
        (None, Some(map), None, None) => {
            let at = at.to("configMap");
            LocalSource::Config {
                config: config_ref(ConfigKind::ConfigMap, &map.name, map.optional, at)?,
                items: items_from_wire(&map.items, at)?,
                mode: mode_or_default(map.default_mode, at)?,
            }
        }
        (None, None, Some(secret), None) => {
            let at = at.to("secret");
            LocalSource::Config {
                config: config_ref(ConfigKind::Secret, &secret.secret_name, secret.optional, at)?,
                items: items_from_wire(&secret.items, at)?,
                mode: mode_or_default(secret.default_mode, at)?,
            }
        }
        (None, None, None, Some(fields)) => {
            let at = at.to("downwardAPI");
            LocalSource::Fields {
                items: fields_from_wire(&fields.items, at)?,
                mode: mode_or_default(fields.default_mode, at)?,
            }
        }
        (None, None, None, None) => return Ok(None),
        _ => return Err(at.refuse("must have one source only")),
    };
    Ok(Some(source))
}

fn empty_dir_from_wire(wire: &v1::EmptyDirVolumeSource, at: At<'_>) -> Result<LocalSource, FieldError> {
    let in_memory = at.to("medium").word(&wire.medium, &[("", false), ("Memory", true)])?;
    let size_at = at.to("sizeLimit");
    let size_max_bytes = match wire.size_limit.as_str() {
        "" => 0,
        limit => parse_bytes(limit).map_err(|error| size_at.refuse(error))?,
    };
    Ok(LocalSource::EmptyDir { in_memory, size_max_bytes })
}

fn items_from_wire(wire: &[v1::KeyToPath], at: At<'_>) -> Result<Vec<KeyFile>, FieldError> {
    let mut seen = BTreeSet::new();
    let mut items = Vec::with_capacity(wire.len());
    for (index, item) in wire.iter().enumerate() {
        let at = at.item("items", index);
        let key = at.to("key").not_empty(&item.key)?;
        check_key(key).map_err(|rule| at.to("key").refuse(rule))?;
        once(&mut seen, file_path(&item.path, at.to("path"))?, at.to("path"))?;
        items.push(KeyFile {
            key: key.into(),
            path: item.path.clone(),
            mode: mode_from_wire(item.mode, at.to("mode"))?,
        });
    }
    Ok(items)
}

fn fields_from_wire(wire: &[v1::DownwardApiVolumeFile], at: At<'_>) -> Result<Vec<FieldFile>, FieldError> {
    let mut seen = BTreeSet::new();
    let mut items = Vec::with_capacity(wire.len());
    for (index, item) in wire.iter().enumerate() {
        let at = at.item("items", index);
        once(&mut seen, file_path(&item.path, at.to("path"))?, at.to("path"))?;
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), None) => file_field_from_wire(field, at.to("fieldRef"))?,
            (None, Some(resource)) => {
                let at = at.to("resourceFieldRef");
                at.to("containerName").not_empty(&resource.container_name)?;
                resource_from_wire(resource, at)?
            }
            _ => return Err(at.refuse("must have one of fieldRef and resourceFieldRef")),
        };
        items.push(FieldFile { path: item.path.clone(), value, mode: mode_from_wire(item.mode, at.to("mode"))? });
    }
    Ok(items)
}

/// A path below where the volume appears.
fn file_path<'p>(path: &'p str, at: At<'_>) -> Result<&'p str, FieldError> {
    at.not_empty(path)?;
    let is_relative = !path.starts_with('/') && path.split('/').all(|part| !part.is_empty() && !part.starts_with(".."));
    if is_relative { Ok(path) } else { Err(at.refuse("must be a relative path without \"..\"")) }
}

fn mode_or_default(wire: Option<i32>, at: At<'_>) -> Result<u32, FieldError> {
    Ok(mode_from_wire(wire, at.to("defaultMode"))?.unwrap_or(MODE_DEFAULT))
}

fn mode_from_wire(wire: Option<i32>, at: At<'_>) -> Result<Option<u32>, FieldError> {
    match wire {
        None => Ok(None),
        Some(mode @ 0..=MODE_MAX) => Ok(Some(mode.unsigned_abs())),
        Some(mode) => Err(at.refuse(format_args!("must be 0 to 0777 (511), and is {mode}"))),
    }
}

pub(super) fn local_volume_to_wire(volume: &LocalVolume) -> v1::Volume {
    let mut wire = v1::Volume { name: volume.name.to_string(), ..v1::Volume::default() };
    match &volume.source {
        LocalSource::EmptyDir { in_memory, size_max_bytes } => {
            wire.empty_dir = Some(v1::EmptyDirVolumeSource {
                medium: if *in_memory { "Memory" } else { "" }.to_owned(),
                size_limit: if *size_max_bytes == 0 { String::new() } else { format_bytes(*size_max_bytes) },
            });
        }
        LocalSource::Config { config, items, mode } => {
            let items = items.iter().map(item_to_wire).collect();
            let (name, optional, default_mode) = (config.name.to_string(), config.is_optional, mode_to_wire(*mode));
            match config.kind {
                ConfigKind::ConfigMap => {
                    wire.config_map = Some(v1::ConfigMapVolumeSource { name, items, default_mode, optional });
                }
                ConfigKind::Secret => {
                    let secret_name = name;
                    wire.secret = Some(v1::SecretVolumeSource { secret_name, items, default_mode, optional });
                }
            }
        }
        LocalSource::Fields { items, mode } => {
            let items = items.iter().map(field_item_to_wire).collect();
            wire.downward_api = Some(v1::DownwardApiVolumeSource { items, default_mode: mode_to_wire(*mode) });
        }
    }
    wire
}

fn item_to_wire(item: &KeyFile) -> v1::KeyToPath {
    v1::KeyToPath { key: item.key.to_string(), path: item.path.clone(), mode: item.mode.and_then(mode_to_wire) }
}

fn field_item_to_wire(item: &FieldFile) -> v1::DownwardApiVolumeFile {
    let mut wire = v1::DownwardApiVolumeFile {
        path: item.path.clone(),
        mode: item.mode.and_then(mode_to_wire),
        ..v1::DownwardApiVolumeFile::default()
    };
    match &item.value {
        EnvValue::Field(path) => wire.field_ref = Some(field_to_wire(path)),
        EnvValue::Resource { container, resource, divisor } => {
            wire.resource_field_ref = Some(resource_to_wire(container, resource, *divisor));
        }
        // No file has these: they were refused when the template was read.
        EnvValue::Text(_) | EnvValue::Key { .. } => {}
    }
    wire
}

fn mode_to_wire(mode: u32) -> Option<i32> {
    i32::try_from(mode).ok()
}
