//! The pods that a command line means: by name, or as those of a set or a service. Never prints.

use std::collections::BTreeMap;

use api::v1;
use api::v1::pods_client::PodsClient;
use api::v1::services_client::ServicesClient;
use api::v1::stateful_sets_client::StatefulSetsClient;

use crate::connect::Session;
use crate::error::CliError;
use crate::fetch::read;
use crate::resource::{Resource, Targets};

/// What a word names that stands for pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// POD or pod/POD.
    Pod(String),
    /// sts/NAME.
    Set(String),
    /// svc/NAME.
    Service(String),
}

impl Named {
    /// Understands POD, pod/POD, sts/NAME and svc/NAME.
    pub(crate) fn parse(text: &str) -> Result<Self, CliError> {
        if !text.contains('/') {
            return Ok(Self::Pod(text.to_owned()));
        }
        match Targets::parse_one(&[text.to_owned()])? {
            (Resource::Pod, name) => Ok(Self::Pod(name)),
            (Resource::StatefulSet, name) => Ok(Self::Set(name)),
            (Resource::Service, name) => Ok(Self::Service(name)),
            (other, _) => {
                Err(CliError::usage(format!("this is for pods, sets and services, and {text} is a {}", other.word())))
            }
        }
    }
}

/// The one pod that is meant: of several, the first that is ready, or the first.
pub(crate) async fn one_pod(session: &Session, namespace: &str, named: &Named) -> Result<v1::Pod, CliError> {
    let mut pods = pods(session, namespace, named).await?;
    let ready = pods.iter().position(is_ready).unwrap_or_default();
    Ok(pods.swap_remove(ready))
}

/// The name of the one pod that a word means.
pub(crate) async fn one_pod_name(session: &Session, namespace: &str, text: &str) -> Result<String, CliError> {
    let pod = one_pod(session, namespace, &Named::parse(text)?).await?;
    Ok(pod.metadata.unwrap_or_default().name)
}

/// The pods that are meant, at least one, in order.
pub(crate) async fn pods(session: &Session, namespace: &str, named: &Named) -> Result<Vec<v1::Pod>, CliError> {
    let get = |name: &str| v1::GetRequest { namespace: namespace.to_owned(), name: name.to_owned(), stale: false };
    let (what, labels) = match named {
        Named::Pod(name) => {
            let reply = read!(session, PodsClient.get(get(name)))?;
            return Ok(reply.object.into_iter().collect());
        }
        Named::Set(name) => {
            let object = read!(session, StatefulSetsClient.get(get(name)))?.object;
            let selector = object.and_then(|set| set.spec).and_then(|spec| spec.selector).unwrap_or_default();
            (format!("statefulset/{name}"), selector.match_labels)
        }
        Named::Service(name) => {
            let object = read!(session, ServicesClient.get(get(name)))?.object;
            (format!("service/{name}"), object.and_then(|service| service.spec).unwrap_or_default().selector)
        }
    };
    let pods = selected(session, namespace, &as_selector(labels)).await?;
    if pods.is_empty() {
        return Err(CliError::refused(format!("{what} has no pods")).hint(format!("holdfast why {what}")));
    }
    Ok(pods)
}

/// The pods with these labels.
pub(crate) async fn selected(session: &Session, namespace: &str, selector: &str) -> Result<Vec<v1::Pod>, CliError> {
    let (namespace, label_selector) = (namespace.to_owned(), selector.to_owned());
    Ok(read!(session, PodsClient.list(v1::ListRequest { namespace, label_selector, stale: false }))?.items)
}

fn as_selector(labels: impl IntoIterator<Item = (String, String)>) -> String {
    let sorted: BTreeMap<_, _> = labels.into_iter().collect();
    sorted.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn is_ready(pod: &v1::Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|condition| condition.r#type == "Ready" && condition.status == "True")
}
