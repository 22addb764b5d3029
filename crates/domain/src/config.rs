//! Configuration that is kept apart from templates: config maps and secrets, and how templates refer to them.
//! Plain data, valid once it exists. Contents are never printed, not even by `Debug`.

use crate::id::{Key, Name};
use crate::object::Meta;
use crate::spec::{Container, EnvValue, LocalSource, Template};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// The contents of one object may be this long together, as in Kubernetes: larger ones are refused.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;

/// Which of the two kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigKind {
    /// For anybody to read.
    #[default]
    ConfigMap,
    /// Kept out of descriptions and events.
    Secret,
}

impl ConfigKind {
    /// As objects say it.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }

    /// As people type it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        }
    }
}

/// Bytes that nobody prints by accident, and that many share.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blob(pub Arc<[u8]>);

impl From<String> for Blob {
    fn from(text: String) -> Self {
        Self(text.into_bytes().into())
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What a config map or a secret holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigSpec {
    /// Contents by key.
    pub data: BTreeMap<Name, Blob>,
    /// More contents of a config map: those that need not be text.
    pub binary_data: BTreeMap<Name, Blob>,
    /// A secret's type, for people and programs; nothing depends on it.
    pub type_name: Name,
    /// Whether the contents can never change.
    pub is_immutable: bool,
}

impl ConfigSpec {
    /// The content of a key.
    #[must_use]
    pub fn content(&self, key: &Name) -> Option<&Blob> {
        self.data.get(key).or_else(|| self.binary_data.get(key))
    }

    /// Every content, by key.
    pub fn contents(&self) -> impl Iterator<Item = (&Name, &Blob)> {
        self.data.iter().chain(&self.binary_data)
    }
}

/// A config map or a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Identity and labels.
    pub meta: Meta,
    /// What it holds.
    pub spec: Arc<ConfigSpec>,
}

/// Names one, in the namespace of whoever refers to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigRef {
    /// Of which kind.
    pub kind: ConfigKind,
    /// Its name.
    pub name: Name,
    /// Whether it, or the key, may be missing.
    pub is_optional: bool,
}

impl Template {
    /// The config maps and secrets that pods of this template, in this namespace, refer to.
    #[must_use]
    pub fn configs(&self, namespace: &Name) -> BTreeSet<(ConfigKind, Key)> {
        let volumes = self.local_volumes.iter().filter_map(|volume| match &volume.source {
            LocalSource::Config { config, .. } => Some(config),
            LocalSource::EmptyDir { .. } | LocalSource::Fields { .. } => None,
        });
        let containers = self.every_container().flat_map(Container::configs);
        let key = |config: &ConfigRef| Key { namespace: namespace.clone(), name: config.name.clone() };
        volumes.chain(containers).map(|config| (config.kind, key(config))).collect()
    }
}

impl Container {
    fn configs(&self) -> impl Iterator<Item = &ConfigRef> {
        let single = self.env.iter().filter_map(|variable| match &variable.value {
            EnvValue::Key { config, .. } => Some(config),
            EnvValue::Text(_) | EnvValue::Field(_) | EnvValue::Resource { .. } => None,
        });
        self.env_from.iter().map(|from| &from.config).chain(single)
    }
}
