//! Deliberate bugs: proof that the simulator's checkers can fail. Owns their list, and which one is on.
//!
//! Each stands as one line beside the right rule, as in `if node_is_new || is_on(Mutant::OldBootAsRestart)`. In a normal
//! build [`is_on`] is a constant `false`, so that the product holds none of them. With the feature `enabled` one bug is on
//! for one run of one thread. Never decides what a bug does: the place where it stands does.

mod list;
#[cfg(feature = "enabled")]
mod switch;

pub use list::Mutant;
#[cfg(feature = "enabled")]
pub use switch::{VARIABLE, is_on, reached_count, with, without};

/// Whether this build can hold deliberate bugs: it must not serve anybody.
pub const IS_ENABLED: bool = cfg!(feature = "enabled");

/// Whether a bug is on: never, in a build like this one. It comes last in a condition, so that it is asked only where
/// the bug would make a difference.
#[cfg(not(feature = "enabled"))]
#[must_use]
pub const fn is_on(_mutant: Mutant) -> bool {
    false
}

/// Runs something without any bug: whoever judges must not be mistaken in the same way.
#[cfg(not(feature = "enabled"))]
pub fn without<T>(run: impl FnOnce() -> T) -> T {
    run()
}
