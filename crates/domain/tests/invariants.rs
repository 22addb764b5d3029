//! Random commands, faults and agents, and after each batch what must always be so (`semantics D`); at the end, with
//! everything healed, every set gets what it asks for.

mod story;

use domain::agent::Assignment;
use domain::event::{Batch, RemovalCause};
use domain::id::{Fence, Key, Name, NodeName, Ordinal, Uid, VolumeName};
use domain::object::{Phase, Pod, Set, VolumePhase};
use domain::spec::{Amount, ClaimRetention, Labels, PodManagement, Retention, SetSpec, UpdateStrategy};
use domain::{Command, Draft, Event, Outcome, Reason, Request, State, Touched, assignment, assignment_after, explain};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use story::{Story, key, set, template};

const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
const SETS: [&str; 2] = ["web", "par"];

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Apply { set: usize, spec: Wish },
    Scale { set: usize, replicas: u32, force_unready: bool },
    DeleteSet { set: usize, orphan: bool },
    Undo { set: usize },
    DeletePod { set: usize, ordinal: u32, force: bool },
    Evict { set: usize, ordinal: u32 },
    DeleteClaim { set: usize, ordinal: u32 },
    Mark { set: usize, ordinal: u32, matches: bool },
    Keep { set: usize, ordinal: u32, is_kept: bool },
    KeepClaim { set: usize, ordinal: u32, is_kept: bool },
    Break { set: usize, ordinal: u32 },
    Fail { set: usize, ordinal: u32 },
    Mend,
    Partition { node: usize },
    Heal { node: usize },
    Reboot { node: usize },
    RemoveNode { node: usize },
    Cordon { node: usize, is_cordoned: bool },
    ShutDown { node: usize, is_going: bool },
    AgentsAct,
    PassTime { ms: u64 },
}

/// What differs between specs.
#[derive(Clone, Debug)]
struct Wish {
    replicas: u32,
    start: u32,
    image: usize,
    update: usize,
    min_ready_ms: u64,
    when_scaled: bool,
    when_deleted: bool,
    is_paused: bool,
    /// Whether its pods have a finalizer from the start.
    is_kept: bool,
}

fn wish() -> impl Strategy<Value = Wish> {
    let numbers = (0..5_u32, 0..3_u32, 0..3_usize, 0..5_usize, prop_oneof![3 => Just(0_u64), 1 => Just(50)]);
    let rarely = [0.2, 0.2, 0.1, 0.1].map(prop::bool::weighted);
    (numbers, rarely).prop_map(|((replicas, start, image, update, min_ready_ms), rarely)| {
        let [when_scaled, when_deleted, is_paused, is_kept] = rarely;
        Wish { replicas, start, image, update, min_ready_ms, when_scaled, when_deleted, is_paused, is_kept }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let (sets, ordinals, nodes) = (0..SETS.len(), 0..6_u32, 0..NODES.len());
    prop_oneof![
        4 => (sets.clone(), wish()).prop_map(|(set, spec)| Step::Apply { set, spec }),
        2 => (sets.clone(), 0..5_u32, any::<bool>())
            .prop_map(|(set, replicas, force_unready)| Step::Scale { set, replicas, force_unready }),
        1 => (sets.clone(), any::<bool>()).prop_map(|(set, orphan)| Step::DeleteSet { set, orphan }),
        1 => sets.clone().prop_map(|set| Step::Undo { set }),
        2 => (sets.clone(), ordinals.clone(), any::<bool>())
            .prop_map(|(set, ordinal, force)| Step::DeletePod { set, ordinal, force }),
        1 => (sets.clone(), ordinals.clone()).prop_map(|(set, ordinal)| Step::Evict { set, ordinal }),
        1 => (sets.clone(), ordinals.clone()).prop_map(|(set, ordinal)| Step::DeleteClaim { set, ordinal }),
        1 => (sets.clone(), ordinals.clone(), any::<bool>())
            .prop_map(|(set, ordinal, matches)| Step::Mark { set, ordinal, matches }),
        2 => (sets.clone(), ordinals.clone(), any::<bool>())
            .prop_map(|(set, ordinal, is_kept)| Step::Keep { set, ordinal, is_kept }),
        1 => (sets.clone(), ordinals.clone(), any::<bool>())
            .prop_map(|(set, ordinal, is_kept)| Step::KeepClaim { set, ordinal, is_kept }),
        1 => (sets.clone(), ordinals.clone()).prop_map(|(set, ordinal)| Step::Fail { set, ordinal }),
        2 => (sets, ordinals).prop_map(|(set, ordinal)| Step::Break { set, ordinal }),
        2 => Just(Step::Mend),
        2 => nodes.clone().prop_map(|node| Step::Partition { node }),
        2 => nodes.clone().prop_map(|node| Step::Heal { node }),
        1 => nodes.clone().prop_map(|node| Step::Reboot { node }),
        1 => nodes.clone().prop_map(|node| Step::RemoveNode { node }),
        1 => (nodes.clone(), any::<bool>()).prop_map(|(node, is_cordoned)| Step::Cordon { node, is_cordoned }),
        1 => (nodes, any::<bool>()).prop_map(|(node, is_going)| Step::ShutDown { node, is_going }),
        12 => Just(Step::AgentsAct),
        3 => (1..80_u64).prop_map(|ms| Step::PassTime { ms }),
    ]
}

/// What somebody has yet to do, or nothing.
fn finalizers(is_kept: bool) -> Vec<Name> {
    is_kept.then(|| Name::new("example.com/backup")).into_iter().collect()
}

fn spec_of(set_index: usize, wish: &Wish) -> SetSpec {
    let max = |max_unavailable| UpdateStrategy::RollingUpdate { partition: Ordinal(0), max_unavailable };
    let update = match wish.update {
        0 | 1 => UpdateStrategy::default(),
        2 => max(Amount::Count(2)),
        3 => UpdateStrategy::RollingUpdate { partition: Ordinal(2), max_unavailable: Amount::Percent(50) },
        _ => UpdateStrategy::OnDelete,
    };
    let retention = |is_deleted| if is_deleted { Retention::Delete } else { Retention::Retain };
    let mut template = (*template(["a", "b", "c"][wish.image])).clone();
    // Each set has labels of its own.
    template.labels = story::labels(&[("app", SETS[set_index])]);
    template.finalizers = finalizers(wish.is_kept);
    SetSpec {
        replicas: wish.replicas,
        start: Ordinal(wish.start),
        selector: story::labels(&[("app", SETS[set_index])]),
        policy: [PodManagement::OrderedReady, PodManagement::Parallel][set_index],
        update,
        template: template.into(),
        min_ready_ms: wish.min_ready_ms,
        revision_history_max: 2,
        retention: ClaimRetention {
            when_deleted: retention(wish.when_deleted),
            when_scaled: retention(wish.when_scaled),
        },
        is_paused: wish.is_paused,
        ..set(wish.replicas)
    }
}

/// The world: the leader's draft, a follower that only applies batches, and what really runs where.
struct World {
    draft: Draft,
    follower: State,
    now_ms: u64,
    boots: BTreeMap<&'static str, u32>,
    running: BTreeMap<&'static str, BTreeMap<Uid, Key>>,
    cut: BTreeSet<&'static str>,
    broken: BTreeSet<Key>,
    /// Those that are over, and do not start again.
    failed: BTreeSet<Uid>,
    /// Identities that a person, or a new boot, said are dead.
    given_up: BTreeSet<Uid>,
    uids: BTreeSet<Uid>,
    fences: BTreeMap<VolumeName, Fence>,
    numbers: BTreeMap<(Key, Uid), u64>,
}

impl World {
    fn new() -> Self {
        let story = Story::with_nodes(0);
        let mut world = Self {
            follower: story.draft.state().clone(),
            draft: story.draft,
            now_ms: 10,
            boots: NODES.into_iter().map(|node| (node, 1)).collect(),
            running: NODES.into_iter().map(|node| (node, BTreeMap::new())).collect(),
            cut: BTreeSet::new(),
            broken: BTreeSet::new(),
            failed: BTreeSet::new(),
            given_up: BTreeSet::new(),
            uids: BTreeSet::new(),
            fences: BTreeMap::new(),
            numbers: BTreeMap::new(),
        };
        for node in NODES {
            world.register(node);
        }
        world
    }

    fn state(&self) -> &State {
        self.draft.state()
    }

    /// Submits a command, which may be refused, and checks what came of it.
    fn submit(&mut self, command: Command) {
        self.now_ms += 1;
        let request = Request { actor: "test".into(), id: None, expected: None, command };
        let Ok(Outcome::Committed(batch)) = self.draft.submit(&request, self.now_ms) else { return };
        let before = self.follower.clone();
        self.follow(&request.command, &batch);
        self.check_touched(&before, &batch);
        for (pod, record) in &before.pods {
            if let Some(now) = self.follower.pod(pod, record.meta.uid) {
                assert!(record.template.means_same(&now.template), "D31: {pod} has its template for life");
                // Another set that adopts it may know the same template under a name of its own.
                let is_same = record.revision == now.revision || record.owner != now.owner;
                assert!(is_same, "D31: {pod} has its revision for life");
            }
        }
        let same = format!("{:?}", self.follower.pods) == format!("{:?}", self.draft.state().pods)
            && self.follower.revision == self.draft.state().revision;
        assert!(same, "a follower that applies the batch has another state");
        self.check_state();
    }

    /// Applies a batch event by event, and checks each against the state before it.
    fn follow(&mut self, command: &Command, batch: &Batch) {
        assert_eq!(batch.base, self.follower.revision);
        let asked = batch.events.len() - batch.planned as usize;
        self.follower.at_ms = self.follower.at_ms.max(batch.at_ms);
        for (index, event) in batch.events.iter().enumerate() {
            self.check_event(command, event, asked <= index);
            self.follower.apply(event);
        }
    }

    /// Who is not told anew need not be: nobody's assignment changes unnoticed. Whoever is told hears of all that changed,
    /// though only what was touched is looked at again.
    fn check_touched(&self, before: &State, batch: &Batch) {
        let mut touched = Touched::default();
        touched.note(before, batch);
        touched.note(&self.follower, batch);
        for node in NODES.map(NodeName::new).iter().filter(|node| !touched.contains(node)) {
            let told = assignment(before, node).map(|mut told| {
                // Who removed a volume's storage said so itself.
                told.removals.retain(|removal| self.follower.volumes.contains_key(&removal.volume));
                Assignment { revision: self.follower.revision, ..told }
            });
            assert_eq!(told, assignment(&self.follower, node), "{node} is not told of {:?}", batch.events);
        }
        for (node, touch) in touched {
            let Some(told) = assignment(before, &node) else { continue };
            let now = assignment_after(&self.follower, &node, &told, &touch);
            assert_eq!(now, assignment(&self.follower, &node), "{node} is told too little of {:?}", batch.events);
        }
    }

    fn check_event(&mut self, command: &Command, event: &Event, is_planned: bool) {
        let state = &self.follower;
        match event {
            Event::PodCreated { set, ordinal, revision, claims } => {
                check_creation(state, set, *ordinal, revision.as_str());
                for claim in claims {
                    let record = state.claims.get(&claim.claim).expect("D42: a pod after its claims");
                    assert!(record.deleting_at_ms.is_none(), "D42: {} is on its way out", claim.claim);
                }
                assert!(self.uids.insert(Uid(state.revision.0 + 1)), "D1: an identity is never given twice");
            }
            Event::PodBound { node, .. } => {
                let record = &state.nodes[node];
                let is_free = !record.is_cordoned
                    && record.unreachable.is_none()
                    && record.shutdown.is_none()
                    && record.leftovers.is_empty();
                assert!(is_free, "D49: {node} takes no pods");
            }
            Event::PodDeletionRequested { pod, uid, grace_ms, .. } => {
                let record = state.pod(pod, *uid).expect("the pod is there");
                if let Some(deletion) = &record.deletion {
                    assert!(*grace_ms <= deletion.grace_ms, "D45: grace only shrinks");
                } else if is_planned {
                    check_planned_deletion(state, pod, record);
                }
            }
            Event::PodEnded { pod, uid, cause } => {
                assert!(!state.pods[pod].finalizers.is_empty(), "A8-102: {pod} waits for nothing");
                self.check_end(command, pod, *uid, cause);
            }
            Event::PodRemoved { pod, uid, cause } => {
                let record = state.pod(pod, *uid).expect("the pod is there");
                assert!(record.finalizers.is_empty(), "A8-102: {pod} waits for {:?}", record.finalizers);
                match &record.end {
                    Some(end) => assert_eq!(end.cause, *cause, "what ended it is what is said of it"),
                    None => self.check_end(command, pod, *uid, cause),
                }
            }
            Event::AttachmentRequested { volume, fence, .. } => {
                let before = self.fences.insert(volume.clone(), *fence).unwrap_or_default();
                let is_joined = state.volumes.get(volume).is_some_and(|volume| volume.is_joined());
                let is_due = if is_joined { before == *fence } else { before < *fence };
                assert!(is_due, "fences of {volume} only go up: {fence} after {before}");
            }
            Event::ClaimRemoved { claim } => {
                let record = &state.claims[claim];
                assert!(record.deleting_at_ms.is_some(), "D39: nobody deleted {claim}");
                let user = state.users(claim).find(|(_, pod)| pod.binding.is_some());
                assert!(user.is_none(), "D39: {claim} is in use");
                assert!(record.finalizers.is_empty(), "A8-102: {claim} waits for {:?}", record.finalizers);
            }
            Event::RevisionTargeted { set, number, .. } => {
                let uid = state.sets[set].meta.uid;
                let before = self.numbers.insert((set.clone(), uid), *number).unwrap_or_default();
                assert!(before < *number, "D23: numbers of {set} only go up");
            }
            Event::RolloutCompleted { set, revision } => {
                let record = &state.sets[set];
                assert_eq!(record.update_revision, *revision, "D26");
                let all = state.members(set).all(|(_, pod)| pod.revision == *revision && pod.is_ready());
                assert!(all && state.members(set).count() == record.spec.replicas as usize, "D26");
            }
            _ => {}
        }
    }

    /// Why everything of a pod may be over (D3 to D5, D46).
    fn check_end(&mut self, command: &Command, pod: &Key, uid: Uid, cause: &RemovalCause) {
        let record = self.follower.pod(pod, uid).expect("the pod is there");
        let (is_bound, is_held) = (record.binding.is_some(), record.hold.is_some());
        match cause {
            RemovalCause::NeverPlaced => assert!(!is_bound, "D3: {pod} had a node"),
            RemovalCause::Stopped => {
                assert!(matches!(command, Command::Report { .. }), "D46: only its agent can say so");
                assert!(!is_held, "D4, D5: a held pod is not reported");
            }
            RemovalCause::ForceDeleted => assert!(is_held, "D4: only a held pod is given up"),
            RemovalCause::NodeRemoved | RemovalCause::NodeRestarted { .. } => {}
        }
        if !matches!(cause, RemovalCause::Stopped) {
            self.given_up.insert(uid);
        }
    }

    /// What holds of every state.
    fn check_state(&self) {
        let state = self.state();
        for (name, volume) in &state.volumes {
            if !volume.spec.access.is_shared() {
                assert!(volume.attachments.len() <= 1, "D33: {name} is attached to several nodes");
            }
            if let (VolumePhase::Bound, Some((claim, uid))) = (volume.phase, &volume.claim) {
                let record = state.claims.get(claim).expect("D37: a bound volume has its claim");
                assert_eq!((record.volume.as_ref(), record.meta.uid), (Some(name), *uid), "D37");
            }
        }
        for (claim, record) in &state.claims {
            let users = state.users(claim).filter(|(_, pod)| pod.binding.is_some()).count();
            assert!(!record.spec.access.read_write_once_pod || users <= 1, "D32: {claim} has {users} pods");
        }
        for (set_key, record) in &state.sets {
            let dead = record.revisions.iter().filter(|revision| {
                let is_used = state.members(set_key).any(|(_, pod)| pod.revision == revision.name);
                !is_used && revision.name != record.current_revision && revision.name != record.update_revision
            });
            assert!(dead.count() <= record.spec.revision_history_max as usize, "D25");
        }
        for (pod_key, pod) in &state.pods {
            if let Some(binding) = &pod.binding {
                assert!(state.nodes.contains_key(&binding.node), "{pod_key} is on a node that is none");
            }
        }
        self.check_processes();
        self.check_reasons();
    }

    /// D51: `why` has another answer than that all is well exactly where something is not as it should be.
    fn check_reasons(&self) {
        let state = self.state();
        let check = |kind: &str, key: &Key, is_as_wanted: bool| {
            let found = explain(state, kind, key).unwrap_or_else(|| panic!("D51: nobody explains {kind} {key}"));
            assert_eq!(found.reason == Reason::AsWanted, is_as_wanted, "D51: {kind} {key}: {}", found.sentence);
        };
        let serves = |pod: &Pod| pod.is_ready() && pod.is_available && pod.deletion.is_none();
        state.pods.iter().for_each(|(key, pod)| check("Pod", key, serves(pod)));
        for (key, record) in &state.sets {
            let member = |ordinal| state.pods.get(&key.pod(ordinal)).filter(|pod| pod.owner == Some(record.meta.uid));
            let are_there = record.spec.kept().all(|ordinal| member(ordinal).is_some_and(|pod| serves(pod)));
            let mut members = state.members(key);
            let are_wanted =
                members.all(|(_, pod)| record.spec.keeps(pod.ordinal) && pod.revision == record.update_revision);
            check("StatefulSet", key, are_there && are_wanted);
            for ordinal in record.spec.kept().filter(|ordinal| !state.pods.contains_key(&key.pod(*ordinal))) {
                check("Pod", &key.pod(ordinal), false);
            }
        }
        for (key, claim) in &state.claims {
            check("PersistentVolumeClaim", key, claim.volume.is_some() && claim.deleting_at_ms.is_none());
        }
        for (name, node) in &state.nodes {
            let is_well = node.unreachable.is_none() && node.shutdown.is_none() && node.leftovers.is_empty();
            check("Node", &key(name.as_str()), is_well && !node.is_cordoned);
        }
    }

    /// D2: never two live processes of one name, unless a person answers for the older one.
    fn check_processes(&self) {
        let mut live: BTreeMap<&Key, Uid> = BTreeMap::new();
        for (uid, pod) in self.running.values().flatten() {
            if self.given_up.contains(uid) {
                continue;
            }
            if let Some(other) = live.insert(pod, *uid) {
                panic!("D2: {pod} runs as {other} and as {uid}");
            }
        }
    }

    fn register(&mut self, node: &'static str) {
        let known = self.draft.state().nodes.get(&NodeName::from(node)).map(|known| known.boot_id.clone());
        let registration = domain::event::Registration {
            boot_id: format!("boot-{}", self.boots[node]).into(),
            former_boot: known.unwrap_or_default(),
            machine_id: format!("machine-{node}").as_str().into(),
            capacity: domain::spec::Resources { cpu_milli: 4_000, memory_bytes: 1 << 33 },
            pods_max: 110,
            ..Default::default()
        };
        let running = self.running[node].keys().copied().collect();
        self.submit(Command::RegisterNode { node: node.into(), registration, running });
    }

    fn agents_act(&mut self) {
        for node in NODES.into_iter().filter(|node| !self.cut.contains(node)).collect::<Vec<_>>() {
            let name = NodeName::new(node);
            let Some(assignment) = domain::assignment(self.state(), &name) else {
                self.register(node);
                continue;
            };
            let leftovers = self.state().nodes[&name].leftovers.clone();
            let mut processes = BTreeMap::new();
            let reports = assignment.pods.iter().map(|pod| {
                let is_gone = pod.stop_within_ms.is_some();
                if !is_gone {
                    processes.insert(pod.uid, pod.pod.clone());
                }
                let is_over = self.failed.contains(&pod.uid);
                let status = domain::object::PodStatus {
                    phase: if is_over { Phase::Failed } else { Phase::Running },
                    is_ready: !is_over && !self.broken.contains(&pod.pod),
                    ..Default::default()
                };
                domain::command::PodReport {
                    pod: pod.pod.clone(),
                    uid: pod.uid,
                    status,
                    has_volumes: true,
                    is_gone,
                    grown: Vec::new(),
                }
            });
            let reports = reports.collect();
            // Whatever is not assigned is ended before anything is started.
            self.running.insert(node, processes);
            self.submit(Command::Report {
                node: name,
                incarnation: assignment.incarnation,
                reports,
                ended: leftovers,
                removed_volumes: assignment.removals.iter().map(|removal| removal.volume.clone()).collect(),
            });
        }
    }

    fn silence(&mut self, node: &'static str) {
        self.cut.insert(node);
        let Some(record) = self.state().nodes.get(&NodeName::new(node)) else { return };
        let (incarnation, heard_at_ms) = (record.incarnation, self.now_ms);
        self.now_ms += 2_500;
        self.submit(Command::NoteSilence { node: node.into(), incarnation, heard_at_ms });
    }

    /// What its agent would say, if it is heard.
    fn note_shutdown(&mut self, node: &'static str, is_going: bool) {
        let Some(record) = self.state().nodes.get(&NodeName::new(node)) else { return };
        let incarnation = record.incarnation;
        if !self.cut.contains(node) {
            self.submit(Command::NoteShutdown { node: node.into(), incarnation, grace_ms: is_going.then_some(5_000) });
        }
    }

    fn heal(&mut self, node: &'static str) {
        if self.cut.remove(node) {
            self.register(node);
        }
    }

    /// Somebody has something to do before the pod's object may go, or has done it.
    fn keep(&mut self, pod: &Key, is_kept: bool) {
        let Some(record) = self.state().pods.get(pod) else { return };
        let (labels, annotations) = (record.meta.labels.clone(), record.meta.annotations.clone());
        let finalizers = finalizers(is_kept);
        self.submit(Command::MarkPod { pod: pod.clone(), labels, annotations, finalizers });
    }

    fn keep_claim(&mut self, claim: &Key, is_kept: bool) {
        let Some(record) = self.state().claims.get(claim) else { return };
        let (labels, annotations) = (record.meta.labels.clone(), record.meta.annotations.clone());
        let (claim, spec, finalizers) = (claim.clone(), record.spec.clone(), finalizers(is_kept));
        self.submit(Command::ApplyClaim { claim, labels, spec, annotations, finalizers });
    }

    /// Whoever had something to do has done it.
    fn release_all(&mut self) {
        let pods: Vec<Key> = self.state().pods.keys().cloned().collect();
        let claims: Vec<Key> = self.state().claims.keys().cloned().collect();
        pods.iter().for_each(|pod| self.keep(pod, false));
        claims.iter().for_each(|claim| self.keep_claim(claim, false));
    }

    fn take(&mut self, step: Step) {
        let pod_of = |set: usize, ordinal: u32| key(&format!("{}-{ordinal}", SETS[set]));
        match step {
            Step::Apply { set, spec } => {
                let (labels, annotations) = (Labels::new(), Labels::new());
                let spec = spec_of(set, &spec);
                self.submit(Command::ApplySet { set: key(SETS[set]), labels, annotations, spec });
            }
            Step::Scale { set, replicas, force_unready } => {
                self.submit(Command::ScaleSet { set: key(SETS[set]), replicas, current: None, force_unready });
            }
            Step::DeleteSet { set, orphan } => self.submit(Command::DeleteSet { set: key(SETS[set]), orphan }),
            Step::Undo { set } => self.submit(Command::UndoRollout { set: key(SETS[set]), to: None }),
            Step::DeletePod { set, ordinal, force } => {
                let grace_ms = force.then_some(0);
                self.submit(Command::DeletePod { pod: pod_of(set, ordinal), grace_ms, force, uid: None });
            }
            Step::Evict { set, ordinal } => {
                self.submit(Command::EvictPod { pod: pod_of(set, ordinal), grace_ms: None, uid: None });
            }
            Step::DeleteClaim { set, ordinal } => {
                self.submit(Command::DeleteClaim { claim: key(&format!("www-{}-{ordinal}", SETS[set])) });
            }
            Step::Mark { set, ordinal, matches } => {
                let app = if matches { SETS[set] } else { "nobody" };
                let finalizers = self.state().pods.get(&pod_of(set, ordinal)).map(|pod| pod.finalizers.clone());
                let finalizers = finalizers.unwrap_or_default();
                let (labels, annotations) = (story::labels(&[("app", app)]), Labels::new());
                self.submit(Command::MarkPod { pod: pod_of(set, ordinal), labels, annotations, finalizers });
            }
            Step::Keep { set, ordinal, is_kept } => self.keep(&pod_of(set, ordinal), is_kept),
            Step::KeepClaim { set, ordinal, is_kept } => {
                self.keep_claim(&key(&format!("www-{}-{ordinal}", SETS[set])), is_kept);
            }
            Step::Fail { set, ordinal } => {
                self.failed.extend(self.draft.state().pods.get(&pod_of(set, ordinal)).map(|pod| pod.meta.uid));
            }
            Step::Break { set, ordinal } => drop(self.broken.insert(pod_of(set, ordinal))),
            Step::Mend => self.broken.clear(),
            Step::Partition { node } => self.silence(NODES[node]),
            Step::Heal { node } => self.heal(NODES[node]),
            Step::Reboot { node } => {
                let node = NODES[node];
                *self.boots.get_mut(node).expect("every node has a boot") += 1;
                self.running.insert(node, BTreeMap::new());
                self.cut.remove(node);
                self.register(node);
            }
            Step::RemoveNode { node } => self.submit(Command::RemoveNode { node: NODES[node].into() }),
            Step::Cordon { node, is_cordoned: true } => self.submit(Command::CordonNode { node: NODES[node].into() }),
            Step::Cordon { node, .. } => self.submit(Command::UncordonNode { node: NODES[node].into() }),
            Step::ShutDown { node, is_going } => self.note_shutdown(NODES[node], is_going),
            Step::AgentsAct => self.agents_act(),
            Step::PassTime { ms } => {
                self.now_ms += ms;
                self.submit(Command::PassTime);
            }
        }
    }

    /// Everything is mended, and then nothing may be left to do but what a person asked to be left.
    fn check_liveness(&mut self) {
        self.broken.clear();
        for node in NODES {
            self.heal(node);
            self.submit(Command::UncordonNode { node: node.into() });
            self.note_shutdown(node, false);
        }
        for round in 0.. {
            let before = self.state().revision;
            self.release_all();
            self.agents_act();
            self.now_ms += 1_000;
            self.submit(Command::PassTime);
            if before == self.state().revision {
                break;
            }
            assert!(round < 500, "the cluster does not come to rest");
        }
        let state = self.state();
        assert!(state.pods.values().all(|pod| pod.deletion.is_none()), "what was to go is gone");
        for (claim, _) in state.claims.iter().filter(|(_, record)| record.deleting_at_ms.is_some()) {
            assert!(state.users(claim).next().is_some(), "{claim} waits for nobody, and is there");
        }
        // A pod that was let go of keeps its name until somebody deletes it, and its set waits.
        let is_foreign = |key: &Key| state.pods.get(key).is_some_and(|pod| pod.owner.is_none());
        for (set_key, record) in &state.sets {
            if record.spec.kept().any(|ordinal| is_foreign(&set_key.pod(ordinal))) {
                continue;
            }
            for ordinal in record.spec.kept() {
                let pod_key = set_key.pod(ordinal);
                let pod = state.pods.get(&pod_key).unwrap_or_else(|| panic!("{pod_key} is missing"));
                assert!(pod.is_available && pod.is_ready(), "{pod_key} is not available: {pod:?}");
                check_revision(record, pod);
            }
            let surplus = state.members(set_key).find(|(_, pod)| !record.spec.keeps(pod.ordinal));
            assert!(surplus.is_none(), "{set_key} has too many pods: {surplus:?}");
        }
    }
}

fn check_revision(set: &Set, pod: &Pod) {
    if let UpdateStrategy::RollingUpdate { partition, .. } = set.spec.update
        && partition <= pod.ordinal
        && !set.spec.is_paused
    {
        assert_eq!(pod.revision, set.update_revision, "{} was not reached", pod.ordinal);
    }
}

/// D11, D12, D18, D20, D21.
fn check_creation(state: &State, set: &Key, ordinal: Ordinal, revision: &str) {
    let record = state.sets.get(set).expect("D20: a set that is there");
    assert!(record.spec.keeps(ordinal), "D18: {ordinal} is outside the range");
    assert!(!state.pods.contains_key(&set.pod(ordinal)), "D1: the name is taken");
    let wanted = match record.spec.update {
        UpdateStrategy::RollingUpdate { partition, .. } if ordinal < partition => &record.current_revision,
        _ => &record.update_revision,
    };
    assert_eq!(wanted.as_str(), revision, "D21: the template follows from the ordinal");
    if record.spec.policy == PodManagement::OrderedReady {
        for lower in record.spec.kept().take_while(|lower| *lower < ordinal) {
            let pod = state.pods.get(&set.pod(lower)).expect("D11: the lower ones are there");
            assert!(pod.is_available && pod.deletion.is_none(), "D11: {lower} is not available");
        }
    }
}

/// D13, D15 to D17, D19: why a planner may stop a pod.
fn check_planned_deletion(state: &State, key: &Key, pod: &Pod) {
    let set_key = Key { namespace: key.namespace.clone(), name: pod.set.clone() };
    let Some(record) = state.sets.get(&set_key).filter(|record| pod.owner == Some(record.meta.uid)) else {
        assert!(pod.owner.is_some(), "an orphan is left alone");
        return;
    };
    let kept = || record.spec.kept().map(|ordinal| state.pods.get(&set_key.pod(ordinal)));
    let serves = |pod: &Pod| pod.is_ready() && pod.is_available && pod.deletion.is_none();
    if !record.spec.keeps(pod.ordinal) {
        if record.spec.policy == PodManagement::OrderedReady {
            let highest =
                state.members(&set_key).map(|(_, member)| member.ordinal).filter(|o| !record.spec.keeps(*o)).max();
            assert_eq!(highest, Some(pod.ordinal), "D13: the highest first");
            assert!(kept().all(|kept| kept.is_some_and(|kept| serves(kept))), "D13: a kept pod is not available");
        }
        return;
    }
    if matches!(pod.status.phase, Phase::Failed | Phase::Succeeded) {
        let mut lower = record.spec.kept().take_while(|lower| *lower < pod.ordinal);
        let is_there = |lower: Ordinal| state.pods.get(&set_key.pod(lower)).is_some_and(|pod| serves(pod));
        let is_in_turn = record.spec.policy == PodManagement::Parallel || lower.all(is_there);
        assert!(is_in_turn, "A3-30: {key} is replaced before a lower one is available");
        return;
    }
    let UpdateStrategy::RollingUpdate { partition, max_unavailable } = record.spec.update else {
        panic!("D19: {key} is left alone under OnDelete");
    };
    assert!(!record.spec.is_paused, "{key} is left alone while the rollout rests");
    let is_outdated = pod.revision != record.update_revision && partition <= pod.ordinal;
    if pod.is_ready() {
        assert!(is_outdated, "D15: {key} is as it should be");
        let away =
            kept().filter(|kept| kept.is_none_or(|kept| !serves(kept) && kept.revision == record.update_revision));
        assert!(away.count() < max_unavailable.of(record.spec.replicas) as usize, "D16: too many are away");
        let condemned = state.members(&set_key).any(|(_, member)| !record.spec.keeps(member.ordinal));
        assert!(record.spec.policy == PodManagement::Parallel || !condemned, "D17: scaling first");
    } else {
        assert!(pod.hold.is_none(), "D4: a held pod is left alone");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, max_shrink_iters: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_invariants_hold_and_the_wishes_come_true(steps in prop::collection::vec(step(), 1..90)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.check_liveness();
    }
}
