//! The built binary as its users run it: whole processes, a real disk, real links.

mod bad_input;
mod bench;
mod clients;
mod configs;
mod console;
mod containers;
mod copy;
mod durability;
mod exec;
mod harness;
mod local;
mod logs;
mod manifests;
mod nodes;
mod placement;
mod port_forward;
mod procs;
mod recovery;
mod refusal;
mod sandbox;
mod services;
mod sets;
mod storage;
mod verbs;
mod volumes;
mod walk;
