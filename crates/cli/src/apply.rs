//! `apply`: manifests are read and checked, all of them, before the first is applied.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use api::manifest::{self, Document, Object};
use api::patch::three_way;
use api::v1;
use serde_json::Value;
use tokio::time::Instant;

use crate::args::Apply;
use crate::connect::Session;
use crate::error::CliError;
use crate::fetch::{self, ApplyOptions, read};
use crate::listing;
use crate::print;
use crate::resource::Resource;

use api::v1::stateful_sets_client::StatefulSetsClient;

/// The pause between two looks at a set that is becoming ready.
const LOOK_PAUSE_MS: u64 = 100;

/// How often a manifest is applied again because what is there was changed meanwhile.
const RACES_MAX: usize = 16;

/// A document and the file that it stands in.
#[derive(Debug)]
pub(crate) struct Given {
    file: String,
    document: Document,
}

impl Given {
    /// The object that is given.
    pub(crate) fn object(&self) -> &Object {
        &self.document.object
    }
}

/// Reads all documents of all files; every mistake of every file is told.
pub(crate) fn read_files<P: AsRef<Path>>(files: &[P], namespace: Option<&str>) -> Result<Vec<Given>, CliError> {
    let (mut given, mut mistakes) = (Vec::new(), Vec::new());
    let mut hint = None;
    for file in files {
        let file = file.as_ref();
        let (name, text) = read_text(file)?;
        match manifest::parse(&name, &text) {
            Ok(documents) => {
                given.extend(documents.into_iter().map(|document| Given { file: name.clone(), document }));
            }
            Err(errors) => {
                for error in errors {
                    mistakes.push(error.to_string());
                    hint = hint.or(error.hint);
                }
            }
        }
    }
    if !mistakes.is_empty() {
        let count = mistakes.len();
        let mistakes = mistakes.join("\n  ");
        let error = CliError::refused(format!("nothing was applied: {count} mistakes found\n  {mistakes}"));
        let error = match hint {
            Some(hint) => error.hint(hint),
            None => error.hint("correct the manifest, then check it with: holdfast apply --dry-run -f FILE"),
        };
        return Err(if count == 1 {
            CliError { message: error.message.replace("1 mistakes", "1 mistake"), ..error }
        } else {
            error
        });
    }
    if let Some(namespace) = namespace {
        given.iter_mut().for_each(|given| set_namespace(&mut given.document.object, namespace));
    }
    Ok(given)
}

/// The storage classes that clusters on one machine begin with.
pub(crate) const STORAGE_CLASSES: &str = include_str!("../../../cluster-config/storage-classes.yaml");

/// Reads the built-in storage classes, or what somebody has made of them.
pub(crate) fn read_classes(text: &str) -> Vec<Given> {
    let file = "storage-classes.yaml";
    let documents = manifest::parse(file, text).expect("invariant: what is built in is well-formed");
    documents.into_iter().map(|document| Given { file: file.to_owned(), document }).collect()
}

fn read_text(file: &Path) -> Result<(String, String), CliError> {
    let failed = |error| CliError::refused(format!("cannot read {}: {error}", file.display()));
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(failed)?;
        return Ok(("<stdin>".to_owned(), text));
    }
    let text = std::fs::read_to_string(file).map_err(failed)?;
    Ok((file.display().to_string(), text))
}

fn set_namespace(object: &mut Object, namespace: &str) {
    let metadata = match object {
        Object::StatefulSet(object) => &mut object.metadata,
        Object::PersistentVolumeClaim(object) => &mut object.metadata,
        Object::Service(object) => &mut object.metadata,
        Object::PodDisruptionBudget(object) => &mut object.metadata,
        Object::ConfigMap(object) => &mut object.metadata,
        Object::Secret(object) => &mut object.metadata,
        _ => return,
    };
    let metadata = metadata.get_or_insert_default();
    if metadata.namespace.is_empty() {
        metadata.namespace = namespace.to_owned();
    }
}

/// Applies manifests.
pub(crate) async fn apply(
    session: &Session,
    args: &Apply,
    namespace: Option<&str>,
    request_id: Option<&String>,
) -> Result<(), CliError> {
    let given = read_files(&args.files, namespace)?;
    if request_id.is_some() && given.len() != 1 {
        return Err(CliError::usage("--request-id repeats one change, but the files have several objects"));
    }
    let options = ApplyOptions { dry_run: args.dry_run, request_id: request_id.cloned(), ..ApplyOptions::default() };
    let sets = apply_all(session, &given, &options, true).await?;
    if args.wait && !args.dry_run {
        for (namespace, name) in sets {
            wait_ready(session, &namespace, &name, args.timeout).await?;
        }
    }
    Ok(())
}

/// The annotation that holds a manifest as it was applied last, as `kubectl apply` writes it.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What an object becomes by a manifest, given what is there.
fn merged(given: &Given, live: Option<&Object>) -> Result<Object, CliError> {
    let mut new = serde_json::to_value(given.object())?;
    if let Some(Value::Object(annotations)) = new.pointer_mut("/metadata/annotations") {
        annotations.remove(LAST_APPLIED);
    }
    let applied = serde_json::to_string(&new)?;
    let mut object = match live {
        None => new,
        Some(live) => {
            let live = serde_json::to_value(live)?;
            let last = live["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap_or("null");
            // What somebody else wrote there, and is no JSON, tells nothing.
            let last: Value = serde_json::from_str(last).unwrap_or_default();
            three_way(&last, &new, &live)
        }
    };
    object["metadata"]["annotations"][LAST_APPLIED] = Value::String(applied);
    let text = manifest::to_json(&object)?;
    let unreadable = || CliError::refused("the manifest does not go together with what is there");
    let documents = manifest::parse(&given.file, &text).map_err(|_| unreadable())?;
    documents.into_iter().next().map(|document| document.object).ok_or_else(unreadable)
}

/// Applies one manifest to what is there, again if that is changed meanwhile; returns the object before and after it.
pub(crate) async fn apply_one(
    session: &Session,
    given: &Given,
    options: &ApplyOptions,
) -> Result<(Option<Object>, Object, Vec<String>), CliError> {
    let object = given.object();
    let resource = applicable(object)?;
    let mut race = 1;
    loop {
        let before = fetch::find(session, resource, object.namespace(), object.name()).await?;
        let version = before.as_ref().and_then(Object::metadata).map(|metadata| metadata.resource_version.parse().ok());
        let options = ApplyOptions { expected_revision: version.unwrap_or(Some(0)), ..options.clone() };
        match fetch::apply(session, merged(given, before.as_ref())?, &options).await {
            Err(error) if error.is_lost_race && race < RACES_MAX => race += 1,
            result => return result.map(|(after, warnings)| (before, after, warnings)),
        }
    }
}

/// Checks all, then applies all; returns the namespaces and names of the sets among them.
pub(crate) async fn apply_all(
    session: &Session,
    given: &[Given],
    options: &ApplyOptions,
    is_shown: bool,
) -> Result<Vec<(String, String)>, CliError> {
    for given in given {
        let check = ApplyOptions { dry_run: true, ..ApplyOptions::default() };
        apply_one(session, given, &check).await.map_err(|error| placed(given, error))?;
    }
    let mut sets = Vec::new();
    for given in given {
        let object = given.object();
        let resource = applicable(object)?;
        let applied = apply_one(session, given, options).await;
        let (before, after, warnings) = applied.map_err(|error| placed(given, error))?;
        for warning in warnings {
            print::note(format!("warning: {warning}"));
        }
        let word = match before {
            None => "created",
            Some(before) if wish(&before)? == wish(&after)? => "unchanged",
            Some(_) => "configured",
        };
        let suffix = if options.dry_run { " (dry run)" } else { "" };
        if is_shown {
            print::line(format!("{}/{} {word}{suffix}", resource.output_name(), object.name()));
        }
        if resource == Resource::StatefulSet {
            sets.push((object.namespace().to_owned(), object.name().to_owned()));
        }
    }
    Ok(sets)
}

fn applicable(object: &Object) -> Result<Resource, CliError> {
    let kind = object.kind().kind;
    match Resource::of_kind(kind) {
        Some(Resource::Pod | Resource::Node | Resource::Attachment | Resource::Event | Resource::Revision) | None => {
            Err(fetch::not_applicable(kind))
        }
        Some(resource) => Ok(resource),
    }
}

/// With the place in the file. A refusal begins with the path of its field.
pub(crate) fn placed(given: &Given, error: CliError) -> CliError {
    let path = error.message.split([':', ' ']).next().unwrap_or_default();
    let place = given.document.place(path);
    let message = format!("{}:{}:{}: {}", given.file, place.line, place.column, error.message);
    CliError { message, ..error }
}

/// What a user wished for: everything that the server does not set by itself.
fn wish(object: &Object) -> Result<Value, CliError> {
    let mut value = serde_json::to_value(object)?;
    if let Value::Object(fields) = &mut value {
        fields.remove("status");
        if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
            metadata.retain(|field, _| field == "labels" || field == "annotations");
        }
    }
    Ok(value)
}

/// Shows each pod of a set becoming ready until all are.
pub(crate) async fn wait_ready(session: &Session, namespace: &str, name: &str, within_ms: u64) -> Result<(), CliError> {
    let began = Instant::now();
    let deadline = began + Duration::from_millis(within_ms);
    let mut shown: Vec<String> = Vec::new();
    loop {
        let request = v1::GetRequest { namespace: namespace.to_owned(), name: name.to_owned(), stale: false };
        let rollout = read!(session, StatefulSetsClient.rollout_status(request))?;
        let uid = rollout.object.and_then(|set| set.metadata).unwrap_or_default().uid;
        for object in fetch::list(session, Resource::Pod, namespace, "").await?.1 {
            let Object::Pod(pod) = &object else { continue };
            let metadata = pod.metadata.clone().unwrap_or_default();
            let is_ours = metadata.owner_references.iter().any(|owner| owner.uid == uid);
            let is_ready = pod.status.as_ref().is_some_and(|status| listing::is_true(&status.conditions, "Ready"));
            if is_ours && is_ready && !shown.contains(&metadata.uid) {
                let node = pod.spec.as_ref().map_or("", |spec| &spec.node_name);
                let seconds = began.elapsed().as_secs_f64();
                print::note(format!("pod/{} is ready on {node} ({seconds:.1} s)", metadata.name));
                shown.push(metadata.uid);
            }
        }
        if rollout.done {
            return Ok(());
        }
        if deadline <= Instant::now() {
            let hint = format!("holdfast why statefulset/{name}");
            return Err(CliError::refused(format!("statefulset/{name} is not ready: {}", rollout.message)).hint(hint));
        }
        tokio::time::sleep(Duration::from_millis(LOOK_PAUSE_MS)).await;
    }
}
