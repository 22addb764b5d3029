//! A deterministic world for the cores, and the checkers that judge what happened in it.
//!
//! Everything in a run follows from its seed. The checkers know nothing of the world: they read a history, and that of
//! a real cluster serves them as well.

pub mod chance;
pub mod checker;
pub mod digest;
pub mod focus;
pub mod generate;
pub mod history;
pub mod judge;
pub mod log;
#[cfg(feature = "mutants")]
pub mod proof;
pub mod recording;
mod run;
pub mod scenario;
pub mod scene;
mod shrink;
pub mod timeline;
mod world;

pub use run::{Judged, judged, judged_quiet, run};
pub use shrink::shrink;
pub use world::{Ended, SETS, Witness, World};
