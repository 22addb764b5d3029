//! What people ask for, made from an operation and the state that they see: a few sets of different habits.

use crate::history::Question;
use crate::scenario::Operation;
use domain::driver::DRIVER_DIR;
use domain::id::{ClassName, Key, Name, NodeName, Ordinal, ServerId};
use domain::object::Pod;
use domain::spec::{
    AccessModes, Amount, BudgetSpec, ClaimRetention, ClaimSpec, ClaimTemplate, ClassSpec, Container, EnvValue, EnvVar,
    Labels, Mount, NamedClaim, PodManagement, Probe, Reclaim, Resources, Retention, SetSpec, Template, UpdateStrategy,
};
use domain::{Command, Request, State};
use std::sync::Arc;

/// The sets that there may be.
pub const SETS: [&str; 6] = ["co", "db", "fs", "kv", "mq", "web"];
/// The one whose pods share a claim.
pub(super) const SHARING_SET: &str = "co";
const NAMESPACE: &str = "default";
const VOLUME: &str = "data";
const SHARED_CLAIM: &str = "shared";
const RETAINING_CLASS: &str = "retaining";

/// The question of an operation, if there is anything to ask it about.
pub(super) fn question(
    operation: &Operation,
    state: &State,
    gone: &[u64],
    client: u64,
    count: u64,
) -> Option<Question> {
    if let Operation::Read { stale } = operation {
        return Some(Question::Read { stale: *stale });
    }
    let command = command(operation, state, gone)?;
    let id = Some(format!("c{client}-{count}").into());
    Some(Question::Change(Arc::new(Request { actor: "user".into(), id, expected: None, command })))
}

fn command(operation: &Operation, state: &State, gone: &[u64]) -> Option<Command> {
    let set_key = |set: &String| Key::new(NAMESPACE, set);
    Some(match operation {
        Operation::ApplyClass => class("standard", Reclaim::Delete),
        Operation::ApplyRetainingClass => class(RETAINING_CLASS, Reclaim::Retain),
        Operation::ApplySharedClaim { for_one_pod } => Command::ApplyClaim {
            claim: Key::new(NAMESPACE, SHARED_CLAIM),
            labels: Labels::new(),
            annotations: Labels::new(),
            spec: claim(*for_one_pod, None),
            finalizers: Vec::new(),
        },
        Operation::ApplyBudget { set } => Command::ApplyBudget {
            budget: set_key(set),
            labels: Labels::new(),
            annotations: Labels::new(),
            spec: BudgetSpec { selector: labels(set), ..BudgetSpec::default() },
        },
        Operation::Apply { set, replicas, flavor } => Command::ApplySet {
            set: set_key(set),
            labels: labels(set),
            annotations: Labels::new(),
            spec: spec(set, *replicas, *flavor),
        },
        Operation::Scale { set, replicas } => {
            Command::ScaleSet { set: set_key(set), replicas: *replicas, current: None, force_unready: false }
        }
        Operation::Undo { set } => Command::UndoRollout { set: set_key(set), to: None },
        Operation::PauseRollout { set, is_paused } => {
            let is_news = state.sets.get(&set_key(set)).is_some_and(|s| s.spec.is_paused != *is_paused);
            if !is_news {
                return None;
            }
            Command::PauseRollout { set: set_key(set), is_paused: *is_paused }
        }
        Operation::DeleteSet { set, orphan } => Command::DeleteSet { set: set_key(set), orphan: *orphan },
        Operation::DeletePod { pick } => {
            let pod = nth(state.pods.keys(), *pick)?;
            Command::DeletePod { pod, grace_ms: None, force: false, uid: None }
        }
        Operation::ForceDeletePod { pick } => {
            let may_be_meant = |pod: &Pod| pod.hold.is_some() || pick.is_multiple_of(8);
            let held = state.pods.iter().filter(|(_, pod)| may_be_meant(pod)).map(|(key, _)| key);
            Command::DeletePod { pod: nth(held, *pick / 8)?, grace_ms: Some(0), force: true, uid: None }
        }
        Operation::EvictPod { pick } => {
            Command::EvictPod { pod: nth(state.pods.keys(), *pick)?, grace_ms: None, uid: None }
        }
        Operation::DeleteClaim { pick } => Command::DeleteClaim { claim: nth(state.claims.keys(), *pick)? },
        Operation::Cordon { node } => Command::CordonNode { node: node_name(*node) },
        Operation::Uncordon { node } => {
            let is_cordoned = state.nodes.get(&node_name(*node)).is_some_and(|node| node.is_cordoned);
            if !is_cordoned {
                return None;
            }
            Command::UncordonNode { node: node_name(*node) }
        }
        Operation::RemoveNode { node } => Command::RemoveNode { node: node_name(*node) },
        Operation::AddServer => {
            // Where it is does not matter here, as long as nobody else is there.
            let address = format!("{}:7000", state.last_server.next().name()).into();
            Command::AddServer { server: None, address }
        }
        Operation::RemoveServer { pick } => Command::RemoveServer { server: removable(state, gone, *pick)? },
        Operation::Read { .. } => return None,
    })
}

/// A server that is gone, or else any: whoever removes servers knows which ones still run.
fn removable(state: &State, gone: &[u64], pick: u64) -> Option<ServerId> {
    let all: Vec<ServerId> = state.servers.keys().copied().collect();
    let any = usize::try_from(pick.checked_rem(all.len() as u64)?).ok()?;
    all.iter().find(|server| gone.contains(&server.0)).or_else(|| all.get(any)).copied()
}

fn node_name(number: u64) -> NodeName {
    NodeName::from(format!("n{number}"))
}

fn nth<'a>(keys: impl Iterator<Item = &'a Key>, pick: u64) -> Option<Key> {
    let keys: Vec<&Key> = keys.collect();
    let index = pick.checked_rem(keys.len() as u64)?;
    keys.get(usize::try_from(index).ok()?).copied().cloned()
}

fn class(name: &str, reclaim: Reclaim) -> Command {
    Command::ApplyClass {
        class: ClassName::new(name),
        spec: ClassSpec {
            provisioner: DRIVER_DIR.into(),
            reclaim,
            is_default: reclaim == Reclaim::Delete,
            may_expand: true,
            ..ClassSpec::default()
        },
        labels: Labels::new(),
        annotations: Labels::new(),
    }
}

fn claim(for_one_pod: bool, class: Option<ClassName>) -> ClaimSpec {
    let access =
        AccessModes { read_write_once_pod: for_one_pod, read_write_once: !for_one_pod, ..AccessModes::default() };
    ClaimSpec { access, request_bytes: 1 << 20, class, ..ClaimSpec::default() }
}

fn labels(set: &str) -> Labels {
    Labels::from([(Name::new("app"), Name::new(set))])
}

/// The habits of the sets differ; what may not be changed is the same in all flavors of one.
fn spec(set: &str, replicas: u32, flavor: u32) -> SetSpec {
    let rolling = |unavailable| UpdateStrategy::RollingUpdate {
        partition: Ordinal(u32::from(flavor % 3 == 2)),
        max_unavailable: Amount::Count(unavailable),
    };
    let keeps = ClaimRetention::default();
    let deletes = ClaimRetention { when_deleted: Retention::Delete, when_scaled: Retention::Delete };
    let (policy, update, retention, min_ready_ms, has_claim) = match set {
        "db" => (PodManagement::OrderedReady, rolling(1), keeps, 0, true),
        "kv" => (PodManagement::Parallel, rolling(2), deletes, 0, true),
        "mq" => (PodManagement::Parallel, UpdateStrategy::OnDelete, keeps, 1_000, true),
        "fs" => (PodManagement::Parallel, rolling(1), deletes, 0, true),
        SHARING_SET => (PodManagement::Parallel, rolling(1), keeps, 0, false),
        _ => (PodManagement::OrderedReady, rolling(1), keeps, 2_000, false),
    };
    let class = (set == "fs").then(|| ClassName::new(RETAINING_CLASS));
    let claims = ClaimTemplate { name: VOLUME.into(), spec: claim(set == "db", class), ..ClaimTemplate::default() };
    SetSpec {
        replicas,
        selector: labels(set),
        service_name: set.into(),
        policy,
        update,
        template: Arc::new(template(set, flavor, has_claim)),
        claim_templates: if has_claim { vec![claims] } else { Vec::new() },
        min_ready_ms,
        revision_history_max: 3,
        retention,
        ..SetSpec::default()
    }
}

fn template(set: &str, flavor: u32, has_claim: bool) -> Template {
    let mount = Mount { volume: VOLUME.into(), path: "/data".to_owned(), ..Mount::default() };
    let probe =
        Probe { period_ms: 2_000, timeout_ms: 1_000, success_threshold: 1, failure_threshold: 2, ..Probe::default() };
    let container = Container {
        name: "main".into(),
        image: format!("{set}:{flavor}").into(),
        env: vec![EnvVar { name: "FLAVOR".into(), value: EnvValue::Text(flavor.to_string()) }],
        requests: Resources { cpu_milli: 500, memory_bytes: 64 << 20 },
        mounts: if has_claim || set == SHARING_SET { vec![mount] } else { Vec::new() },
        readiness: Some(probe),
        ..Container::default()
    };
    let shared = NamedClaim { volume: VOLUME.into(), claim: SHARED_CLAIM.into() };
    let mut template = Template {
        labels: labels(set),
        containers: vec![container],
        grace_ms: 5_000,
        volumes: if set == SHARING_SET { vec![shared] } else { Vec::new() },
        ..Template::default()
    };
    template.hash = api::codec::template_hash(&template);
    template
}
