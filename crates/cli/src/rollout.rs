//! Verbs on a set's rollout beside `status`: `history`, `undo`, `restart`, `pause`, `resume`.

use api::manifest;
use api::v1;
use api::v1::stateful_sets_client::StatefulSetsClient;

use crate::args::Rollout;
use crate::change::chosen;
use crate::connect::Session;
use crate::error::CliError;
use crate::fetch::{change, read};
use crate::listing::change_cause;
use crate::print::{self, Table};
use crate::resource::Targets;

/// Carries out one of them.
pub(crate) async fn run(
    session: &Session,
    verb: &Rollout,
    namespace: &str,
    request_id: Option<&String>,
) -> Result<(), CliError> {
    match verb {
        Rollout::Status { target, watch, timeout } => {
            crate::observe::rollout_status(session, target, namespace, *watch, *timeout).await
        }
        Rollout::History { target, revision } => history(session, target, namespace, *revision).await,
        Rollout::Undo { target, to_revision } => {
            let name = Targets::parse_set(target)?;
            let request = v1::RolloutUndoRequest {
                namespace: namespace.to_owned(),
                name: name.clone(),
                to_revision: *to_revision,
                request_id: chosen(request_id)?,
                expected_revision: None,
            };
            let reply = change!(session, StatefulSetsClient.rollout_undo(request))
                .map_err(|error| error.hint(format!("holdfast rollout history statefulset/{name}")))?;
            let word = if reply.warnings.is_empty() { "rolled back" } else { "skipped rollback: it is there already" };
            print::line(format!("statefulset.apps/{name} {word}"));
            Ok(())
        }
        Rollout::Restart { target } => {
            let (name, request) = request(target, namespace, request_id)?;
            change!(session, StatefulSetsClient.restart(request))?;
            print::line(format!("statefulset.apps/{name} restarted"));
            Ok(())
        }
        Rollout::Pause { target } => {
            let (name, request) = request(target, namespace, request_id)?;
            change!(session, StatefulSetsClient.pause(request))?;
            print::line(format!("statefulset.apps/{name} paused"));
            Ok(())
        }
        Rollout::Resume { target } => {
            let (name, request) = request(target, namespace, request_id)?;
            change!(session, StatefulSetsClient.resume(request))?;
            print::line(format!("statefulset.apps/{name} resumed"));
            Ok(())
        }
    }
}

fn request(
    target: &[String],
    namespace: &str,
    request_id: Option<&String>,
) -> Result<(String, v1::RolloutRequest), CliError> {
    let name = Targets::parse_set(target)?;
    let request = v1::RolloutRequest {
        namespace: namespace.to_owned(),
        name: name.clone(),
        request_id: chosen(request_id)?,
        expected_revision: None,
    };
    Ok((name, request))
}

async fn history(session: &Session, target: &[String], namespace: &str, revision: Option<i64>) -> Result<(), CliError> {
    let name = Targets::parse_set(target)?;
    let request = v1::GetRequest { namespace: namespace.to_owned(), name: name.clone(), stale: false };
    let revisions = read!(session, StatefulSetsClient.rollout_history(request))?.items;
    let Some(wanted) = revision.filter(|number| *number != 0) else {
        print::line(format!("statefulset.apps/{name}"));
        let mut table = Table::new(["REVISION", "CHANGE-CAUSE"]);
        for revision in &revisions {
            table.row(vec![revision.revision.to_string(), change_cause(revision)]);
        }
        table.print();
        return Ok(());
    };
    let found = revisions.into_iter().find(|revision| revision.revision == wanted);
    let found = found.ok_or_else(|| {
        CliError::not_found(format!("statefulset {name:?} has no revision {wanted}"))
            .hint(format!("holdfast rollout history statefulset/{name}"))
    })?;
    print::line(format!("statefulset.apps/{name} with revision #{wanted}"));
    let template = found.data.and_then(|data| data.spec).and_then(|spec| spec.template);
    print::data(manifest::to_yaml(&template.unwrap_or_default())?.as_bytes());
    Ok(())
}
