//! A shorter scenario that still fails: delta debugging over the steps. Never changes the setup, beyond ending earlier.

use crate::scenario::{Scenario, Step};

/// Leaves out what is not needed for `fails` to say yes. Calls it often.
pub fn shrink(scenario: &Scenario, mut fails: impl FnMut(&Scenario) -> bool) -> Scenario {
    let mut best = scenario.clone();
    let mut piece = best.steps.len().div_ceil(2).max(1);
    loop {
        let has_shrunk = leave_out(&mut best, piece, &mut fails);
        if piece == 1 && !has_shrunk {
            break;
        }
        if !has_shrunk || best.steps.len() < piece {
            piece = piece.div_ceil(2).max(1);
        }
    }
    end_earlier(&mut best, &mut fails);
    best
}

/// Tries to leave out each piece of so many steps, from the end.
fn leave_out(best: &mut Scenario, piece: usize, fails: &mut impl FnMut(&Scenario) -> bool) -> bool {
    let mut has_shrunk = false;
    let mut end = best.steps.len();
    while 0 < end {
        let start = end.saturating_sub(piece);
        let kept: Vec<Step> = best.steps[..start].iter().chain(&best.steps[end..]).cloned().collect();
        let candidate = Scenario { steps: kept, ..best.clone() };
        if fails(&candidate) {
            *best = candidate;
            has_shrunk = true;
        }
        end = start;
    }
    has_shrunk
}

fn end_earlier(best: &mut Scenario, fails: &mut impl FnMut(&Scenario) -> bool) {
    let last_ms = best.steps.iter().map(|step| step.at_ms).max().unwrap_or(0);
    for after_ms in [100, 5_000, 20_000] {
        let mut candidate = best.clone();
        candidate.setup.faults_ms = (last_ms + after_ms).min(best.setup.faults_ms);
        if candidate.setup.faults_ms < best.setup.faults_ms && fails(&candidate) {
            *best = candidate;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate;

    #[test]
    fn only_the_steps_that_matter_are_left() {
        let scenario = generate::scenario(3);
        let (first, second) = (scenario.steps[5].clone(), scenario.steps[17].clone());
        let shrunk = shrink(&scenario, |s| s.steps.contains(&first) && s.steps.contains(&second));
        assert_eq!(shrunk.steps, [first, second]);
    }
}
