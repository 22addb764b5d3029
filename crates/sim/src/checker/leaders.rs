//! Who leads. `one-leader` (Raft's election safety): no two servers lead in the same term, or both could commit.
//! `steady-leader`: where one server at a time is in trouble, that costs an election or two, and nobody who hears nothing
//! deposes the leader again and again. The second is a promise of quiet worlds only, and not among [`super::all`].

use super::Checker;
use crate::history::{Fact, What};
use crate::scene::Scene;
use std::collections::{BTreeMap, VecDeque};

/// Within this time
const WINDOW_MS: u64 = 10_000;
/// the leader changes so often at most: once for a trouble, once more if the vote was close, and the same when it ends.
const CHANGES_MAX: usize = 4;

/// No two servers lead in the same term.
#[derive(Debug, Default)]
pub struct OneLeader {
    judged_count: u64,
    leaders: BTreeMap<u64, u64>,
}

/// The leader stays.
#[derive(Debug, Default)]
pub struct SteadyLeader {
    judged_count: u64,
    changes: VecDeque<u64>,
}

impl Checker for OneLeader {
    fn name(&self) -> &'static str {
        "one-leader"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_fact(&mut self, _: &Scene, fact: &Fact) -> Result<(), String> {
        let What::Led { server, term } = &fact.what else { return Ok(()) };
        self.judged_count += 1;
        match self.leaders.insert(*term, *server) {
            Some(other) if other != *server => Err(format!("servers {other} and {server} both lead in term {term}")),
            Some(_) | None => Ok(()),
        }
    }
}

impl Checker for SteadyLeader {
    fn name(&self) -> &'static str {
        "steady-leader"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_fact(&mut self, _: &Scene, fact: &Fact) -> Result<(), String> {
        let What::Led { .. } = &fact.what else { return Ok(()) };
        self.judged_count += 1;
        self.changes.push_back(fact.at_ms);
        while self.changes.front().is_some_and(|at_ms| at_ms + WINDOW_MS < fact.at_ms) {
            self.changes.pop_front();
        }
        let count = self.changes.len();
        if count <= CHANGES_MAX {
            return Ok(());
        }
        Err(format!("the lead changed {count} times within {WINDOW_MS} ms, and one server at a time was in trouble"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::Story;

    #[test]
    fn a_term_has_one_leader() {
        let mut story = Story::judged_by(OneLeader::default());
        story.fact(What::Led { server: 1, term: 2 });
        story.fact(What::Led { server: 2, term: 3 });
        story.holds_so_far();
        story.fact(What::Led { server: 3, term: 2 });
        story.is_broken("servers 1 and 3 both lead in term 2");
    }

    #[test]
    fn a_leader_stays() {
        let mut story = Story::judged_by(SteadyLeader::default());
        for term in 1..=10 {
            story.fact(What::Led { server: 1 + term % 2, term });
            story.waits(WINDOW_MS / 3);
        }
        story.holds_so_far();
        for term in 11..=15 {
            story.fact(What::Led { server: 1 + term % 2, term });
            story.waits(1_000);
        }
        story.is_broken("the lead changed 5 times");
    }
}
