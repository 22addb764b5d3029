//! The whole brain of an agent: assignment in; start, stop, attach, detach and probe out.
//!
//! Owns what runs on a node, what is reported of it and when. Never does anything itself: a shell executes the
//! outputs in order, and tells what became of them as inputs. The clock is an argument.

mod check;
mod container;
mod core;
mod given;
mod limits;
mod local;
mod message;
mod outbox;
mod pod;
mod sizes;

pub use crate::core::{AgentCore, SESSION_SILENCE_MS_MIN, SHUTDOWN_WORD_MS_MAX};
pub use container::{
    AFTER_HOOK_MS_MIN, BACK_OFF_MS_FIRST, BACK_OFF_MS_MAX, POST_START_MS_MAX, REASON_POST_START, STEADY_AFTER_MS,
};
pub use given::{Configs, REASON_CONFIG};
pub use limits::{EVICTION_GRACE_MS, MEASURE_EVERY_MS, REASON_EVICTED};
pub use local::PLACE_RETRY_MS;
pub use message::{
    Config, Failure, HookKind, Input, Ledger, LiveContainer, LiveContainerState, LivePod, Output, PodFile, ProbeKind,
    ProbeResult, VolumeContent,
};
pub use outbox::RESEND_AFTER_MS;
pub use pod::{ATTACH_RETRY_MS, REASON_INITIALIZING, REMOVE_RETRY_MS};
