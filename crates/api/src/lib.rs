//! How objects look outside: protobuf types, Kubernetes-shaped manifests, conversions to the domain, the log codec.
//!
//! Owns every form that leaves or enters a process. Never decides: what an object may become is the domain's matter.

/// The public messages and, with the feature `grpc`, their services: `proto/holdfast/v1`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    reason = "generated code"
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/holdfast.v1.rs"));
}

/// What servers and agents say to each other: `proto/holdfast/internal/v1`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    reason = "generated code"
)]
pub mod internal {
    include!(concat!(env!("OUT_DIR"), "/holdfast.internal.v1.rs"));
}

#[cfg(feature = "grpc")]
pub mod client;
pub mod codec;
pub mod convert;
pub mod manifest;
pub mod name;
pub mod patch;
pub mod quantity;
pub mod reason;
pub mod routes;
pub mod time;
mod wire;

/// The encoded descriptors of everything in `proto/`, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
