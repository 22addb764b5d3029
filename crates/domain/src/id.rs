//! Names and numbers that identify things. They carry meaning in their type and never a rule of their own.

use std::fmt;
use std::sync::Arc;

macro_rules! text_id {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(
            /// `None` for the empty one, which takes no room.
            Option<Arc<str>>,
        );

        impl $name {
            /// Wraps a text that the edge has already checked.
            #[must_use]
            pub fn new(text: &str) -> Self {
                Self((!text.is_empty()).then(|| Arc::from(text)))
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.as_deref().unwrap_or_default()
            }

            /// The text itself, to be shared with another name of whichever kind.
            #[must_use]
            pub fn shared(&self) -> Option<Arc<str>> {
                self.0.clone()
            }
        }

        impl From<Option<Arc<str>>> for $name {
            fn from(shared: Option<Arc<str>>) -> Self {
                Self(shared.filter(|text| !text.is_empty()))
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::new(&text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
    )*};
}

text_id! {
    /// The name of an object, or of its namespace.
    Name;
    /// A machine that runs an agent.
    NodeName;
    /// A durable volume.
    VolumeName;
    /// A storage class.
    ClassName;
    /// Which start of the machine this is: the kernel's, or the launcher's for a local node.
    BootId;
    /// Which machine this is, over all its boots.
    MachineId;
    /// A client's name for one attempt to change something; a retry carries the same.
    RequestId;
    /// The name of a template revision, `<set>-<hash>`.
    RevisionName;
}

macro_rules! number_id {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The number after this one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    )*};
}

number_id! {
    /// How many events were applied: the one number that users and watchers see.
    Revision;
    /// An object's identity over its whole life: the revision of the event that made it, so it is never reused.
    Uid;
    /// Counts the changes of one object's spec.
    Generation;
    /// Counts a node's boots, or the pods made at one ordinal.
    Incarnation;
    /// Goes up with each attachment of one volume; a holder with a lower one must be refused.
    Fence;
    /// A server of the control plane. Never given twice: what a server has voted for and acknowledged is lost with its disk.
    ServerId;
}

impl ServerId {
    /// As people call it: `s1`.
    #[must_use]
    pub fn name(self) -> String {
        format!("s{self}")
    }
}

/// A pod's place in its set.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ordinal(pub u32);

impl fmt::Display for Ordinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Where an object of a namespace is found.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The namespace.
    pub namespace: Name,
    /// The name within it.
    pub name: Name,
}

impl Key {
    /// A key from checked texts.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: Name::new(namespace), name: Name::new(name) }
    }

    /// The pod of `self` (a set) at `ordinal`.
    #[must_use]
    pub fn pod(&self, ordinal: Ordinal) -> Self {
        Self { namespace: self.namespace.clone(), name: format!("{}-{ordinal}", self.name).into() }
    }

    /// The claim of a set's claim template at `ordinal`: `<template>-<set>-<ordinal>` (semantics A10-111).
    #[must_use]
    pub fn claim(&self, template: &Name, ordinal: Ordinal) -> Self {
        Self { namespace: self.namespace.clone(), name: format!("{template}-{}-{ordinal}", self.name).into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl RequestId {
    /// A number for it. Others may have the same.
    #[must_use]
    pub(crate) fn digest(&self) -> u64 {
        fnv1a(self.as_str())
    }
}

/// FNV-1a: small, and fixed for ever. Never against an adversary.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// An object's identity as people see it: the shape of a UUID, made from the cluster's random name and the number,
/// so that it is unique among clusters as well.
#[must_use]
pub fn uid_text(cluster: &Name, uid: Uid) -> String {
    let seed = fnv1a(cluster.as_str());
    let (high, low) = (seed >> 32, seed & 0xffff_ffff);
    format!("{high:08x}-{:04x}-8{:03x}-8{:03x}-{:012x}", low >> 16, (low >> 4) & 0xfff, low & 0xfff, uid.0)
}
