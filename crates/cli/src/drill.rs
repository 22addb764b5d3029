//! `holdfast fault run FILE`: a scenario of timed steps on the running local cluster, judged when it is over.
//! Owns the times; each step is a command line like any other, so there is no second language to learn.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::ProcessName;
use crate::cluster::control::{Answer, Control, Request};
use crate::cluster::fault::FaultKind;
use crate::connect::{Address, Session};
use crate::error::CliError;
use crate::fetch;
use crate::past::judge_past;
use crate::print;
use crate::resource::Resource;
use crate::scenario::{self, Scenario};

/// Runs a scenario, mends everything, and judges what the servers have written down.
pub(crate) async fn run(address: &Address, file: &Path) -> Result<(), CliError> {
    let dir = address.local_dir()?.to_owned();
    let scenario = scenario::load(file, &dir.display().to_string())?;
    has_what_it_needs(&address.connect(), &dir, &scenario).await?;
    let rest_ms = scenario.rest_ms;
    let began = Instant::now();
    let mut outcome = Ok(());
    for step in scenario.steps {
        tokio::time::sleep_until(began + Duration::from_millis(step.at_ms)).await;
        print::note(format!("+{} {}", print::duration(step.at_ms), step.text));
        match Box::pin(crate::run(step.cli)).await {
            Ok(()) => {}
            Err(error) if step.may_fail => print::note(format!("refused, as it may be: {error}")),
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    mend(&dir).await?;
    outcome?;
    print::note(format!("nothing is broken any more; the cluster has {} to come to rest", print::duration(rest_ms)));
    tokio::time::sleep(Duration::from_millis(rest_ms)).await;
    let judged =
        tokio::task::block_in_place(|| judge_past(&dir)).map_err(|error| CliError::refused(format!("{error:#}")))?;
    let checker_count = judged.counts.iter().filter(|(_, count)| 0 < *count).count();
    print::line(format!("{} batches judged by {checker_count} checkers: no promise was broken", judged.batch_count));
    Ok(())
}

/// Ends every fault, and starts what was killed.
async fn mend(dir: &Path) -> Result<(), CliError> {
    let mut control = Control::connect(dir).await?;
    let Answer::Faults { faults } = control.ask(&Request::List).await? else { return Ok(()) };
    control.ask(&Request::Clear).await?;
    let killed: BTreeSet<_> = faults
        .iter()
        .filter_map(|fault| match fault.kind {
            FaultKind::Kill { target } | FaultKind::Shutdown { target } => Some(target),
            FaultKind::Partition { .. } | FaultKind::Delay { .. } | FaultKind::Pause { .. } => None,
        })
        .collect();
    for target in killed {
        control.ask(&Request::Restart { target, new_boot: false }).await?;
    }
    Ok(())
}

/// A scenario that speaks of what is not there is not begun.
async fn has_what_it_needs(session: &Session, dir: &Path, scenario: &Scenario) -> Result<(), CliError> {
    let Answer::Status(status) = Control::connect(dir).await?.ask(&Request::Status).await? else { return Ok(()) };
    let count =
        |is_one: fn(&ProcessName) -> bool| status.processes.iter().filter(|process| is_one(&process.name)).count();
    let servers = count(|name| matches!(name, ProcessName::Server(_)));
    let nodes = count(|name| matches!(name, ProcessName::Node(_)));
    for (what, has, needs) in [("servers", servers, scenario.servers), ("nodes", nodes, scenario.nodes)] {
        if (has as u64) < needs {
            return Err(CliError::refused(format!("the scenario is for {needs} {what}, and the cluster has {has}")));
        }
    }
    for set in scenario.sets.keys() {
        fetch::get(session, Resource::StatefulSet, "default", set).await?;
    }
    Ok(())
}
