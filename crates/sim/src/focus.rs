//! Scenarios that look at one thing, where chance alone would rarely come: servers that crash in the middle of what they
//! write, nodes that people call dead too early, and a world that is quiet but for one server.

use crate::chance::{Chance, Stream};
use crate::scenario::{Deed, Direction, Network, Operation, Process, Scenario, Setup, Step};

/// The sets that these scenarios work with.
const SETS: [&str; 3] = ["db", "kv", "web"];

struct Focus {
    chance: Chance,
    setup: Setup,
    steps: Vec<Step>,
}

impl Focus {
    fn new(setup: Setup, stream: Stream) -> Self {
        let mut focus = Self { chance: Chance::new(setup.seed, stream), setup, steps: Vec::new() };
        focus.ask(1_500, Operation::ApplyClass);
        for (number, set) in SETS.iter().enumerate() {
            let replicas = focus.small(2..=4);
            focus.ask(2_000 + 500 * number as u64, Operation::Apply { set: (*set).to_owned(), replicas, flavor: 0 });
        }
        focus
    }

    fn small(&mut self, range: std::ops::RangeInclusive<u64>) -> u32 {
        u32::try_from(self.chance.between(range)).expect("invariant: it is drawn from a small range")
    }

    fn put(&mut self, at_ms: u64, deed: Deed) {
        self.steps.push(Step { at_ms, deed });
    }

    fn ask(&mut self, at_ms: u64, operation: Operation) {
        let client = self.chance.between(1..=self.setup.clients);
        self.put(at_ms, Deed::Operate { client, operation });
    }

    /// Something that makes pods come and go.
    fn stir(&mut self, at_ms: u64) {
        let set = (*self.chance.pick(&SETS).unwrap_or(&SETS[0])).to_owned();
        let operation = match self.chance.below(3) {
            0 => Operation::Scale { set, replicas: self.small(1..=5) },
            1 => Operation::Apply { set, replicas: self.small(1..=5), flavor: self.small(0..=2) },
            _ => Operation::DeletePod { pick: self.chance.draw() },
        };
        self.ask(at_ms, operation);
    }

    /// A crash, mostly of the machine; sometimes its peer only loses sight of it.
    fn crash(&mut self, target: Process) -> (Deed, Deed) {
        let restart = Deed::Restart { target, new_boot: false };
        match self.chance.below(8) {
            0 => (Deed::FailDisk { target, after_steps: self.chance.between(0..=6) }, restart),
            1 => (Deed::Pause { target }, Deed::Resume { target }),
            2 => {
                let from = vec![Process::Server(self.chance.between(1..=self.setup.servers))];
                let heal = Deed::Heal { target: Some(target) };
                (Deed::Partition { target, from, direction: Direction::Both }, heal)
            }
            _ => (Deed::PowerLoss { target }, restart),
        }
    }

    fn done(mut self) -> Scenario {
        self.steps.sort_by_key(|step| step.at_ms);
        Scenario { setup: self.setup, steps: self.steps }
    }
}

/// A quiet world: nothing is broken but one server at a time, which is cut off, stopped or stands still for a while.
#[must_use]
pub fn quiet(seed: u64) -> Scenario {
    let mut focus = Focus::new(Setup::plain(seed), Stream::Quiet);
    let mut at_ms = 10_000;
    while at_ms < focus.setup.faults_ms {
        let target = Process::Server(focus.chance.between(1..=focus.setup.servers));
        let directions = [Direction::Both, Direction::In, Direction::Out];
        let direction = focus.chance.pick(&directions).copied().unwrap_or_default();
        let (begin, end) = match focus.chance.below(4) {
            0 => (Deed::PowerLoss { target }, Deed::Restart { target, new_boot: false }),
            1 => (Deed::Pause { target }, Deed::Resume { target }),
            _ => (Deed::Partition { target, from: Vec::new(), direction }, Deed::Heal { target: Some(target) }),
        };
        focus.put(at_ms, begin);
        at_ms += focus.chance.between(5_000..=15_000);
        focus.put(at_ms, end);
        at_ms += focus.chance.between(10_000..=15_000);
    }
    focus.done()
}

/// Nodes that are started again before their word from the start before is heard: it comes after that of the next.
#[must_use]
pub fn reboots(seed: u64) -> Scenario {
    let mut focus = Focus::new(Setup { nodes: 3, faults_ms: 120_000, ..Setup::plain(seed) }, Stream::Reboots);
    let mut at_ms = 8_000;
    while at_ms < focus.setup.faults_ms {
        let target = Process::Node(focus.chance.between(1..=focus.setup.nodes));
        // The way to the servers takes so long that the next start overtakes it, and not so long that nobody listens any more.
        let delay_ms = focus.chance.between(3_000..=5_000);
        focus.put(at_ms, Deed::Delay { target, from: Vec::new(), direction: Direction::Out, delay_ms });
        for begins_at_ms in [at_ms + 100, at_ms + delay_ms + focus.chance.between(1_500..=4_000)] {
            focus.put(begins_at_ms, Deed::PowerLoss { target });
            focus.put(begins_at_ms + 50, Deed::Restart { target, new_boot: true });
            at_ms = begins_at_ms;
        }
        focus.put(at_ms, Deed::Heal { target: Some(target) });
        at_ms += focus.chance.between(8_000..=15_000);
    }
    focus.done()
}

/// Servers with slow disks that lose their power again and again, and are back at once.
#[must_use]
pub fn crashes(seed: u64) -> Scenario {
    let setup = Setup {
        clients: 3,
        watchers: 2,
        faults_ms: 90_000,
        snapshot_entries: 15,
        segment_bytes: 4 << 10,
        watch_events_max: 50,
        network: Network { delay_ms: (1, 60), loss_permille: 10, duplicate_permille: 20, stray_permille: 20 },
        ..Setup::plain(seed)
    };
    let mut focus = Focus::new(setup, Stream::Crashes);
    for server in 1..=focus.setup.servers {
        let sync_ms = focus.chance.between(1..=150);
        focus.put(3_000, Deed::SlowDisk { target: Process::Server(server), sync_ms });
    }
    let longest_ms = focus.chance.between(500..=4_000);
    let mut at_ms = 4_000;
    while at_ms < focus.setup.faults_ms {
        let target = Process::Server(focus.chance.between(1..=focus.setup.servers));
        let down_ms = focus.chance.between(10..=1_500);
        let (begin, end) = focus.crash(target);
        focus.put(at_ms, begin);
        focus.put(at_ms + down_ms, end);
        for _ in 0..focus.chance.below(4) {
            let asked_at_ms = at_ms + focus.chance.between(0..=longest_ms);
            focus.stir(asked_at_ms);
        }
        at_ms += focus.chance.between(200..=longest_ms);
    }
    focus.done()
}

/// Nodes that stand still or are cut off while they get work, and that people call dead before they come back.
#[must_use]
pub fn assertions(seed: u64) -> Scenario {
    let setup = Setup { clients: 3, nodes: 3, faults_ms: 120_000, ..Setup::plain(seed) };
    let mut focus = Focus::new(setup, Stream::Assertions);
    let mut at_ms = 8_000;
    while at_ms < focus.setup.faults_ms {
        let node = focus.chance.between(1..=focus.setup.nodes);
        let target = Process::Node(node);
        let (begin, end) = if focus.chance.hits(500) {
            (Deed::Pause { target }, Deed::Resume { target })
        } else {
            let (from, direction) = (Vec::new(), Direction::Both);
            (Deed::Partition { target, from, direction }, Deed::Heal { target: Some(target) })
        };
        // Work is on its way to the node when it stops, and for as long as nobody has noticed.
        for _ in 0..4 {
            let asked_at_ms = at_ms + focus.chance.between(0..=2_500);
            focus.stir(asked_at_ms);
        }
        focus.put(at_ms + 400, begin);
        let noticed_at_ms = at_ms + 3_500;
        for _ in 0..focus.chance.between(1..=3) {
            let (asked_at_ms, pick) = (noticed_at_ms + focus.chance.between(0..=1_500), focus.chance.draw() | 1);
            focus.ask(asked_at_ms, Operation::ForceDeletePod { pick });
        }
        if focus.chance.hits(250) {
            focus.ask(noticed_at_ms + 1_000, Operation::RemoveNode { node });
        }
        at_ms = noticed_at_ms + focus.chance.between(4_000..=9_000);
        focus.put(at_ms, end);
        at_ms += focus.chance.between(500..=6_000);
    }
    focus.done()
}

/// Servers that stand still and go on, while people ask all the time: one that led may not know that another does.
#[must_use]
pub fn pauses(seed: u64) -> Scenario {
    let setup = Setup { clients: 5, faults_ms: 90_000, ..Setup::plain(seed) };
    let mut focus = Focus::new(setup, Stream::Pauses);
    let mut at_ms = 6_000;
    while at_ms < focus.setup.faults_ms {
        let target = Process::Server(focus.chance.between(1..=focus.setup.servers));
        let goes_on_at_ms = at_ms + focus.chance.between(3_000..=9_000);
        focus.put(at_ms, Deed::Pause { target });
        focus.put(goes_on_at_ms, Deed::Resume { target });
        while at_ms < goes_on_at_ms + 1_000 {
            let set = (*focus.chance.pick(&SETS).unwrap_or(&SETS[0])).to_owned();
            let operation = match focus.chance.below(3) {
                0 => Operation::Read { stale: false },
                _ => Operation::Scale { set, replicas: focus.small(1..=2) },
            };
            focus.ask(at_ms, operation);
            at_ms += focus.chance.between(50..=600);
        }
        at_ms += focus.chance.between(1_000..=4_000);
    }
    focus.done()
}
