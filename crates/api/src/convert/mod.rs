//! Between what users write and read (`v1`) and what the domain decides about: each object is checked once, here, and
//! is valid from then on. Knows all rules that a single object can break; never looks at other objects to refuse one.

mod budget;
mod check;
mod config;
mod env;
mod event;
mod local_volume;
mod meta;
mod node;
mod pod;
mod probe;
mod security;
mod service;
mod set;
mod storage;
mod template;
mod template_out;
mod why;

pub use budget::{budget_from_wire, budget_to_wire};
pub use check::FieldError;
pub use config::{config_map_from_wire, config_map_to_wire, secret_from_wire, secret_to_wire};
pub use event::{events_to_wire, sentence};
pub use meta::{DEFAULT_NAMESPACE, finalizers_of, marks_of, namespace_of};
pub use node::node_to_wire;
pub use pod::{address_text, pod_to_wire};
pub use service::{WantedService, endpoints_to_wire, service_from_wire, service_to_wire};
pub use set::{REPLICAS_MAX, replicas_from_wire, set_from_wire, set_onto, set_revisions_to_wire, set_to_wire};
pub use storage::{
    attachment_to_wire, attachments_to_wire, claim_from_wire, claim_onto, claim_to_wire, class_from_wire,
    class_to_wire, volume_from_wire, volume_onto, volume_to_wire,
};
pub use why::why_to_wire;
