//! A deterministic world for the cores, and the checkers that judge what happened in it.
//!
//! Everything in a run follows from its seed. The checkers know nothing of the world: they read a history, and that of
//! a real cluster serves them as well.

pub mod checker;
pub mod history;
pub mod judge;
pub mod log;
pub mod scene;
