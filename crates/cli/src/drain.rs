//! `drain`: every pod of a node is evicted, as far as disruption budgets allow it. Never waits for a held pod.

use std::time::Duration;

use api::manifest::Object;
use api::v1;
use api::v1::pods_client::PodsClient;
use tokio::time::Instant;

use crate::args::Drain;
use crate::change;
use crate::connect::{Session, new_request_id};
use crate::error::CliError;
use crate::fetch;
use crate::listing;
use crate::print;
use crate::resource::Resource;

/// The pause before a budget is asked again.
const RETRY_PAUSE_MS: u64 = 500;
/// The pause between two looks at a pod that is stopping.
const LOOK_PAUSE_MS: u64 = 100;

/// Drains a node.
pub(crate) async fn drain(session: &Session, args: &Drain) -> Result<(), CliError> {
    let node = args.node.strip_prefix("node/").unwrap_or(&args.node).to_owned();
    change::cordon(session, std::slice::from_ref(&node), true, None).await?;
    let pods = pods_on(session, &node).await?;
    let orphans: Vec<_> = pods.iter().filter(|pod| metadata(pod).owner_references.is_empty()).map(name).collect();
    if !orphans.is_empty() && !args.force {
        let message = format!("no set owns {}: nothing would make them again", orphans.join(", "));
        return Err(CliError::refused(message).hint(format!("holdfast drain {node} --force")));
    }
    let (held, pods): (Vec<_>, Vec<_>) = pods.into_iter().partition(listing::is_held);
    for pod in &held {
        print::note(format!("warning: pod/{} is held and stays: holdfast why pod/{0}", name(pod)));
    }
    let deadline = args.timeout.map(|ms| Instant::now() + Duration::from_millis(ms));
    for pod in &pods {
        end(session, args, pod, deadline).await?;
        print::line(format!("pod/{} evicted", name(pod)));
    }
    let left: Vec<_> = pods.iter().map(|pod| (metadata(pod).namespace, name(pod), metadata(pod).uid)).collect();
    wait_until_gone(session, &left, deadline).await?;
    if held.is_empty() {
        print::line(format!("node/{node} drained"));
        return Ok(());
    }
    let count = held.len();
    Err(CliError::refused(format!("node/{node} is drained except for {count} held pods"))
        .hint(format!("holdfast why node/{node}")))
}

fn metadata(pod: &v1::Pod) -> v1::ObjectMeta {
    pod.metadata.clone().unwrap_or_default()
}

fn name(pod: &v1::Pod) -> String {
    metadata(pod).name
}

async fn pods_on(session: &Session, node: &str) -> Result<Vec<v1::Pod>, CliError> {
    let (_, objects) = fetch::list(session, Resource::Pod, "", "").await?;
    let pods = objects.into_iter().filter_map(|object| match object {
        Object::Pod(pod) => Some(*pod),
        _ => None,
    });
    Ok(pods.filter(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name == node)).collect())
}

/// Stops one pod, and waits for its budget until then.
async fn end(session: &Session, args: &Drain, pod: &v1::Pod, deadline: Option<Instant>) -> Result<(), CliError> {
    let v1::ObjectMeta { namespace, name, uid, .. } = metadata(pod);
    let mut is_told = false;
    loop {
        let request_id = new_request_id()?;
        let grace_period_seconds = args.grace_period.filter(|seconds| 0 <= *seconds);
        let result = if args.disable_eviction {
            let (namespace, name, uid) = (namespace.clone(), name.clone(), uid.clone());
            let request =
                v1::DeletePodRequest { namespace, name, uid, grace_period_seconds, request_id, ..Default::default() };
            fetch::change!(session, PodsClient.delete(request))
        } else {
            let (namespace, name, uid) = (namespace.clone(), name.clone(), uid.clone());
            let request =
                v1::EvictPodRequest { namespace, name, uid, grace_period_seconds, request_id, expected_revision: None };
            fetch::change!(session, PodsClient.evict(request))
        };
        let why = match result {
            Ok(_) => return Ok(()),
            // It is gone, or another pod of that name by now, elsewhere.
            Err(why) if why.is_not_found || why.is_lost_race => return Ok(()),
            Err(why) => why,
        };
        if !why.is_exhausted || deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(why.hint(format!("holdfast why pod/{name}")));
        }
        if !is_told {
            print::note(format!("{} (tried again until it may go)", why.message));
            is_told = true;
        }
        tokio::time::sleep(Duration::from_millis(RETRY_PAUSE_MS)).await;
    }
}

/// Waits for these very pods: others of their names may be there soon, elsewhere.
async fn wait_until_gone(
    session: &Session,
    pods: &[(String, String, String)],
    deadline: Option<Instant>,
) -> Result<(), CliError> {
    for (namespace, name, uid) in pods {
        loop {
            let found = fetch::find(session, Resource::Pod, namespace, name).await?;
            if found.is_none_or(|pod| pod.metadata().is_none_or(|metadata| metadata.uid != *uid)) {
                break;
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                let error = CliError::refused(format!("pod/{name} is still there"));
                return Err(error.hint(format!("holdfast why pod/{name}")));
            }
            tokio::time::sleep(Duration::from_millis(LOOK_PAUSE_MS)).await;
        }
    }
    Ok(())
}
