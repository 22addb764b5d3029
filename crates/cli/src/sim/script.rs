//! `sim --scenario FILE`: the command lines of a scenario as deeds of the simulator. Refuses what the simulated world does
//! not have, before anything is run.

use std::collections::BTreeSet;
use std::path::Path;

use sim::scenario::{Deed, Direction, Operation, Process, Scenario, Setup, Step};

use crate::args::{Cascade, Delete, Member, Rollout, Verb};
use crate::cluster::ProcessName;
use crate::cluster::control::Request;
use crate::cluster::fault::Direction as Way;
use crate::error::CliError;
use crate::local::fault_request;
use crate::resource::{Resource, Targets};
use crate::scenario;

/// The storage class that the sets' volumes are made by must be there before the first set.
const CLASS_AT_MS: u64 = 1_500;
const SETS_AT_MS: u64 = 2_000;
/// By then the sets of a few pods are up. The times of the file begin here.
const BEGIN_MS: u64 = 30_000;
/// What an agent that is not told otherwise gives its pods.
const SHUTDOWN_GRACE_MS: u64 = agent::SHUTDOWN_GRACE_MS_DEFAULT;
/// People are one client.
const CLIENT: u64 = 1;

/// Reads a scenario; a seed given elsewhere counts more than the file's.
pub(super) fn load(path: &Path, seed: Option<u64>) -> Result<Scenario, CliError> {
    let scenario = scenario::load(path, "simulated")?;
    translate(&scenario, seed).map_err(|what| CliError::refused(format!("{}: {what}", path.display())))
}

fn translate(file: &scenario::Scenario, seed: Option<u64>) -> Result<Scenario, String> {
    let operate = |at_ms, operation| Step { at_ms, deed: Deed::Operate { client: CLIENT, operation } };
    let mut steps = vec![operate(CLASS_AT_MS, Operation::ApplyClass)];
    for (set, replicas) in &file.sets {
        let set = known_set(set.clone())?;
        steps.push(operate(SETS_AT_MS, Operation::Apply { set, replicas: *replicas, flavor: 0 }));
    }
    let mut paused = BTreeSet::new();
    for (index, step) in file.steps.iter().enumerate() {
        let deeds = deeds(&step.cli.verb, &mut paused).map_err(|what| format!("steps[{index}]: do: {what}"))?;
        let timed = deeds.into_iter().map(|(after_ms, deed)| Step { at_ms: BEGIN_MS + step.at_ms + after_ms, deed });
        steps.extend(timed);
    }
    steps.sort_by_key(|step| step.at_ms);
    let last_ms = steps.last().map_or(BEGIN_MS, |step| step.at_ms);
    let plain = Setup::plain(seed.or(file.seed).unwrap_or(1));
    let setup = Setup { servers: file.servers, nodes: file.nodes, faults_ms: last_ms.max(BEGIN_MS) + 1, ..plain };
    Ok(Scenario { setup, steps })
}

/// What a command line does, and how long after its time.
fn deeds(verb: &Verb, paused: &mut BTreeSet<ProcessName>) -> Result<Vec<(u64, Deed)>, String> {
    if let Verb::Fault(fault) = verb {
        return faults(&fault_request(fault).map_err(|error| error.to_string())?, paused);
    }
    let operations = operations(verb)?;
    Ok(operations.into_iter().map(|operation| (0, Deed::Operate { client: CLIENT, operation })).collect())
}

fn faults(request: &Request, paused: &mut BTreeSet<ProcessName>) -> Result<Vec<(u64, Deed)>, String> {
    let healed = |target, for_ms: Option<u64>| for_ms.map(|for_ms| (for_ms, Deed::Heal { target: Some(target) }));
    Ok(match request {
        Request::Partition { target, from, direction, for_ms } => {
            let target = process(*target);
            let deed = Deed::Partition { target, from: processes(from), direction: way(*direction) };
            [(0, deed)].into_iter().chain(healed(target, *for_ms)).collect()
        }
        Request::Delay { target, from, direction, delay_ms, for_ms } => {
            let (target, delay_ms) = (process(*target), *delay_ms);
            let deed = Deed::Delay { target, from: processes(from), direction: way(*direction), delay_ms };
            [(0, deed)].into_iter().chain(healed(target, *for_ms)).collect()
        }
        Request::Heal { target } => vec![(0, Deed::Heal { target: target.map(process) })],
        Request::Shutdown { target: ProcessName::Node(node) } => {
            vec![(0, Deed::ShutDown { node: *node, grace_ms: SHUTDOWN_GRACE_MS, off_ms: None })]
        }
        Request::Shutdown { target: ProcessName::Server(_) } => return Err("only a node can be shut down".to_owned()),
        Request::Kill { target } => vec![(0, Deed::Kill { target: process(*target) })],
        Request::Restart { target, new_boot } => {
            vec![(0, Deed::Restart { target: process(*target), new_boot: *new_boot })]
        }
        Request::Pause { target, for_ms } => {
            paused.insert(*target);
            let target = process(*target);
            let end = for_ms.map(|for_ms| (for_ms, Deed::Resume { target }));
            [(0, Deed::Pause { target })].into_iter().chain(end).collect()
        }
        Request::Resume { target } => {
            paused.remove(target);
            vec![(0, Deed::Resume { target: process(*target) })]
        }
        Request::Clear => {
            let resumed = std::mem::take(paused).into_iter().map(|target| Deed::Resume { target: process(target) });
            [Deed::Heal { target: None }].into_iter().chain(resumed).map(|deed| (0, deed)).collect()
        }
        Request::Status | Request::List | Request::AddServer | Request::RemoveServer { .. } | Request::Down { .. } => {
            return Err("it does nothing to a simulated cluster".to_owned());
        }
    })
}

fn operations(verb: &Verb) -> Result<Vec<Operation>, String> {
    let set_of = |words: &[String]| Targets::parse_set(words).map_err(|error| error.to_string()).and_then(known_set);
    Ok(match verb {
        Verb::Scale(scale) => {
            let replicas = u32::try_from(scale.replicas).map_err(|_| "--replicas must not be negative".to_owned())?;
            vec![Operation::Scale { set: set_of(&scale.target)?, replicas }]
        }
        Verb::Rollout(Rollout::Undo { target, to_revision: 0 }) => vec![Operation::Undo { set: set_of(target)? }],
        Verb::Rollout(Rollout::Pause { target }) => {
            vec![Operation::PauseRollout { set: set_of(target)?, is_paused: true }]
        }
        Verb::Rollout(Rollout::Resume { target }) => {
            vec![Operation::PauseRollout { set: set_of(target)?, is_paused: false }]
        }
        Verb::Cordon { nodes } => each_node(nodes, |node| Operation::Cordon { node })?,
        Verb::Uncordon { nodes } => each_node(nodes, |node| Operation::Uncordon { node })?,
        Verb::Delete(delete) => deletions(delete)?,
        Verb::Member(Member::Add { .. }) => vec![Operation::AddServer],
        _ => {
            return Err(
                "the simulator can do faults, scale, rollout undo, pause and resume, cordon, uncordon, delete \
                        statefulset, delete node and member add"
                    .to_owned(),
            );
        }
    })
}

fn deletions(delete: &Delete) -> Result<Vec<Operation>, String> {
    let Targets::Objects(objects) = Targets::parse(&delete.targets).map_err(|error| error.to_string())? else {
        return Err("the simulator deletes sets and nodes by name".to_owned());
    };
    let orphan = matches!(delete.cascade, Cascade::Orphan);
    let operation = |(resource, name): (Resource, String)| match resource {
        Resource::StatefulSet => Ok(Operation::DeleteSet { set: known_set(name)?, orphan }),
        Resource::Node => Ok(Operation::RemoveNode { node: node(&name)? }),
        other => Err(format!("the simulator deletes sets and nodes by name, not a {}", other.word())),
    };
    objects.into_iter().map(operation).collect()
}

fn each_node(names: &[String], operation: impl Fn(u64) -> Operation) -> Result<Vec<Operation>, String> {
    names.iter().map(|name| node(name).map(&operation)).collect()
}

/// The simulated people have sets of their own.
fn known_set(name: String) -> Result<String, String> {
    if sim::SETS.contains(&name.as_str()) {
        return Ok(name);
    }
    Err(format!("the simulator has no set {name:?}, but {}", sim::SETS.join(", ")))
}

fn node(name: &str) -> Result<u64, String> {
    match name.parse() {
        Ok(ProcessName::Node(number)) => Ok(number),
        Ok(ProcessName::Server(_)) | Err(_) => {
            Err(format!("{name:?} is no node: those of the simulator are n1, n2, …"))
        }
    }
}

const fn process(name: ProcessName) -> Process {
    match name {
        ProcessName::Server(number) => Process::Server(number),
        ProcessName::Node(number) => Process::Node(number),
    }
}

fn processes(names: &[ProcessName]) -> Vec<Process> {
    names.iter().copied().map(process).collect()
}

const fn way(direction: Way) -> Direction {
    match direction {
        Way::Both => Direction::Both,
        Way::In => Direction::In,
        Way::Out => Direction::Out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(text: &str) -> Result<Scenario, String> {
        translate(&scenario::parse(text, "simulated").unwrap(), Some(9))
    }

    #[test]
    fn command_lines_become_deeds_and_faults_that_end_by_themselves_are_healed() {
        let text = "
nodes: 2
sets: {web: 2}
steps:
- {at: 0s, do: fault partition n1 --from s1 --one-way out --for 5s}
- {at: 1s, do: scale sts/web --replicas=4}
- {at: 2s, do: fault pause n2}
- {at: 3s, do: fault clear}
";
        let scenario = translated(text).unwrap();
        assert_eq!((scenario.setup.seed, scenario.setup.servers, scenario.setup.nodes), (9, 3, 2));
        let (n1, n2) = (Process::Node(1), Process::Node(2));
        let faults: Vec<(u64, Deed)> = scenario.steps.into_iter().skip(2).map(|step| (step.at_ms, step.deed)).collect();
        let scale = Operation::Scale { set: "web".into(), replicas: 4 };
        let expected = [
            (0, Deed::Partition { target: n1, from: vec![Process::Server(1)], direction: Direction::Out }),
            (1_000, Deed::Operate { client: CLIENT, operation: scale }),
            (2_000, Deed::Pause { target: n2 }),
            (3_000, Deed::Heal { target: None }),
            (3_000, Deed::Resume { target: n2 }),
            (5_000, Deed::Heal { target: Some(n1) }),
        ];
        assert_eq!(faults, expected.map(|(after_ms, deed)| (BEGIN_MS + after_ms, deed)));
    }

    #[test]
    fn what_the_simulated_world_lacks_is_refused_with_its_step() {
        let table = [
            ("sets: {shop: 2}\nsteps: []", "no set \"shop\", but co, db"),
            ("steps: [{at: 0s, do: scale sts/shop --replicas=1}]", "steps[0]: do: the simulator has no set \"shop\""),
            ("steps: [{at: 0s, do: get pods}]", "steps[0]: do: the simulator can do faults"),
            ("steps: [{at: 0s, do: fault list}]", "steps[0]: do: "),
            ("steps: [{at: 0s, do: cordon s1}]", "\"s1\" is no node"),
            ("steps: [{at: 0s, do: delete pod web-0}]", "not a pod"),
        ];
        for (text, expected) in table {
            let error = translated(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
