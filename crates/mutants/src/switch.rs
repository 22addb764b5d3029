//! Which bug is on in this thread, in builds that can hold bugs.

use crate::Mutant;
use std::cell::Cell;

/// The environment variable that switches a bug on for a whole process: with it, a crate's own tests should fail, too.
pub const VARIABLE: &str = "HOLDFAST_MUTANT";

thread_local! {
    static ON: Cell<Option<Mutant>> = Cell::new(from_environment());
    static REACHED_COUNT: Cell<u64> = const { Cell::new(0) };
}

fn from_environment() -> Option<Mutant> {
    let name = std::env::var(VARIABLE).ok()?;
    let found = Mutant::find(&name);
    assert!(found.is_some(), "{VARIABLE}={name} names no deliberate bug");
    found
}

/// Whether a bug is on. It comes last in a condition, so that it is asked only where the bug would make a difference.
#[must_use]
pub fn is_on(mutant: Mutant) -> bool {
    let is_on = ON.get() == Some(mutant);
    if is_on {
        REACHED_COUNT.set(REACHED_COUNT.get() + 1);
    }
    is_on
}

/// How often the bug that is on made, or could have made, a difference in this thread since it was switched on.
#[must_use]
pub fn reached_count() -> u64 {
    REACHED_COUNT.get()
}

/// Runs something with a bug.
pub fn with<T>(mutant: Mutant, run: impl FnOnce() -> T) -> T {
    REACHED_COUNT.set(0);
    let _former = Former(ON.replace(Some(mutant)));
    run()
}

/// Runs something without any bug: whoever judges must not be mistaken in the same way.
pub fn without<T>(run: impl FnOnce() -> T) -> T {
    let _former = Former(ON.replace(None));
    run()
}

/// Puts back what was on before, even if the run panics: many bugs end in a broken invariant of the code itself.
struct Former(Option<Mutant>);

impl Drop for Former {
    fn drop(&mut self) {
        ON.set(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bug_is_on_for_one_run_even_one_that_panics() {
        let (one, other) = (Mutant::ALL[0], Mutant::ALL[1]);
        let panicked = std::panic::catch_unwind(|| {
            with(one, || {
                assert!(is_on(one) && !is_on(other));
                without(|| assert!(!is_on(one)));
                assert_eq!(reached_count(), 1);
                panic!("as a broken invariant would");
            })
        });
        assert!(panicked.is_err());
        assert!(!is_on(one));
    }
}
