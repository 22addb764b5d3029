//! The built binary as its users run it: whole processes, a real disk, real links.

mod bad_input;
mod bench;
mod clients;
mod durability;
mod harness;
mod logs;
mod refusal;
mod walk;
