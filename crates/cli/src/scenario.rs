//! Scenario files: command lines with times. Owns their spelling; they are carried out on a running cluster by `fault run`
//! and in the simulator by `sim --scenario`.
//!
//! ```yaml
//! nodes: 3
//! sets: {web: 3}
//! steps:
//! - {at: 0s, do: fault partition n1 --one-way=out --for=30s}
//! - {at: 10s, do: scale statefulset web --replicas=5}
//! rest: 10s
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use clap::Parser as _;
use serde::Deserialize;

use crate::args::{Cli, Fault, Verb};
use crate::error::CliError;
use crate::print;

const SERVERS_DEFAULT: u64 = 3;
const NODES_DEFAULT: u64 = 3;
/// How long a scenario rests after its last step, if it does not say.
const REST_DEFAULT: &str = "10s";

/// A scenario that makes sense as far as that can be said without a cluster.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// What is left to chance in the simulator follows from it.
    pub(crate) seed: Option<u64>,
    /// How many servers and nodes there are at the beginning, at least.
    pub(crate) servers: u64,
    pub(crate) nodes: u64,
    /// The sets that are there at the beginning, and how many pods each has in the simulator.
    pub(crate) sets: BTreeMap<String, u32>,
    /// In the order of their times.
    pub(crate) steps: Vec<Step>,
    /// How long the cluster has, with nothing broken any more, before it is judged. The simulator judges when nothing moves.
    pub(crate) rest_ms: u64,
}

/// A command line, and when.
#[derive(Debug)]
pub(crate) struct Step {
    /// After the beginning.
    pub(crate) at_ms: u64,
    /// As it was written.
    pub(crate) text: String,
    pub(crate) cli: Cli,
    /// Whether the scenario goes on when it is refused.
    pub(crate) may_fail: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    seed: Option<u64>,
    #[serde(default = "servers_default")]
    servers: u64,
    #[serde(default = "nodes_default")]
    nodes: u64,
    #[serde(default)]
    sets: BTreeMap<String, u32>,
    steps: Vec<FileStep>,
    #[serde(default = "rest_default")]
    rest: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct FileStep {
    at: String,
    /// A command line without the binary's name.
    #[serde(rename = "do")]
    words: Words,
    #[serde(default)]
    may_fail: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Words {
    Text(String),
    List(Vec<String>),
}

const fn servers_default() -> u64 {
    SERVERS_DEFAULT
}

const fn nodes_default() -> u64 {
    NODES_DEFAULT
}

fn rest_default() -> String {
    REST_DEFAULT.to_owned()
}

/// Reads a scenario for the cluster that `cluster` names, as `--cluster` would; all of it makes sense, or none is returned.
pub(crate) fn load(path: &Path, cluster: &str) -> Result<Scenario, CliError> {
    let unreadable = |error: &dyn std::fmt::Display| CliError::refused(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(&error))?;
    parse(&text, cluster).map_err(|error| unreadable(&error))
}

pub(crate) fn parse(text: &str, cluster: &str) -> Result<Scenario, String> {
    let File { seed, servers, nodes, sets, steps, rest } =
        serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let rest_ms = print::parse_duration(&rest).map_err(|error| format!("rest: {error}"))?;
    let mut read: Vec<Step> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let next = step.read(cluster).map_err(|error| format!("steps[{index}]: {error}"))?;
        if read.last().is_some_and(|former| next.at_ms < former.at_ms) {
            return Err(format!("steps[{index}]: at {} comes before the step above it", step.at));
        }
        read.push(next);
    }
    Ok(Scenario { seed, servers, nodes, sets, steps: read, rest_ms })
}

impl FileStep {
    fn read(&self, cluster: &str) -> Result<Step, String> {
        let at_ms = print::parse_duration(&self.at).map_err(|error| format!("at: {error}"))?;
        let words = match &self.words {
            Words::Text(text) => text.split_whitespace().map(str::to_owned).collect(),
            Words::List(words) => words.clone(),
        };
        let text = words.join(" ");
        let all = ["holdfast", "--cluster", cluster].into_iter().map(str::to_owned).chain(words);
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
            _ => Ok(Step { at_ms, text, cli, may_fail: self.may_fail }),
        }
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
        let scenario = parse(text, "data").unwrap();
        let times: Vec<_> = scenario.steps.iter().map(|step| (step.at_ms, step.may_fail)).collect();
        assert_eq!(times, [(0, false), (1_500, true)]);
        let second = &scenario.steps[1].cli.verb;
        assert!(matches!(second, Verb::Fault(Fault::Partition(links)) if links.from == ["s1", "s2"]));
        assert_eq!((scenario.servers, scenario.nodes, scenario.rest_ms), (3, 3, 3_000));
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
