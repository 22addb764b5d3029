//! `holdfast fault run FILE`: a scenario of timed steps on the running local cluster, judged when it is over.
//! Owns the file and the times; each step is a command line like any other, so there is no second language to learn.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use clap::Parser as _;
use serde::Deserialize;
use tokio::time::Instant;

use crate::args::{Cli, Fault, Verb};
use crate::cluster::control::{Answer, Control, Request};
use crate::cluster::fault::FaultKind;
use crate::connect::Address;
use crate::error::CliError;
use crate::past::judge_past;
use crate::print;

/// How long a scenario rests after its last step, if it does not say.
const REST_DEFAULT: &str = "10s";

/// A scenario as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    /// What is done, by time.
    steps: Vec<Step>,
    /// How long the cluster has, with nothing broken any more, before it is judged.
    #[serde(default = "rest_default")]
    rest: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Step {
    /// When, after the beginning.
    at: String,
    /// A command line without the binary's name.
    #[serde(rename = "do")]
    words: Words,
    /// Whether the scenario goes on when it is refused.
    #[serde(default)]
    may_fail: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Words {
    Text(String),
    List(Vec<String>),
}

impl Words {
    fn list(&self) -> Vec<String> {
        match self {
            Self::Text(text) => text.split_whitespace().map(str::to_owned).collect(),
            Self::List(words) => words.clone(),
        }
    }
}

/// A step that is ready to be taken.
#[derive(Debug)]
struct Deed {
    at_ms: u64,
    text: String,
    cli: Cli,
    may_fail: bool,
}

fn rest_default() -> String {
    REST_DEFAULT.to_owned()
}

/// Runs a scenario, mends everything, and judges what the servers have written down.
pub(crate) async fn run(address: &Address, file: &Path) -> Result<(), CliError> {
    let dir = address.local_dir()?.to_owned();
    let unreadable = |error: &dyn std::fmt::Display| CliError::refused(format!("{}: {error}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| unreadable(&error))?;
    let (deeds, rest_ms) = parse(&text, &dir.display().to_string()).map_err(|error| unreadable(&error))?;
    let began = Instant::now();
    let mut outcome = Ok(());
    for deed in deeds {
        tokio::time::sleep_until(began + Duration::from_millis(deed.at_ms)).await;
        print::note(format!("+{} {}", print::duration(deed.at_ms), deed.text));
        match Box::pin(crate::run(deed.cli)).await {
            Ok(()) => {}
            Err(error) if deed.may_fail => print::note(format!("refused, as it may be: {error}")),
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

/// Reads a scenario for the cluster in a directory; nothing is done before all of it makes sense.
fn parse(text: &str, dir: &str) -> Result<(Vec<Deed>, u64), String> {
    let scenario: Scenario = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let rest_ms = print::parse_duration(&scenario.rest).map_err(|error| format!("rest: {error}"))?;
    let mut deeds: Vec<Deed> = Vec::new();
    for (index, step) in scenario.steps.iter().enumerate() {
        let deed = deed(step, dir).map_err(|error| format!("steps[{index}]: {error}"))?;
        if deeds.last().is_some_and(|former| deed.at_ms < former.at_ms) {
            return Err(format!("steps[{index}]: at {} comes before the step above it", step.at));
        }
        deeds.push(deed);
    }
    Ok((deeds, rest_ms))
}

fn deed(step: &Step, dir: &str) -> Result<Deed, String> {
    let at_ms = print::parse_duration(&step.at).map_err(|error| format!("at: {error}"))?;
    let words = step.words.list();
    let text = words.join(" ");
    let all = ["holdfast", "--cluster", dir].into_iter().map(str::to_owned).chain(words);
    let cli = Cli::try_parse_from(all).map_err(|error| format!("do: {error}"))?;
    match cli.verb {
        Verb::Up(_)
        | Verb::Down(_)
        | Verb::Launcher(_)
        | Verb::Server(_)
        | Verb::Agent(_)
        | Verb::Exec(_)
        | Verb::Bench(_)
        | Verb::Sim(_)
        | Verb::Fault(Fault::Run { .. }) => {
            Err(format!("do: {text:?} is nothing that a scenario does to a running cluster"))
        }
        _ => Ok(Deed { at_ms, text, cli, may_fail: step.may_fail }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_is_command_lines_with_times() {
        let text = "
steps:
  - at: 0s
    do: scale statefulset web --replicas=5
  - at: 1500ms
    do: [fault, partition, n1, --from, 's1,s2', --for, 2s]
    mayFail: true
rest: 3s
";
        let (deeds, rest_ms) = parse(text, "data").unwrap();
        assert_eq!(
            deeds.iter().map(|deed| (deed.at_ms, deed.may_fail)).collect::<Vec<_>>(),
            [(0, false), (1_500, true)]
        );
        assert!(matches!(&deeds[1].cli.verb, Verb::Fault(Fault::Partition(links)) if links.from == ["s1", "s2"]));
        assert_eq!(rest_ms, 3_000);
    }

    #[test]
    fn what_makes_no_sense_is_said_before_anything_is_done() {
        let table = [
            ("steps: [{at: 5s, do: fault clear}, {at: 1s, do: fault clear}]", "comes before"),
            ("steps: [{at: 5s, do: fault brake n1}]", "steps[0]: do"),
            ("steps: [{at: soon, do: fault clear}]", "steps[0]: at"),
            ("steps: [{at: 0s, do: down}]", "nothing that a scenario does"),
            ("steps: [{at: 0s, do: fault run other.yaml}]", "nothing that a scenario does"),
            ("stages: []", "stages"),
        ];
        for (text, word) in table {
            let error = parse(text, "data").unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
