//! Verbs that end or move objects that are there: `delete`, `scale`, `cordon`, `uncordon`.

use std::time::Duration;

use api::v1;
use api::v1::nodes_client::NodesClient;
use api::v1::stateful_sets_client::StatefulSetsClient;
use tokio::time::Instant;

use crate::apply::read_files;
use crate::args::{Cascade, Delete, Scale};
use crate::connect::{Session, new_request_id};
use crate::error::CliError;
use crate::fetch::{self, DeleteOptions, change};
use crate::print;
use crate::resource::{Resource, Targets};

const GONE_PAUSE_MS: u64 = 100;

/// Deletes objects.
pub(crate) async fn delete(
    session: &Session,
    args: &Delete,
    namespace: Option<&str>,
    request_id: Option<&String>,
) -> Result<(), CliError> {
    let objects = named(session, args, namespace).await?;
    if request_id.is_some() && objects.len() != 1 {
        return Err(CliError::usage("--request-id repeats one change, but several objects are named"));
    }
    let grace = match (args.grace_period, args.force) {
        (Some(seconds), true) if 0 < seconds => {
            return Err(CliError::usage("--force takes nothing but --grace-period=0"));
        }
        (_, true) => Some(0),
        // Only --force may leave out the stop.
        (Some(0), false) => Some(1),
        (seconds, false) => seconds,
    };
    let options = DeleteOptions {
        grace_period_seconds: grace,
        force: args.force,
        orphan: args.cascade == Cascade::Orphan,
        request_id: request_id.cloned(),
    };
    let mut left = Vec::new();
    for (resource, namespace, name) in &objects {
        warn(*resource, name, args.force);
        // Asked before, or it might be the next pod's already.
        let uid = if args.wait { uid_of(session, *resource, namespace, name).await? } else { None };
        let is_gone = match fetch::delete(session, *resource, namespace, name, &options).await {
            Err(error) if error.is_not_found && args.ignore_not_found => continue,
            result => result?,
        };
        let word = if is_gone { "deleted" } else { "deletion requested" };
        print::line(format!("{} {name:?} {word}", resource.output_name()));
        if !is_gone {
            left.push(Left { resource: *resource, namespace: namespace.clone(), name: name.clone(), uid });
        }
    }
    if args.wait {
        wait_gone(session, &left, args.timeout).await?;
    }
    Ok(())
}

async fn named(
    session: &Session,
    args: &Delete,
    namespace: Option<&str>,
) -> Result<Vec<(Resource, String, String)>, CliError> {
    if !args.files.is_empty() {
        let given = read_files(&args.files, namespace)?;
        let objects = given.iter().filter_map(|given| {
            let object = given.object();
            let resource = Resource::of_kind(object.kind().kind)?;
            Some((resource, object.namespace().to_owned(), object.name().to_owned()))
        });
        return Ok(objects.collect());
    }
    let namespace = namespace.unwrap_or("default");
    match Targets::parse(&args.targets)? {
        Targets::Kinds(kinds) if args.all || !args.selector.is_empty() => {
            let mut objects = Vec::new();
            for resource in kinds {
                let (_, found) = fetch::list(session, resource, namespace, &args.selector).await?;
                objects.extend(found.iter().map(|o| (resource, o.namespace().to_owned(), o.name().to_owned())));
            }
            if objects.is_empty() {
                print::note("No resources found");
            }
            Ok(objects)
        }
        Targets::Kinds(_) => {
            Err(CliError::usage("names are missing: delete KIND NAME…, or --all or -l key=value")
                .hint("holdfast get KIND"))
        }
        Targets::Objects(_) if args.all || !args.selector.is_empty() => {
            Err(CliError::usage("names do not go together with --all or -l"))
        }
        Targets::Objects(objects) => {
            Ok(objects.into_iter().map(|(resource, name)| (resource, namespace.to_owned(), name)).collect())
        }
    }
}

/// Says what the caller answers for.
fn warn(resource: Resource, name: &str, is_forced: bool) {
    match resource {
        Resource::Pod if is_forced => print::note(format!(
            "warning: you assert that every process of pod/{name} is dead. If one still runs, two copies may write to \
             the same volume."
        )),
        Resource::Node => print::note(format!(
            "warning: you assert that node/{name} is gone for good, and with it every process of its pods. If one still \
             runs, two copies may write to the same volume."
        )),
        _ => {}
    }
}

/// An object that was there when its deletion was asked for.
struct Left {
    resource: Resource,
    namespace: String,
    name: String,
    uid: Option<String>,
}

async fn uid_of(
    session: &Session,
    resource: Resource,
    namespace: &str,
    name: &str,
) -> Result<Option<String>, CliError> {
    let found = fetch::find(session, resource, namespace, name).await?;
    Ok(found.and_then(|object| object.metadata().map(|metadata| metadata.uid.clone())))
}

async fn wait_gone(session: &Session, left: &[Left], within_ms: u64) -> Result<(), CliError> {
    let deadline = Instant::now() + Duration::from_millis(within_ms);
    for Left { resource, namespace, name, uid } in left {
        // A pod of the same name comes again, under another uid.
        while uid.is_some() && uid_of(session, *resource, namespace, name).await? == *uid {
            if deadline <= Instant::now() {
                let target = format!("{}/{name}", resource.word());
                return Err(
                    CliError::refused(format!("{target} is still there")).hint(format!("holdfast why {target}"))
                );
            }
            tokio::time::sleep(Duration::from_millis(GONE_PAUSE_MS)).await;
        }
    }
    Ok(())
}

/// Changes how many pods a set has.
pub(crate) async fn scale(
    session: &Session,
    args: &Scale,
    namespace: &str,
    request_id: Option<&String>,
) -> Result<(), CliError> {
    let name = Targets::parse_set(&args.target)?;
    let request = v1::ScaleStatefulSetRequest {
        namespace: namespace.to_owned(),
        name: name.clone(),
        replicas: args.replicas,
        current_replicas: args.current_replicas,
        request_id: chosen(request_id)?,
        expected_revision: None,
        force_unready: args.force_unready,
    };
    change!(session, StatefulSetsClient.scale(request))?;
    print::line(format!("statefulset.apps/{name} scaled"));
    Ok(())
}

/// Keeps new pods away from nodes, or lets them on again.
pub(crate) async fn cordon(
    session: &Session,
    nodes: &[String],
    is_cordoned: bool,
    request_id: Option<&String>,
) -> Result<(), CliError> {
    if request_id.is_some() && nodes.len() != 1 {
        return Err(CliError::usage("--request-id repeats one change, but several nodes are named"));
    }
    for node in nodes {
        let name = node.strip_prefix("node/").unwrap_or(node).to_owned();
        let request = v1::NodeRequest { name: name.clone(), request_id: chosen(request_id)?, expected_revision: None };
        let word = if is_cordoned {
            change!(session, NodesClient.cordon(request))?;
            "cordoned"
        } else {
            change!(session, NodesClient.uncordon(request))?;
            "uncordoned"
        };
        print::line(format!("node/{name} {word}"));
    }
    Ok(())
}

pub(crate) fn chosen(request_id: Option<&String>) -> Result<String, CliError> {
    request_id.map_or_else(new_request_id, |given| Ok(given.clone()))
}
