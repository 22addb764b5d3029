//! The whole brain of an agent: assignment in; start, stop, attach, detach and probe out.
//!
//! Owns what runs on a node, what is reported of it and when. Never does anything itself: a shell executes the
//! outputs in order, and tells what became of them as inputs. The clock is an argument.

mod container;
mod core;
mod given;
mod local;
mod message;
mod outbox;
mod pod;

pub use crate::core::{AgentCore, SESSION_SILENCE_MS_MIN};
pub use container::{BACK_OFF_MS_FIRST, BACK_OFF_MS_MAX, STEADY_AFTER_MS};
pub use given::{Configs, REASON_CONFIG};
pub use local::PLACE_RETRY_MS;
pub use message::{
    Config, Failure, Input, Ledger, LiveContainer, LiveContainerState, LivePod, Output, PodFile, ProbeKind,
    ProbeResult, VolumeContent,
};
pub use outbox::RESEND_AFTER_MS;
pub use pod::{ATTACH_RETRY_MS, REMOVE_RETRY_MS};
