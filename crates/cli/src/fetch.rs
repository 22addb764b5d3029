//! Reading and changing objects of any kind through the services of their kinds. Never prints.

use api::manifest::Object;
use api::v1;
use api::v1::cluster_client::ClusterClient;
use api::v1::configs_client::ConfigsClient;
use api::v1::disruptions_client::DisruptionsClient;
use api::v1::history_client::HistoryClient;
use api::v1::nodes_client::NodesClient;
use api::v1::pods_client::PodsClient;
use api::v1::services_client::ServicesClient;
use api::v1::stateful_sets_client::StatefulSetsClient;
use api::v1::storage_client::StorageClient;

use crate::connect::{REPLY_BYTES_MAX, Session, new_request_id};
use crate::error::CliError;
use crate::resource::Resource;

/// Calls a method of a service and returns its reply.
macro_rules! read {
    ($session:expr, $client:ident.$method:ident($request:expr)) => {{
        let request = $request;
        $session
            .read(|channel| {
                let request = request.clone();
                async move {
                    $client::new(channel)
                        .max_decoding_message_size($crate::connect::REPLY_BYTES_MAX)
                        .$method(request)
                        .await
                }
            })
            .await
    }};
}

/// Calls a method that changes something; the request has a `request_id`.
macro_rules! change {
    ($session:expr, $client:ident.$method:ident($request:expr)) => {{
        let request = $request;
        $session
            .change(&request.request_id, |channel| {
                let request = request.clone();
                async move { $client::new(channel).$method(request).await }
            })
            .await
    }};
}

pub(crate) use {change, read};

/// Every object of a kind, and the revision of the answer. Every namespace if `namespace` is empty.
pub(crate) async fn list(
    session: &Session,
    resource: Resource,
    namespace: &str,
    selector: &str,
) -> Result<(u64, Vec<Object>), CliError> {
    let request =
        v1::ListRequest { namespace: namespace.to_owned(), label_selector: selector.to_owned(), stale: false };
    macro_rules! all {
        ($client:ident.$method:ident) => {{
            let reply = read!(session, $client.$method(request))?;
            (reply.revision, reply.items.into_iter().map(Object::from).collect())
        }};
    }
    Ok(match resource {
        Resource::StatefulSet => all!(StatefulSetsClient.list),
        Resource::Pod => all!(PodsClient.list),
        Resource::Claim => all!(StorageClient.list_claims),
        Resource::Volume => all!(StorageClient.list_volumes),
        Resource::Class => all!(StorageClient.list_classes),
        Resource::Node => all!(NodesClient.list),
        Resource::Service => all!(ServicesClient.list),
        Resource::Endpoints => all!(ServicesClient.list_endpoints),
        Resource::Budget => all!(DisruptionsClient.list),
        Resource::ConfigMap => all!(ConfigsClient.list_config_maps),
        Resource::Secret => all!(ConfigsClient.list_secrets),
        Resource::Revision => all!(StatefulSetsClient.list_revisions),
        Resource::Attachment => all!(StorageClient.list_attachments),
        Resource::Event => {
            let filter = v1::WatchRequest { namespace: namespace.to_owned(), ..history() };
            let events = past_events(session, filter).await?;
            (events.last().map_or(0, |event| event.revision), events.into_iter().map(event_object).collect())
        }
    })
}

/// One object, and the revision of the answer.
pub(crate) async fn get(
    session: &Session,
    resource: Resource,
    namespace: &str,
    name: &str,
) -> Result<(u64, Object), CliError> {
    let request = v1::GetRequest { namespace: namespace.to_owned(), name: name.to_owned(), stale: false };
    macro_rules! one {
        ($client:ident.$method:ident) => {{
            let reply = read!(session, $client.$method(request)).map_err(|error| about(error, resource, name))?;
            (reply.revision, Object::from(reply.object.ok_or_else(no_object)?))
        }};
    }
    Ok(match resource {
        Resource::StatefulSet => one!(StatefulSetsClient.get),
        Resource::Pod => one!(PodsClient.get),
        Resource::Claim => one!(StorageClient.get_claim),
        Resource::Volume => one!(StorageClient.get_volume),
        Resource::Class => one!(StorageClient.get_class),
        Resource::Node => one!(NodesClient.get),
        Resource::Service => one!(ServicesClient.get),
        Resource::Endpoints => one!(ServicesClient.get_endpoints),
        Resource::Budget => one!(DisruptionsClient.get),
        Resource::ConfigMap => one!(ConfigsClient.get_config_map),
        Resource::Secret => one!(ConfigsClient.get_secret),
        Resource::Revision => one!(StatefulSetsClient.get_revision),
        Resource::Attachment => one!(StorageClient.get_attachment),
        Resource::Event => {
            return Err(CliError::refused("events have no names").hint("holdfast events --for KIND/NAME"));
        }
    })
}

/// One object, or nothing if there is none of this name.
pub(crate) async fn find(
    session: &Session,
    resource: Resource,
    namespace: &str,
    name: &str,
) -> Result<Option<Object>, CliError> {
    match get(session, resource, namespace, name).await {
        Ok((_, object)) => Ok(Some(object)),
        Err(error) if error.is_not_found => Ok(None),
        Err(error) => Err(error),
    }
}

/// How an object is applied.
#[derive(Clone, Debug, Default)]
pub(crate) struct ApplyOptions {
    /// Checked only.
    pub(crate) dry_run: bool,
    /// Refused if the object was changed after this revision.
    pub(crate) expected_revision: Option<u64>,
    /// The id of the request; a new one if there is none.
    pub(crate) request_id: Option<String>,
}

/// Makes or changes an object; returns what became of it, and warnings.
pub(crate) async fn apply(
    session: &Session,
    object: Object,
    options: &ApplyOptions,
) -> Result<(Object, Vec<String>), CliError> {
    let request_id = request_id(options.request_id.as_ref())?;
    let ApplyOptions { dry_run, expected_revision, .. } = *options;
    macro_rules! put {
        ($client:ident.$method:ident($request:ident, $object:expr)) => {{
            let request = v1::$request { object: Some(*$object), request_id, expected_revision, dry_run };
            let reply = change!(session, $client.$method(request))?;
            Object::from(reply.object.ok_or_else(no_object)?)
        }};
    }
    let applied = match object {
        Object::StatefulSet(set) => {
            let request = v1::ApplyStatefulSetRequest { object: Some(*set), request_id, expected_revision, dry_run };
            let reply = change!(session, StatefulSetsClient.apply(request))?;
            return Ok((Object::from(reply.object.ok_or_else(no_object)?), reply.warnings));
        }
        Object::PersistentVolumeClaim(claim) => {
            let names = claim.metadata.as_ref().map_or_else(Vec::new, |metadata| metadata.finalizers.clone());
            let (finalizers, object) = (Some(v1::Finalizers { names }), Some((*claim).clone()));
            let request = v1::ApplyClaimRequest { object, request_id, expected_revision, dry_run, finalizers };
            let reply = change!(session, StorageClient.apply_claim(request))?;
            // Without its last finalizer it may be gone by now: then that is what became of it.
            Object::from(reply.object.unwrap_or(*claim))
        }
        Object::PersistentVolume(volume) => put!(StorageClient.apply_volume(ApplyVolumeRequest, volume)),
        Object::StorageClass(class) => put!(StorageClient.apply_class(ApplyClassRequest, class)),
        Object::PodDisruptionBudget(budget) => put!(DisruptionsClient.apply(ApplyBudgetRequest, budget)),
        Object::ConfigMap(config) => put!(ConfigsClient.apply_config_map(ApplyConfigMapRequest, config)),
        Object::Secret(secret) => put!(ConfigsClient.apply_secret(ApplySecretRequest, secret)),
        Object::Service(service) => put!(ServicesClient.apply(ApplyServiceRequest, service)),
        other => return Err(not_applicable(other.kind().kind)),
    };
    Ok((applied, Vec::new()))
}

/// Why an object of this kind is not applied.
pub(crate) fn not_applicable(kind: &str) -> CliError {
    let error = CliError::refused(format!("a {kind} cannot be applied: the cluster makes it itself"));
    error.hint(
        "apply a StatefulSet, Service, ConfigMap, Secret, PersistentVolumeClaim, PersistentVolume, StorageClass or \
         PodDisruptionBudget",
    )
}

/// How an object is deleted.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    /// How long a pod may take to stop.
    pub(crate) grace_period_seconds: Option<i64>,
    /// Whether the caller asserts that the pod's processes are dead.
    pub(crate) force: bool,
    /// Whether a set's pods stay.
    pub(crate) orphan: bool,
    /// The id of the request; a new one if there is none.
    pub(crate) request_id: Option<String>,
}

/// Deletes an object; returns whether it is gone already.
pub(crate) async fn delete(
    session: &Session,
    resource: Resource,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
) -> Result<bool, CliError> {
    let request_id = request_id(options.request_id.as_ref())?;
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    let named = name.clone();
    let plain = v1::DeleteRequest {
        namespace: namespace.clone(),
        name: name.clone(),
        request_id: request_id.clone(),
        expected_revision: None,
    };
    let reply = match resource {
        Resource::StatefulSet => {
            let orphan = options.orphan;
            let request = v1::DeleteStatefulSetRequest { namespace, name, orphan, request_id, expected_revision: None };
            change!(session, StatefulSetsClient.delete(request))
        }
        Resource::Pod => {
            let request = v1::DeletePodRequest {
                namespace,
                name,
                grace_period_seconds: options.grace_period_seconds,
                force: options.force,
                request_id,
                ..v1::DeletePodRequest::default()
            };
            change!(session, PodsClient.delete(request))
        }
        Resource::Node => {
            let request = v1::NodeRequest { name, request_id, expected_revision: None };
            let removed = change!(session, NodesClient.remove(request));
            removed.map(|reply| v1::DeleteReply { revision: reply.revision, gone: true })
        }
        Resource::Claim => change!(session, StorageClient.delete_claim(plain)),
        Resource::Volume => change!(session, StorageClient.delete_volume(plain)),
        Resource::Class => change!(session, StorageClient.delete_class(plain)),
        Resource::Service => change!(session, ServicesClient.delete(plain)),
        Resource::Budget => change!(session, DisruptionsClient.delete(plain)),
        Resource::ConfigMap => change!(session, ConfigsClient.delete_config_map(plain)),
        Resource::Secret => change!(session, ConfigsClient.delete_secret(plain)),
        Resource::Attachment | Resource::Endpoints | Resource::Event | Resource::Revision => {
            return Err(
                CliError::refused(format!("a {} cannot be deleted", resource.word())).hint("holdfast why pod/NAME")
            );
        }
    };
    Ok(reply.map_err(|error| about(error, resource, &named))?.gone)
}

/// The state of the cluster but for its digest, within a time.
pub(crate) async fn status(session: &Session, stale: bool, within_ms: u64) -> Result<v1::StatusReply, CliError> {
    ask_for_status(session, v1::StatusRequest { stale, without_digest: true }, within_ms).await
}

/// The state of the cluster with its digest, within a time.
pub(crate) async fn digested_status(
    session: &Session,
    stale: bool,
    within_ms: u64,
) -> Result<v1::StatusReply, CliError> {
    ask_for_status(session, v1::StatusRequest { stale, without_digest: false }, within_ms).await
}

async fn ask_for_status(
    session: &Session,
    request: v1::StatusRequest,
    within_ms: u64,
) -> Result<v1::StatusReply, CliError> {
    let ask = |channel| async move {
        ClusterClient::new(channel).max_decoding_message_size(REPLY_BYTES_MAX).status(request).await
    };
    session.read_within(within_ms, ask).await
}

/// How full the volume of a claim is, within a time.
pub(crate) async fn claim_usage(
    session: &Session,
    namespace: &str,
    name: &str,
    within_ms: u64,
) -> Result<v1::ClaimUsageReply, CliError> {
    let request =
        v1::GetRequest { namespace: namespace.to_owned(), name: name.to_owned(), ..v1::GetRequest::default() };
    let ask = |channel| {
        let request = request.clone();
        async move { StorageClient::new(channel).get_claim_usage(request).await }
    };
    session.read_within(within_ms, ask).await
}

/// Everything that is remembered, until now.
pub(crate) fn history() -> v1::WatchRequest {
    v1::WatchRequest { since_revision: Some(0), until_now: true, ..v1::WatchRequest::default() }
}

/// Begins to watch.
pub(crate) async fn watch(
    session: &Session,
    request: v1::WatchRequest,
) -> Result<tonic::Streaming<v1::WatchReply>, CliError> {
    read!(session, HistoryClient.watch(request))
}

/// All events of a watch that ends by itself.
pub(crate) async fn past_events(session: &Session, request: v1::WatchRequest) -> Result<Vec<v1::Event>, CliError> {
    let mut stream = watch(session, request).await?;
    let mut events = Vec::new();
    while let Some(reply) = stream.message().await? {
        events.extend(reply.events);
    }
    Ok(events)
}

fn event_object(event: v1::Event) -> Object {
    let at = api::time::format_ms(event.at_ms);
    let metadata = v1::ObjectMeta {
        name: format!("{}.{}", event.name, event.revision),
        namespace: event.namespace.clone(),
        resource_version: event.revision.to_string(),
        creation_timestamp: at.clone(),
        ..v1::ObjectMeta::default()
    };
    let involved = v1::ObjectReference {
        kind: event.kind,
        namespace: event.namespace,
        name: event.name,
        uid: event.uid,
        ..v1::ObjectReference::default()
    };
    Object::from(v1::ObjectEvent {
        metadata: Some(metadata),
        involved_object: Some(involved),
        reason: event.r#type,
        message: event.message,
        r#type: "Normal".to_owned(),
        first_timestamp: at.clone(),
        last_timestamp: at,
        count: 1,
        reporting_component: event.actor,
        ..v1::ObjectEvent::default()
    })
}

fn request_id(given: Option<&String>) -> Result<String, CliError> {
    given.map_or_else(new_request_id, |given| Ok(given.clone()))
}

fn about(error: CliError, resource: Resource, name: &str) -> CliError {
    if !error.is_not_found {
        return error;
    }
    let all = if resource.is_namespaced() { " -A" } else { "" };
    CliError::not_found(format!("{} {name:?} not found", resource.word()))
        .hint(format!("holdfast get {}{all}", resource.word()))
}

fn no_object() -> CliError {
    CliError::refused("the server answered without an object")
}
