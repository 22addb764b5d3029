//! One run of a scenario. A brain that panics has broken a promise like any other.

use crate::checker::{self, Checker, Violation};
use crate::history::Fact;
use crate::judge::Judge;
use crate::scenario::Scenario;
use crate::world::{Ended, Witness, World};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a scenario before a witness.
#[must_use]
pub fn run(scenario: &Scenario, witness: &mut dyn Witness) -> Ended {
    let world = World::new(scenario, witness);
    // Whatever was half done is thrown away with the world.
    catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
        let violation = Violation { checker: "panic", at_ms: 0, message: text.to_owned() };
        Ended { violation: Some(violation), ..Ended::default() }
    })
}

/// A run, and how much every checker had to judge in it.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// How it ended.
    pub ended: Ended,
    /// Each checker, and how often it had something to judge.
    pub counts: Vec<(&'static str, u64)>,
}

/// Runs a scenario before all checkers. `also` sees every fact before they do.
#[must_use]
pub fn judged(scenario: &Scenario, also: impl FnMut(&Fact)) -> Judged {
    judged_by(checker::all(), scenario, also)
}

/// Runs a scenario of a quiet world before all checkers, and before those that judge quiet worlds alone.
#[must_use]
pub fn judged_quiet(scenario: &Scenario) -> Judged {
    let mut checkers = checker::all();
    checkers.push(Box::<checker::SteadyLeader>::default());
    judged_by(checkers, scenario, |_| {})
}

fn judged_by(checkers: Vec<Box<dyn Checker>>, scenario: &Scenario, mut also: impl FnMut(&Fact)) -> Judged {
    let mut judge = Judge::new(checkers);
    let mut witness = |fact: &Fact| {
        also(fact);
        judge.see(fact)
    };
    let ended = run(scenario, &mut witness);
    Judged { ended, counts: judge.counts() }
}
