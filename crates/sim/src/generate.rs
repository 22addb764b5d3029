//! A scenario from a seed: a cluster of some shape, some kinds of faults of all that there are, and people at work.
//! Each seed leaves some kinds out, so that what one kind hides, another run without it shows.

use crate::chance::{Chance, Stream};
use crate::focus;
use crate::scenario::{Deed, Direction, Network, Operation, Pods, Process, Scenario, Setup, Step};
use crate::world::SETS;

const REPLICAS_MAX: u64 = 5;
const FLAVORS: u64 = 3;
/// Of a thousand seeds, so many know a kind of fault.
const KIND_PERMILLE: u32 = 550;
/// Of a thousand faults that are healed or mended, so many last until nothing is broken any more.
const FOR_GOOD_PERMILLE: u32 = 50;

/// The kinds of faults.
const KINDS: [Kind; 15] = [
    Kind::Partition,
    Kind::Island,
    Kind::Delay,
    Kind::Break,
    Kind::KillServer,
    Kind::KillAgent,
    Kind::PowerServer,
    Kind::RebootNode,
    Kind::Pause,
    Kind::FailDisk,
    Kind::FillDisk,
    Kind::SlowDisk,
    Kind::RotDisk,
    Kind::LoseDisk,
    Kind::Clock,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Partition,
    Island,
    Delay,
    Break,
    KillServer,
    KillAgent,
    PowerServer,
    RebootNode,
    Pause,
    FailDisk,
    FillDisk,
    SlowDisk,
    RotDisk,
    LoseDisk,
    Clock,
}

/// The scenario of a seed.
#[must_use]
pub fn scenario(seed: u64) -> Scenario {
    // Three of eight seeds look at one thing alone.
    match seed % 8 {
        4 => return focus::pauses(seed),
        5 => return focus::crashes(seed),
        7 => return focus::assertions(seed),
        _ => {}
    }
    let setup = setup(seed);
    let mut steps = workload(seed, &setup);
    steps.extend(faults(seed, &setup));
    steps.extend(shutdowns(seed, &setup));
    // A stable sort: what comes at the same time stays in its order.
    steps.sort_by_key(|step| step.at_ms);
    Scenario { setup, steps }
}

/// A cluster of one size under all kinds of faults, to see how fast it is simulated: three servers, five nodes, and twenty
/// pods, as many as nothing else takes away.
#[must_use]
pub fn of_one_size(seed: u64) -> Scenario {
    const SETS_OF_FIVE: [&str; 4] = ["db", "kv", "mq", "web"];
    let setup = Setup { servers: 3, nodes: 5, clients: 2, faults_ms: 120_000, ..setup(seed) };
    let mut chance = Chance::new(seed, Stream::Workload);
    let mut steps = vec![step(1_500, 1, Operation::ApplyClass)];
    let five = |set: &str, flavor| Operation::Apply { set: set.to_owned(), replicas: 5, flavor };
    steps.extend(SETS_OF_FIVE.iter().map(|set| step(2_000, 1, five(set, 0))));
    let mut at_ms = 5_000;
    while at_ms < setup.faults_ms {
        let pick = chance.draw();
        let operation = match chance.below(10) {
            0..=1 => five(chance.pick(&SETS_OF_FIVE).unwrap_or(&"web"), small(pick % FLAVORS)),
            2..=4 => Operation::DeletePod { pick },
            5 => Operation::ForceDeletePod { pick },
            6 => Operation::EvictPod { pick },
            _ => Operation::Read { stale: false },
        };
        let client = chance.between(1..=setup.clients);
        steps.push(step(at_ms, client, operation));
        at_ms += chance.between(50..=2_000);
    }
    steps.extend(faults(seed, &setup));
    steps.sort_by_key(|step| step.at_ms);
    Scenario { setup, steps }
}

fn setup(seed: u64) -> Setup {
    let mut chance = Chance::new(seed, Stream::Setup);
    let servers = match chance.below(20) {
        0 => 1,
        1..=3 => 5,
        _ => 3,
    };
    let mut rarely = |permille: u32, most: u64| {
        let (is_on, value) = (chance.hits(permille), chance.between(1..=most));
        if is_on { value } else { 0 }
    };
    let permille = |value: u64| u32::try_from(value).expect("invariant: a share of a thousand is small");
    let (loss, twice, stray) = (rarely(400, 50), rarely(400, 50), rarely(400, 30));
    let (crash, unready, stubborn, failure) = (rarely(500, 200), rarely(200, 100), rarely(300, 200), rarely(300, 100));
    let (drift_ppm_max, skew_ms_max) = (rarely(500, 2_000), rarely(400, 60_000));
    let longest_ms = chance.between(3..=20);
    Setup {
        seed,
        servers,
        nodes: chance.between(2..=5),
        clients: chance.between(1..=4),
        watchers: chance.between(1..=2),
        faults_ms: chance.between(30..=150) * 1_000,
        calm_ms: 600_000,
        network: Network {
            delay_ms: (1, longest_ms),
            loss_permille: permille(loss),
            duplicate_permille: permille(twice),
            stray_permille: permille(stray),
        },
        pods: Pods {
            crash_permille: permille(crash),
            unready_permille: permille(unready),
            stubborn_permille: permille(stubborn),
            failure_permille: permille(failure),
            write_ms: (500, 4_000),
        },
        drift_ppm_max,
        skew_ms_max,
        snapshot_entries: chance.between(20..=300),
        segment_bytes: chance.between(4..=64) << 10,
        watch_events_max: usize::try_from(chance.between(50..=1_000)).expect("invariant: it is small"),
    }
}

fn workload(seed: u64, setup: &Setup) -> Vec<Step> {
    let mut chance = Chance::new(seed, Stream::Workload);
    let mut steps = vec![step(1_500, 1, Operation::ApplyClass), step(1_550, 1, Operation::ApplyRetainingClass)];
    let for_one_pod = chance.hits(300);
    steps.push(step(1_600, 1, Operation::ApplySharedClaim { for_one_pod }));
    let longest_ms = chance.between(300..=5_000);
    let mut at_ms = 2_000;
    for (number, set) in SETS.iter().enumerate() {
        if chance.hits(600) || number == 0 {
            let operation = apply(&mut chance, set);
            steps.push(step(at_ms, 1, operation));
            at_ms += chance.between(0..=longest_ms);
        }
    }
    for set in SETS.iter().filter(|_| chance.hits(400)) {
        steps.push(step(1_700, 1, Operation::ApplyBudget { set: (*set).to_owned() }));
    }
    while at_ms < setup.faults_ms {
        let client = chance.between(1..=setup.clients);
        let operation = operation(&mut chance, setup);
        steps.push(step(at_ms, client, operation));
        at_ms += chance.between(50..=longest_ms);
    }
    steps
}

const fn step(at_ms: u64, client: u64, operation: Operation) -> Step {
    Step { at_ms, deed: Deed::Operate { client, operation } }
}

fn small(number: u64) -> u32 {
    u32::try_from(number).expect("invariant: it is drawn from a small range")
}

fn apply(chance: &mut Chance, set: &str) -> Operation {
    let (replicas, flavor) = (small(chance.between(1..=REPLICAS_MAX)), small(chance.below(FLAVORS)));
    Operation::Apply { set: set.to_owned(), replicas, flavor }
}

fn operation(chance: &mut Chance, setup: &Setup) -> Operation {
    let set = (*chance.pick(&SETS).unwrap_or(&SETS[0])).to_owned();
    let (pick, node, coin) = (chance.draw(), chance.between(1..=setup.nodes), chance.hits(500));
    let replicas = small(chance.between(0..=REPLICAS_MAX));
    match chance.below(100) {
        0..=14 => apply(chance, &set),
        15..=29 => Operation::Scale { set, replicas },
        30..=34 => Operation::Undo { set },
        35..=37 => Operation::PauseRollout { set, is_paused: coin },
        38..=41 => Operation::DeleteSet { set, orphan: coin && pick.is_multiple_of(3) },
        42..=49 => Operation::DeletePod { pick },
        50..=57 => Operation::ForceDeletePod { pick },
        58..=60 => Operation::EvictPod { pick },
        61..=64 => Operation::DeleteClaim { pick },
        65..=68 => Operation::Cordon { node },
        69..=74 => Operation::Uncordon { node },
        75..=79 => Operation::RemoveNode { node },
        80 => Operation::AddServer,
        81 => Operation::RemoveServer { pick },
        82..=89 => Operation::Read { stale: false },
        _ => Operation::Read { stale: coin },
    }
}

/// In some seeds nodes are shut down in good order, each for a while.
fn shutdowns(seed: u64, setup: &Setup) -> Vec<Step> {
    let mut chance = Chance::new(seed, Stream::Shutdowns);
    let mut steps = Vec::new();
    if !chance.hits(300) {
        return steps;
    }
    let mut at_ms = chance.between(5_000..=20_000);
    while at_ms < setup.faults_ms {
        let (node, grace_ms) = (chance.between(1..=setup.nodes), chance.between(0..=10_000));
        let off_ms = Some(chance.between(500..=20_000));
        steps.push(Step { at_ms, deed: Deed::ShutDown { node, grace_ms, off_ms } });
        at_ms += chance.between(3_000..=40_000);
    }
    steps
}

/// Faults one after the other, some of them at the same time.
struct Faults {
    chance: Chance,
    servers: u64,
    nodes: u64,
    steps: Vec<Step>,
}

fn faults(seed: u64, setup: &Setup) -> Vec<Step> {
    let mut chance = Chance::new(seed, Stream::Faults);
    let kinds: Vec<Kind> = KINDS.iter().copied().filter(|_| chance.hits(KIND_PERMILLE)).collect();
    let pods_crash = chance.hits(KIND_PERMILLE);
    let longest_ms = chance.between(1_000..=15_000);
    let mut faults = Faults { chance, servers: setup.servers, nodes: setup.nodes, steps: Vec::new() };
    let mut at_ms = 3_000;
    while at_ms < setup.faults_ms {
        if let Some(kind) = faults.chance.pick(&kinds).copied() {
            faults.add(kind, at_ms);
        }
        if pods_crash && faults.chance.hits(200) {
            let pick = faults.chance.draw();
            faults.put(at_ms, Deed::CrashPod { pick });
        }
        at_ms += faults.chance.between(200..=longest_ms);
    }
    faults.steps
}

impl Faults {
    fn put(&mut self, at_ms: u64, deed: Deed) {
        self.steps.push(Step { at_ms, deed });
    }

    /// What ends a fault, after a time of up to `most_ms`; a few last for good.
    fn put_end(&mut self, at_ms: u64, most_ms: u64, deed: Deed) {
        let lasting_ms = self.chance.between(most_ms / 100..=most_ms);
        if !self.chance.hits(FOR_GOOD_PERMILLE) {
            self.put(at_ms + lasting_ms, deed);
        }
    }

    fn server(&mut self) -> Process {
        Process::Server(self.chance.between(1..=self.servers))
    }

    fn node(&mut self) -> Process {
        Process::Node(self.chance.between(1..=self.nodes))
    }

    fn either(&mut self) -> Process {
        if self.chance.hits(500) { self.server() } else { self.node() }
    }

    fn direction(&mut self) -> Direction {
        match self.chance.below(4) {
            0 => Direction::In,
            1 => Direction::Out,
            _ => Direction::Both,
        }
    }

    fn add(&mut self, kind: Kind, at_ms: u64) {
        match kind {
            Kind::Partition => {
                let (target, direction) = (self.either(), self.direction());
                let from = if self.chance.hits(300) { vec![self.server()] } else { Vec::new() };
                self.put(at_ms, Deed::Partition { target, from, direction });
                self.put_end(at_ms, 30_000, Deed::Heal { target: Some(target) });
            }
            Kind::Island => {
                let target = self.node();
                self.put(at_ms, Deed::Partition { target, from: Vec::new(), direction: Direction::Both });
                self.put_end(at_ms, 40_000, Deed::Heal { target: Some(target) });
            }
            Kind::Delay => {
                let (target, direction, delay_ms) = (self.either(), self.direction(), self.chance.between(20..=3_000));
                self.put(at_ms, Deed::Delay { target, from: Vec::new(), direction, delay_ms });
                self.put_end(at_ms, 15_000, Deed::Heal { target: Some(target) });
            }
            Kind::Break => {
                let target = self.either();
                self.put(at_ms, Deed::Break { target });
            }
            Kind::Pause => {
                let target = self.either();
                self.put(at_ms, Deed::Pause { target });
                self.put_end(at_ms, 15_000, Deed::Resume { target });
            }
            Kind::Clock => {
                let (target, ahead_ms) = (self.either(), self.chance.between(0..=7_200_000).cast_signed() - 3_600_000);
                self.put(at_ms, Deed::SetClock { target, ahead_ms });
            }
            Kind::KillServer | Kind::KillAgent | Kind::PowerServer | Kind::RebootNode => self.add_death(kind, at_ms),
            Kind::FailDisk | Kind::FillDisk | Kind::SlowDisk | Kind::RotDisk | Kind::LoseDisk => {
                self.add_disk(kind, at_ms);
            }
        }
    }

    fn add_death(&mut self, kind: Kind, at_ms: u64) {
        let target = if matches!(kind, Kind::KillServer | Kind::PowerServer) { self.server() } else { self.node() };
        let dies = match kind {
            Kind::PowerServer | Kind::RebootNode => Deed::PowerLoss { target },
            _ => Deed::Kill { target },
        };
        self.put(at_ms, dies);
        self.put_end(at_ms, 12_000, Deed::Restart { target, new_boot: false });
    }

    fn add_disk(&mut self, kind: Kind, at_ms: u64) {
        let (target, server) = (self.either(), self.server());
        match kind {
            Kind::FailDisk => {
                let after_steps = self.chance.between(0..=60);
                self.put(at_ms, Deed::FailDisk { target, after_steps });
            }
            Kind::FillDisk => {
                self.put(at_ms, Deed::FillDisk { target });
                self.put_end(at_ms, 15_000, Deed::MendDisk { target });
            }
            Kind::SlowDisk => {
                let sync_ms = self.chance.between(20..=2_000);
                self.put(at_ms, Deed::SlowDisk { target, sync_ms });
                self.put_end(at_ms, 20_000, Deed::MendDisk { target });
            }
            Kind::RotDisk => {
                self.put(at_ms, Deed::RotDisk { target: server });
                // Nobody would notice before it is read.
                self.put(at_ms, Deed::Kill { target: server });
                self.put_end(at_ms, 5_000, Deed::Restart { target: server, new_boot: false });
            }
            _ => {
                // A lost server is lost for good: nodes lose their disks more often.
                let target = if self.chance.hits(100) { server } else { self.node() };
                self.put(at_ms, Deed::LoseDisk { target });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_always_the_same_scenario() {
        assert_eq!(scenario(11), scenario(11));
        assert_ne!(scenario(11), scenario(12));
    }

    #[test]
    fn steps_come_in_the_order_of_their_time() {
        for seed in 0..50 {
            assert!(scenario(seed).steps.is_sorted_by_key(|step| step.at_ms));
        }
    }
}
