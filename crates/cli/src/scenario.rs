//! Scenario files: what is done to a cluster, step by step, as YAML. Owns their spelling; the words are the simulator's.
//!
//! ```yaml
//! seed: 7
//! servers: 3
//! nodes: 3
//! steps:
//! - apply: web
//!   replicas: 3
//! - wait: 10s
//! - partition: n1
//!   one-way: out
//! - wait: 30s
//! - heal: n1
//! ```

use crate::cluster::ProcessName;
use crate::error::CliError;
use serde::{Deserialize, Serialize};
use sim::scenario::{Deed, Direction, Operation, Process, Scenario, Setup, Step};
use std::path::Path;

/// The storage class that the sets' volumes are made by must be there before the first set.
const CLASS_AT_MS: u64 = 1_500;
/// The first step is not before the cluster is formed.
const BEGIN_MS: u64 = 2_000;

/// A file.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(default = "three")]
    servers: u64,
    #[serde(default = "three")]
    nodes: u64,
    steps: Vec<FileStep>,
}

const fn three() -> u64 {
    3
}

/// A step: one of the verbs, and what belongs to it.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct FileStep {
    wait: Option<String>,
    partition: Option<ProcessName>,
    delay: Option<ProcessName>,
    heal: Option<String>,
    kill: Option<ProcessName>,
    power_loss: Option<ProcessName>,
    restart: Option<ProcessName>,
    pause: Option<ProcessName>,
    resume: Option<ProcessName>,
    apply: Option<String>,
    scale: Option<String>,
    undo: Option<String>,
    delete: Option<String>,
    cordon: Option<ProcessName>,
    uncordon: Option<ProcessName>,
    remove: Option<ProcessName>,

    from: Vec<ProcessName>,
    one_way: Option<Way>,
    by: Option<String>,
    new_boot: bool,
    replicas: Option<u32>,
    flavor: u32,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Way {
    In,
    Out,
}

/// Reads a scenario; a seed given elsewhere counts more than the file's.
pub(crate) fn load(path: &Path, seed: Option<u64>) -> Result<Scenario, CliError> {
    let wrong = |what: String| CliError::usage(format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    parse(&text, seed).map_err(wrong)
}

fn parse(text: &str, seed: Option<u64>) -> Result<Scenario, String> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let setup = Setup { servers: file.servers, nodes: file.nodes, ..Setup::plain(seed.or(file.seed).unwrap_or(1)) };
    let class = Deed::Operate { client: 1, operation: Operation::ApplyClass };
    let mut steps = vec![Step { at_ms: CLASS_AT_MS, deed: class }];
    let mut at_ms = BEGIN_MS;
    for (number, step) in file.steps.into_iter().enumerate() {
        let told = |what: String| format!("step {}: {what}", number + 1);
        match step.read().map_err(told)? {
            Read::Wait(wait_ms) => at_ms += wait_ms,
            Read::Deed(deed) => steps.push(Step { at_ms, deed }),
        }
    }
    Ok(Scenario { setup: Setup { faults_ms: at_ms, ..setup }, steps })
}

enum Read {
    Wait(u64),
    Deed(Deed),
}

impl FileStep {
    fn read(self) -> Result<Read, String> {
        if let Some(wait) = &self.wait {
            return Ok(Read::Wait(duration_ms(wait)?));
        }
        let mut deeds = self.faults()?;
        deeds.extend(self.operations()?.into_iter().map(|operation| Deed::Operate { client: 1, operation }));
        match (deeds.pop(), deeds.len()) {
            (Some(deed), 0) => Ok(Read::Deed(deed)),
            (Some(_), _) => Err("it has more than one verb: begin a step for each".to_owned()),
            (None, _) => Err("it has no verb, as in \"partition: n1\" or \"wait: 10s\"".to_owned()),
        }
    }

    fn faults(&self) -> Result<Vec<Deed>, String> {
        let from: Vec<Process> = self.from.iter().copied().map(process).collect();
        let direction = match self.one_way {
            None => Direction::Both,
            Some(Way::In) => Direction::In,
            Some(Way::Out) => Direction::Out,
        };
        let mut deeds = Vec::new();
        if let Some(target) = self.partition.map(process) {
            deeds.push(Deed::Partition { target, from: from.clone(), direction });
        }
        if let Some(target) = self.delay.map(process) {
            let by = self.by.as_deref().ok_or("a delay needs \"by\", as in \"by: 500ms\"")?;
            deeds.push(Deed::Delay { target, from, direction, delay_ms: duration_ms(by)? });
        }
        match self.heal.as_deref() {
            Some("all") => deeds.push(Deed::Heal { target: None }),
            Some(name) => {
                let name: ProcessName = name.parse().map_err(|error| format!("heal: {error}"))?;
                deeds.push(Deed::Heal { target: Some(process(name)) });
            }
            None => {}
        }
        deeds.extend(self.kill.map(process).map(|target| Deed::Kill { target }));
        deeds.extend(self.power_loss.map(process).map(|target| Deed::PowerLoss { target }));
        deeds.extend(self.restart.map(process).map(|target| Deed::Restart { target, new_boot: self.new_boot }));
        deeds.extend(self.pause.map(process).map(|target| Deed::Pause { target }));
        deeds.extend(self.resume.map(process).map(|target| Deed::Resume { target }));
        Ok(deeds)
    }

    fn operations(&self) -> Result<Vec<Operation>, String> {
        let replicas = || self.replicas.ok_or("it needs \"replicas\"");
        let mut operations = Vec::new();
        if let Some(set) = self.apply.clone() {
            operations.push(Operation::Apply { set, replicas: self.replicas.unwrap_or(1), flavor: self.flavor });
        }
        if let Some(set) = self.scale.clone() {
            operations.push(Operation::Scale { set, replicas: replicas()? });
        }
        operations.extend(self.undo.clone().map(|set| Operation::Undo { set }));
        operations.extend(self.delete.clone().map(|set| Operation::DeleteSet { set, orphan: false }));
        if let Some(name) = self.cordon {
            operations.push(Operation::Cordon { node: node(name)? });
        }
        if let Some(name) = self.uncordon {
            operations.push(Operation::Uncordon { node: node(name)? });
        }
        if let Some(name) = self.remove {
            operations.push(Operation::RemoveNode { node: node(name)? });
        }
        Ok(operations)
    }
}

const fn process(name: ProcessName) -> Process {
    match name {
        ProcessName::Server(number) => Process::Server(number),
        ProcessName::Node(number) => Process::Node(number),
    }
}

fn node(name: ProcessName) -> Result<u64, String> {
    match name {
        ProcessName::Node(number) => Ok(number),
        ProcessName::Server(_) => Err(format!("{name} is no node")),
    }
}

/// `500ms`, `10s`, `2m`.
fn duration_ms(text: &str) -> Result<u64, String> {
    let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err(format!("\"{text}\" is no duration: write 500ms, 10s or 2m")),
    };
    let number: u64 = number.parse().map_err(|_| format!("\"{text}\" is no duration: write 500ms, 10s or 2m"))?;
    Ok(number.saturating_mul(unit_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_follow_each_other_after_their_waits() {
        let text =
            "nodes: 2\nsteps:\n- apply: web\n  replicas: 2\n- wait: 5s\n- partition: n1\n  one-way: out\n- heal: all\n";
        let scenario = parse(text, Some(9)).unwrap();
        assert_eq!((scenario.setup.seed, scenario.setup.servers, scenario.setup.nodes), (9, 3, 2));
        let times: Vec<u64> = scenario.steps.iter().map(|step| step.at_ms).collect();
        assert_eq!(times, [1_500, 2_000, 7_000, 7_000]);
        let cut = Deed::Partition { target: Process::Node(1), from: Vec::new(), direction: Direction::Out };
        assert_eq!(scenario.steps[2].deed, cut);
    }

    #[test]
    fn a_step_that_cannot_be_meant_is_told_with_its_number() {
        let table = [
            ("steps:\n- {}\n", "step 1: it has no verb"),
            ("steps:\n- wait: 1s\n- kill: s1\n  pause: s1\n", "step 2: it has more than one verb"),
            ("steps:\n- scale: web\n", "step 1: it needs \"replicas\""),
            ("steps:\n- wait: soon\n", "step 1: \"soon\" is no duration"),
            ("steps:\n- partitoin: n1\n", "partitoin"),
        ];
        for (text, expected) in table {
            let error = parse(text, None).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
