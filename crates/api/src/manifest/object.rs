//! The objects that a manifest may hold, their kinds, and how they are written. Never checks them.

use serde::ser::Error as _;
use serde::{Deserialize as _, Deserializer, Serialize, Serializer};

use crate::v1;

/// One kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Such as "apps/v1".
    pub api_version: &'static str,
    /// Such as "StatefulSet".
    pub kind: &'static str,
    /// Whether objects of this kind have a namespace.
    pub is_namespaced: bool,
}

macro_rules! objects {
    ($($(#[$doc:meta])* $variant:ident($message:ty) = $api_version:literal $kind:literal $is_namespaced:literal,)*) => {
        /// One object, as users write and read it.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Object { $($(#[$doc])* $variant(Box<$message>),)* }

        /// Every kind there is.
        pub const KINDS: &[Kind] =
            &[$(Kind { api_version: $api_version, kind: $kind, is_namespaced: $is_namespaced },)*];

        impl Object {
            /// What kind of object it is.
            #[must_use]
            pub const fn kind(&self) -> Kind {
                match self {
                    $(Self::$variant(_) => {
                        Kind { api_version: $api_version, kind: $kind, is_namespaced: $is_namespaced }
                    })*
                }
            }

            /// Its name and marks, if they are given.
            #[must_use]
            pub const fn metadata(&self) -> Option<&v1::ObjectMeta> {
                match self { $(Self::$variant(object) => object.metadata.as_ref(),)* }
            }

            /// Reads an object of the kind.
            pub(super) fn read<'de, D: Deserializer<'de>>(kind: &str, deserializer: D) -> Result<Option<Self>, D::Error> {
                match kind {
                    $($kind => <$message>::deserialize(deserializer).map(|object| Some(object.into())),)*
                    _ => Ok(None),
                }
            }
        }

        $(impl From<$message> for Object {
            fn from(mut object: $message) -> Self {
                object.api_version = $api_version.to_owned();
                object.kind = $kind.to_owned();
                Self::$variant(Box::new(object))
            }
        })*

        impl Serialize for Object {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self { $(Self::$variant(object) => object.serialize(serializer),)* }
            }
        }
    };
}

objects! {
    /// A set of pods.
    StatefulSet(v1::StatefulSet) = "apps/v1" "StatefulSet" true,
    /// A pod.
    Pod(v1::Pod) = "v1" "Pod" true,
    /// A claim.
    PersistentVolumeClaim(v1::PersistentVolumeClaim) = "v1" "PersistentVolumeClaim" true,
    /// A volume.
    PersistentVolume(v1::PersistentVolume) = "v1" "PersistentVolume" false,
    /// A class of volumes.
    StorageClass(v1::StorageClass) = "storage.k8s.io/v1" "StorageClass" false,
    /// A node.
    Node(v1::Node) = "v1" "Node" false,
    /// A name for pods.
    Service(v1::Service) = "v1" "Service" true,
    /// The pods behind a service.
    Endpoints(v1::Endpoints) = "v1" "Endpoints" true,
    /// Texts that pods read.
    ConfigMap(v1::ConfigMap) = "v1" "ConfigMap" true,
    /// Bytes that pods read.
    Secret(v1::Secret) = "v1" "Secret" true,
    /// How many pods may be away.
    PodDisruptionBudget(v1::PodDisruptionBudget) = "policy/v1" "PodDisruptionBudget" true,
    /// A volume on a node.
    VolumeAttachment(v1::VolumeAttachment) = "storage.k8s.io/v1" "VolumeAttachment" false,
    /// A template that a set has had.
    ControllerRevision(v1::ControllerRevision) = "apps/v1" "ControllerRevision" true,
    /// An entry of the event log.
    Event(v1::ObjectEvent) = "v1" "Event" true,
}

impl Object {
    /// Its name, or "".
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata().map_or("", |metadata| &metadata.name)
    }

    /// Its namespace: "default" where none is given, "" for kinds without one.
    #[must_use]
    pub fn namespace(&self) -> &str {
        match self.metadata() {
            _ if !self.kind().is_namespaced => "",
            Some(metadata) if !metadata.namespace.is_empty() => &metadata.namespace,
            _ => "default",
        }
    }
}

/// What a listing prints.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    api_version: &'static str,
    kind: &'static str,
    items: &'a [Object],
}

impl<'a> List<'a> {
    const fn new(items: &'a [Object]) -> Self {
        Self { api_version: "v1", kind: "List", items }
    }
}

/// Writes an object (or any answer) as YAML.
///
/// # Errors
/// If a value has no form in YAML; objects always have one.
pub fn to_yaml(value: &impl Serialize) -> Result<String, serde_json::Error> {
    serde_saphyr::to_string(value).map_err(serde_json::Error::custom)
}

/// Writes an object (or any answer) as JSON, indented as kubectl does.
///
/// # Errors
/// If a value has no form in JSON; objects always have one.
pub fn to_json(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))?;
    bytes.push(b'\n');
    String::from_utf8(bytes).map_err(serde_json::Error::custom)
}

/// Writes several objects as one `List` in YAML.
///
/// # Errors
/// As [`to_yaml`].
pub fn list_to_yaml(items: &[Object]) -> Result<String, serde_json::Error> {
    to_yaml(&List::new(items))
}

/// Writes several objects as one `List` in JSON.
///
/// # Errors
/// As [`to_json`].
pub fn list_to_json(items: &[Object]) -> Result<String, serde_json::Error> {
    to_json(&List::new(items))
}
