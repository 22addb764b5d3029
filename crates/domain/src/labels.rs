//! Labels and annotations. A copy shares them with its origin until one of the two is changed: they are copied with every
//! change of an object, from the request to the event to the state, and hardly ever changed on the way.

use crate::id::Name;
use crate::small_map::{Iter, SmallMap};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

static NONE: SmallMap<Name, Name> = SmallMap::new();

/// Labels or annotations: to be read and changed like the map that they are.
#[derive(Clone, Default)]
pub struct Labels(
    /// `None` for none at all, which is what most objects have.
    Option<Arc<SmallMap<Name, Name>>>,
);

impl Labels {
    /// None at all.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }
}

impl Deref for Labels {
    type Target = SmallMap<Name, Name>;

    fn deref(&self) -> &Self::Target {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl DerefMut for Labels {
    fn deref_mut(&mut self) -> &mut Self::Target {
        Arc::make_mut(self.0.get_or_insert_default())
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Labels {}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl From<BTreeMap<Name, Name>> for Labels {
    fn from(labels: BTreeMap<Name, Name>) -> Self {
        labels.into_iter().collect()
    }
}

impl<const N: usize> From<[(Name, Name); N]> for Labels {
    fn from(labels: [(Name, Name); N]) -> Self {
        labels.into_iter().collect()
    }
}

impl FromIterator<(Name, Name)> for Labels {
    fn from_iter<T: IntoIterator<Item = (Name, Name)>>(labels: T) -> Self {
        let labels = SmallMap::from_iter(labels);
        Self((!labels.is_empty()).then(|| Arc::new(labels)))
    }
}

impl IntoIterator for Labels {
    type Item = (Name, Name);
    type IntoIter = std::vec::IntoIter<(Name, Name)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.map(Arc::unwrap_or_clone).unwrap_or_default().into_iter()
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a Name, &'a Name);
    type IntoIter = Iter<'a, Name, Name>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
