//! Runs many seeds on many threads, each run on one. Prints progress, and nothing else.

use crate::print;
use sim::Judged;
use sim::checker::Violation;
use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One of so many runs is done a second time, to see that it is the same.
const TWICE_EVERY: u64 = 16;
const PROGRESS_ON_TERMINAL: Duration = Duration::from_millis(500);
const PROGRESS_ELSEWHERE: Duration = Duration::from_secs(30);

/// When to stop: whatever comes first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) seeds: Option<u64>,
    pub(super) time: Option<Duration>,
}

/// A run that broke a promise.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) seed: u64,
    pub(super) violation: Violation,
}

/// What came of all runs.
#[derive(Debug, Default)]
pub(super) struct Hunt {
    pub(super) run_count: u64,
    pub(super) twice_count: u64,
    pub(super) simulated_ms: u64,
    pub(super) took: Duration,
    pub(super) jobs: usize,
    pub(super) failures: Vec<Failure>,
    /// What happened: how often, in how many runs, and which checkers had something to judge in these.
    pub(super) happened: BTreeMap<&'static str, Happened>,
    /// How often each checker had something to judge, and in how many runs.
    pub(super) judged: BTreeMap<&'static str, (u64, u64)>,
}

#[derive(Debug, Default)]
pub(super) struct Happened {
    pub(super) times: u64,
    pub(super) runs: u64,
    /// In how many of these runs each checker had something to judge.
    pub(super) checkers: BTreeMap<&'static str, u64>,
}

impl Hunt {
    fn note(&mut self, seed: u64, judged: Judged) {
        let Judged { ended, counts } = judged;
        self.run_count += 1;
        self.simulated_ms += ended.at_ms;
        let busy: BTreeSet<&'static str> =
            counts.iter().filter(|(_, count)| 0 < *count).map(|(name, _)| *name).collect();
        for (what, times) in &ended.tallies {
            let happened = self.happened.entry(what).or_default();
            happened.times += times;
            happened.runs += 1;
            busy.iter().for_each(|checker| *happened.checkers.entry(checker).or_default() += 1);
        }
        for (name, count) in counts {
            let (times, runs) = self.judged.entry(name).or_default();
            *times += count;
            *runs += u64::from(0 < count);
        }
        if let Some(violation) = ended.violation {
            self.failures.push(Failure { seed, violation });
        }
    }
}

struct Shared {
    hunt: Mutex<Hunt>,
    next: AtomicU64,
    must_stop: AtomicBool,
}

/// Runs seeds from `first` on.
pub(super) fn hunt(first: u64, limit: Limit, jobs: usize, keep_going: bool) -> Hunt {
    let began_at = Instant::now();
    let shared = Shared {
        hunt: Mutex::new(Hunt { jobs, ..Hunt::default() }),
        next: AtomicU64::new(0),
        must_stop: AtomicBool::new(false),
    };
    let is_over = |number: u64| {
        limit.seeds.is_some_and(|count| count <= number) || limit.time.is_some_and(|time| time <= began_at.elapsed())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(|| work(&shared, first, &is_over, keep_going))).collect();
        let mut shown_at = Instant::now();
        let is_terminal = std::io::stderr().is_terminal();
        while workers.iter().any(|worker| !worker.is_finished()) {
            std::thread::sleep(Duration::from_millis(50));
            let period = if is_terminal { PROGRESS_ON_TERMINAL } else { PROGRESS_ELSEWHERE };
            if period <= shown_at.elapsed() {
                shown_at = Instant::now();
                show(&shared, began_at.elapsed(), is_terminal);
            }
        }
        if is_terminal {
            print::error_data(b"\r\x1b[K");
        }
    });
    let mut hunt = shared.hunt.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    hunt.took = began_at.elapsed();
    hunt
}

fn work(shared: &Shared, first: u64, is_over: &(dyn Fn(u64) -> bool + Sync), keep_going: bool) {
    while !shared.must_stop.load(Ordering::Relaxed) {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        if is_over(number) {
            return;
        }
        let seed = first.wrapping_add(number);
        let scenario = sim::generate::scenario(seed);
        let mut judged = sim::judged(&scenario, |_| {});
        let is_twice = number.is_multiple_of(TWICE_EVERY);
        if is_twice && judged.ended.violation.is_none() {
            let again = sim::judged(&scenario, |_| {}).ended;
            if again.digest != judged.ended.digest {
                let message = format!("the digests are {:016x} and {:016x}", judged.ended.digest, again.digest);
                let violation = Violation { checker: "same-again", at_ms: again.at_ms, message };
                judged.ended.violation = Some(violation);
            }
        }
        if let Some(violation) = &judged.ended.violation {
            print::note(format!("seed {seed}: {violation}"));
            shared.must_stop.fetch_or(!keep_going, Ordering::Relaxed);
        }
        let mut hunt = shared.hunt.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        hunt.twice_count += u64::from(is_twice);
        hunt.note(seed, judged);
    }
}

fn show(shared: &Shared, took: Duration, is_terminal: bool) {
    let hunt = shared.hunt.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let seconds = took.as_secs_f64();
    let text = format!(
        "{} seeds, {:.1}/s, {} failed, {} simulated, {:.0} times as fast as time on each of {} cores",
        hunt.run_count,
        hunt.run_count as f64 / seconds,
        hunt.failures.len(),
        print::duration(hunt.simulated_ms),
        hunt.simulated_ms as f64 / 1_000.0 / seconds / hunt.jobs as f64,
        hunt.jobs,
    );
    if is_terminal {
        print::error_data(format!("\r\x1b[K{text}").as_bytes());
    } else {
        print::note(text);
    }
}
