//! Variables of a container's environment, both ways: written out, or taken from elsewhere.

use super::check::{At, FieldError};
use super::config::check_key;
use crate::name::check_subdomain;
use crate::quantity::{format_bytes, format_cpu_milli, parse_bytes, parse_cpu_milli};
use crate::v1;
use domain::config::{ConfigKind, ConfigRef};
use domain::id::Name;
use domain::spec::{EnvFrom, EnvValue, EnvVar};

/// Fields of the pod that the environment may show, beside single labels and annotations.
const ENV_FIELDS: [&str; 8] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.podIP",
    "status.podIPs",
    "status.hostIP",
];
/// Fields of the pod that files may show, beside single labels and annotations.
const FILE_FIELDS: [&str; 5] =
    ["metadata.name", "metadata.namespace", "metadata.uid", "metadata.labels", "metadata.annotations"];
const CPU: [(&str, &str); 2] = [("limits.cpu", "limits.cpu"), ("requests.cpu", "requests.cpu")];
const MEMORY: [(&str, &str); 2] = [("limits.memory", "limits.memory"), ("requests.memory", "requests.memory")];

pub(super) fn env_from_wire(wire: &[v1::EnvVar], at: At<'_>) -> Result<Vec<EnvVar>, FieldError> {
    let variable = |(index, variable): (usize, &v1::EnvVar)| {
        let at = at.item("env", index);
        let name = at.to("name").not_empty(&variable.name)?;
        if name.contains(['=', '\0']) {
            return Err(at.to("name").refuse("must not contain '='"));
        }
        let value = match &variable.value_from {
            None => EnvValue::Text(variable.value.clone()),
            Some(_) if !variable.value.is_empty() => {
                return Err(at.to("valueFrom").refuse("cannot be there together with value"));
            }
            Some(source) => source_from_wire(source, at.to("valueFrom"))?,
        };
        Ok(EnvVar { name: name.into(), value })
    };
    wire.iter().enumerate().map(variable).collect()
}

fn source_from_wire(wire: &v1::EnvVarSource, at: At<'_>) -> Result<EnvValue, FieldError> {
    match (&wire.field_ref, &wire.resource_field_ref, &wire.config_map_key_ref, &wire.secret_key_ref) {
        (Some(field), None, None, None) => field_from_wire(field, &ENV_FIELDS, at.to("fieldRef")),
        (None, Some(resource), None, None) => resource_from_wire(resource, at.to("resourceFieldRef")),
        (None, None, Some(key), None) => {
            key_from_wire(ConfigKind::ConfigMap, &key.name, &key.key, key.optional, at.to("configMapKeyRef"))
        }
        (None, None, None, Some(key)) => {
            key_from_wire(ConfigKind::Secret, &key.name, &key.key, key.optional, at.to("secretKeyRef"))
        }
        _ => Err(at.refuse("must have one of fieldRef, resourceFieldRef, configMapKeyRef and secretKeyRef")),
    }
}

/// A field that a file shows.
pub(super) fn file_field_from_wire(wire: &v1::ObjectFieldSelector, at: At<'_>) -> Result<EnvValue, FieldError> {
    field_from_wire(wire, &FILE_FIELDS, at)
}

fn field_from_wire(wire: &v1::ObjectFieldSelector, known: &[&str], at: At<'_>) -> Result<EnvValue, FieldError> {
    let path = &wire.field_path;
    let is_one_of_many = ["metadata.labels['", "metadata.annotations['"]
        .iter()
        .any(|prefix| path.starts_with(prefix) && path.ends_with("']"));
    if !is_one_of_many && !known.contains(&path.as_str()) {
        let rule = format_args!(
            "must be {} or metadata.labels['KEY'] or metadata.annotations['KEY'], and is {path:?}",
            known.join(" or ")
        );
        return Err(at.to("fieldPath").refuse(rule));
    }
    Ok(EnvValue::Field(path.clone()))
}

pub(super) fn resource_from_wire(wire: &v1::ResourceFieldSelector, at: At<'_>) -> Result<EnvValue, FieldError> {
    let resource = at.to("resource").not_empty(&wire.resource)?;
    let resource = at.to("resource").word(resource, &[CPU, MEMORY].concat())?;
    let divisor_at = at.to("divisor");
    let divisor = if wire.divisor.is_empty() { "1" } else { &wire.divisor };
    let parse = if CPU.contains(&(resource, resource)) { parse_cpu_milli } else { parse_bytes };
    let divisor = parse(divisor).map_err(|error| divisor_at.refuse(error))?;
    // A divisor of 0 means the default, as in Kubernetes.
    let divisor = if divisor == 0 { parse("1").map_err(|error| divisor_at.refuse(error))? } else { divisor };
    Ok(EnvValue::Resource { container: wire.container_name.as_str().into(), resource: resource.into(), divisor })
}

fn key_from_wire(kind: ConfigKind, name: &str, key: &str, optional: bool, at: At<'_>) -> Result<EnvValue, FieldError> {
    let config = config_ref(kind, name, optional, at)?;
    let key = at.to("key").not_empty(key)?;
    check_key(key).map_err(|rule| at.to("key").refuse(rule))?;
    Ok(EnvValue::Key { config, key: key.into() })
}

/// Names a config map or a secret.
pub(super) fn config_ref(kind: ConfigKind, name: &str, is_optional: bool, at: At<'_>) -> Result<ConfigRef, FieldError> {
    Ok(ConfigRef { kind, name: at.to("name").name(name, check_subdomain)?, is_optional })
}

pub(super) fn sources_from_wire(wire: &[v1::EnvFromSource], at: At<'_>) -> Result<Vec<EnvFrom>, FieldError> {
    let source = |(index, source): (usize, &v1::EnvFromSource)| {
        let at = at.item("envFrom", index);
        if source.prefix.contains(['=', '\0']) {
            return Err(at.to("prefix").refuse("must not contain '='"));
        }
        let config = match (&source.config_map_ref, &source.secret_ref) {
            (Some(of), None) => config_ref(ConfigKind::ConfigMap, &of.name, of.optional, at.to("configMapRef"))?,
            (None, Some(of)) => config_ref(ConfigKind::Secret, &of.name, of.optional, at.to("secretRef"))?,
            _ => return Err(at.refuse("must have one of configMapRef and secretRef")),
        };
        Ok(EnvFrom { prefix: source.prefix.clone(), config })
    };
    wire.iter().enumerate().map(source).collect()
}

pub(super) fn env_to_wire(variable: &EnvVar) -> v1::EnvVar {
    let name = variable.name.to_string();
    let from =
        |source: v1::EnvVarSource| v1::EnvVar { name: name.clone(), value: String::new(), value_from: Some(source) };
    match &variable.value {
        EnvValue::Text(value) => v1::EnvVar { name, value: value.clone(), value_from: None },
        EnvValue::Field(path) => {
            from(v1::EnvVarSource { field_ref: Some(field_to_wire(path)), ..v1::EnvVarSource::default() })
        }
        EnvValue::Resource { container, resource, divisor } => {
            let resource_field_ref = Some(resource_to_wire(container, resource, *divisor));
            from(v1::EnvVarSource { resource_field_ref, ..v1::EnvVarSource::default() })
        }
        EnvValue::Key { config, key } => {
            let (name, key, optional) = (config.name.to_string(), key.to_string(), config.is_optional);
            from(match config.kind {
                ConfigKind::ConfigMap => v1::EnvVarSource {
                    config_map_key_ref: Some(v1::ConfigMapKeySelector { name, key, optional }),
                    ..v1::EnvVarSource::default()
                },
                ConfigKind::Secret => v1::EnvVarSource {
                    secret_key_ref: Some(v1::SecretKeySelector { name, key, optional }),
                    ..v1::EnvVarSource::default()
                },
            })
        }
    }
}

pub(super) fn field_to_wire(path: &str) -> v1::ObjectFieldSelector {
    v1::ObjectFieldSelector { api_version: String::new(), field_path: path.to_owned() }
}

pub(super) fn resource_to_wire(container: &Name, resource: &Name, divisor: u64) -> v1::ResourceFieldSelector {
    let is_cpu = CPU.iter().any(|(known, _)| *known == resource.as_str());
    v1::ResourceFieldSelector {
        container_name: container.to_string(),
        resource: resource.to_string(),
        divisor: if is_cpu { format_cpu_milli(divisor) } else { format_bytes(divisor) },
    }
}

pub(super) fn source_to_wire(source: &EnvFrom) -> v1::EnvFromSource {
    let (name, optional) = (source.config.name.to_string(), source.config.is_optional);
    let mut wire = v1::EnvFromSource { prefix: source.prefix.clone(), ..v1::EnvFromSource::default() };
    match source.config.kind {
        ConfigKind::ConfigMap => wire.config_map_ref = Some(v1::ConfigMapEnvSource { name, optional }),
        ConfigKind::Secret => wire.secret_ref = Some(v1::SecretEnvSource { name, optional }),
    }
    wire
}
