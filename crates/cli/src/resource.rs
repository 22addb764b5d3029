//! The kinds of objects as people type them, and the objects that a command line names.

use crate::error::CliError;

/// A kind of objects that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Resource {
    /// Sets of pods.
    StatefulSet,
    /// Pods.
    Pod,
    /// Claims.
    Claim,
    /// Volumes.
    Volume,
    /// Classes of volumes.
    Class,
    /// Nodes.
    Node,
    /// Services.
    Service,
    /// The pods behind services.
    Endpoints,
    /// Volumes on nodes.
    Attachment,
    /// The event log.
    Event,
    /// Disruption budgets.
    Budget,
    /// Templates that sets have had.
    Revision,
    /// Texts that pods read.
    ConfigMap,
    /// Bytes that pods read.
    Secret,
}

/// Kind, name in output, and what people type, for each resource.
const NAMES: [(Resource, &str, &str, &[&str]); 14] = [
    (
        Resource::StatefulSet,
        "StatefulSet",
        "statefulset.apps",
        &["statefulset", "statefulsets", "sts", "statefulset.apps", "statefulsets.apps"],
    ),
    (Resource::Pod, "Pod", "pod", &["pod", "pods", "po"]),
    (
        Resource::Claim,
        "PersistentVolumeClaim",
        "persistentvolumeclaim",
        &["persistentvolumeclaim", "persistentvolumeclaims", "pvc"],
    ),
    (Resource::Volume, "PersistentVolume", "persistentvolume", &["persistentvolume", "persistentvolumes", "pv"]),
    (
        Resource::Class,
        "StorageClass",
        "storageclass.storage.k8s.io",
        &["storageclass", "storageclasses", "sc", "storageclass.storage.k8s.io"],
    ),
    (Resource::Node, "Node", "node", &["node", "nodes", "no"]),
    (Resource::Service, "Service", "service", &["service", "services", "svc"]),
    (Resource::Endpoints, "Endpoints", "endpoints", &["endpoints", "ep"]),
    (
        Resource::Attachment,
        "VolumeAttachment",
        "volumeattachment.storage.k8s.io",
        &["volumeattachment", "volumeattachments", "volumeattachment.storage.k8s.io"],
    ),
    (Resource::Event, "Event", "event", &["event", "events", "ev"]),
    (
        Resource::Budget,
        "PodDisruptionBudget",
        "poddisruptionbudget.policy",
        &["poddisruptionbudget", "poddisruptionbudgets", "pdb", "poddisruptionbudget.policy"],
    ),
    (
        Resource::Revision,
        "ControllerRevision",
        "controllerrevision.apps",
        &["controllerrevision", "controllerrevisions", "controllerrevision.apps"],
    ),
    (Resource::ConfigMap, "ConfigMap", "configmap", &["configmap", "configmaps", "cm"]),
    (Resource::Secret, "Secret", "secret", &["secret", "secrets"]),
];

impl Resource {
    /// Understands one kind.
    pub(crate) fn parse(text: &str) -> Result<Self, CliError> {
        let typed = text.to_ascii_lowercase();
        if let Some((resource, ..)) = NAMES.iter().find(|(_, _, _, typed_as)| typed_as.contains(&typed.as_str())) {
            return Ok(*resource);
        }
        let known = NAMES.iter().flat_map(|(_, _, _, typed_as)| typed_as.iter().copied()).chain(["all"]);
        let closest = known.map(|known| (strsim::damerau_levenshtein(known, &typed), known)).min();
        let error = CliError::refused(format!("there is no kind {text:?}"));
        Err(match closest {
            Some((distance, known)) if distance <= 1 + typed.len() / 4 => {
                error.hint(format!("did you mean {known:?}?"))
            }
            _ => error.hint("holdfast get --help"),
        })
    }

    /// Understands kinds joined by commas; `all` is pods, services and sets.
    pub(crate) fn parse_list(text: &str) -> Result<Vec<Self>, CliError> {
        let mut resources = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let found = match part {
                "all" => vec![Self::Pod, Self::Service, Self::StatefulSet],
                _ => vec![Self::parse(part)?],
            };
            resources.extend(found.into_iter().filter(|resource| !resources.contains(resource)).collect::<Vec<_>>());
        }
        Ok(resources)
    }

    /// Such as "StatefulSet".
    pub(crate) fn kind(self) -> &'static str {
        self.entry().1
    }

    /// Such as "statefulset.apps".
    pub(crate) fn output_name(self) -> &'static str {
        self.entry().2
    }

    /// What people type: "statefulset".
    pub(crate) fn word(self) -> &'static str {
        self.entry().3[0]
    }

    /// What hurried people type: "sts".
    pub(crate) fn short(self) -> &'static str {
        let all = self.entry().3.iter().copied();
        match self {
            // "po" and "no" are shorter, and hard to read.
            Self::Pod | Self::Node => self.word(),
            _ => all.min_by_key(|name| name.len()).expect("invariant: every resource is called something"),
        }
    }

    /// The resource of a kind.
    pub(crate) fn of_kind(kind: &str) -> Option<Self> {
        NAMES.iter().find(|entry| entry.1 == kind).map(|entry| entry.0)
    }

    /// Whether its objects have a namespace.
    pub(crate) fn is_namespaced(self) -> bool {
        matches!(
            self,
            Self::StatefulSet
                | Self::Pod
                | Self::Claim
                | Self::Service
                | Self::Endpoints
                | Self::Event
                | Self::Budget
                | Self::Revision
                | Self::ConfigMap
                | Self::Secret
        )
    }

    fn entry(self) -> &'static (Self, &'static str, &'static str, &'static [&'static str]) {
        NAMES.iter().find(|entry| entry.0 == self).expect("invariant: every resource has an entry")
    }
}

/// What a command line names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Targets {
    /// Every object of these kinds.
    Kinds(Vec<Resource>),
    /// These objects.
    Objects(Vec<(Resource, String)>),
}

impl Targets {
    /// Understands `KIND[,KIND…] [NAME…]` and `KIND/NAME…`.
    pub(crate) fn parse(words: &[String]) -> Result<Self, CliError> {
        let Some((first, rest)) = words.split_first() else {
            return Err(CliError::usage("a kind is missing, such as `pods`").hint("holdfast get --help"));
        };
        if words.iter().any(|word| word.contains('/')) {
            let pair = |word: &String| match word.split_once('/') {
                Some((kind, name)) if !name.is_empty() => Ok((Resource::parse(kind)?, name.to_owned())),
                _ => Err(CliError::usage(format!("{word:?} is not KIND/NAME as the others are"))),
            };
            return Ok(Self::Objects(words.iter().map(pair).collect::<Result<_, _>>()?));
        }
        let kinds = Resource::parse_list(first)?;
        if rest.is_empty() {
            return Ok(Self::Kinds(kinds));
        }
        let objects = kinds.iter().flat_map(|kind| rest.iter().map(|name| (*kind, name.clone()))).collect();
        Ok(Self::Objects(objects))
    }

    /// Understands words that must name exactly one object.
    pub(crate) fn parse_one(words: &[String]) -> Result<(Resource, String), CliError> {
        match Self::parse(words)? {
            Self::Objects(objects) if objects.len() == 1 => Ok(objects[0].clone()),
            _ => Err(CliError::usage("exactly one object must be named: KIND NAME or KIND/NAME")),
        }
    }

    /// Understands words that must name one set.
    pub(crate) fn parse_set(words: &[String]) -> Result<String, CliError> {
        match Self::parse_one(words)? {
            (Resource::StatefulSet, name) => Ok(name),
            (other, _) => Err(CliError::refused(format!("only a statefulset can do this, not a {}", other.word()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn kinds_and_names_are_understood() {
        let pod = |name: &str| (Resource::Pod, name.to_owned());
        assert_eq!(Targets::parse(&words("po a b")).unwrap(), Targets::Objects(vec![pod("a"), pod("b")]));
        assert_eq!(
            Targets::parse(&words("pod/a sts/b")).unwrap(),
            Targets::Objects(vec![pod("a"), (Resource::StatefulSet, "b".into())])
        );
        let all = [Resource::Pod, Resource::Service, Resource::StatefulSet, Resource::Claim];
        assert_eq!(Targets::parse(&words("all,pvc,pods")).unwrap(), Targets::Kinds(all.to_vec()));
        assert!(Targets::parse(&words("pod/a b")).is_err());
    }

    #[test]
    fn a_misspelled_kind_gets_a_suggestion() {
        let error = Resource::parse("statefulest").unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("did you mean \"statefulset\"?"));
        assert!(Resource::parse("podz").unwrap_err().hint.unwrap().contains("pod"));
    }
}
