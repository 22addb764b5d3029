//! The stored form of everything that outlives a process or crosses between servers and agents: protobuf's wire
//! format, one line per type. Owns bytes; never checks whether what they say makes sense.
//!
//! The bytes are canonical: equal values have equal bytes in every version. Fields that hold their default are
//! omitted, unknown fields are skipped, and numbers are never used again for something else.

mod entry;
mod records;
mod state;
mod table;
mod wire;

use domain::State;
use domain::spec::Template;
pub use entry::{EntryWriter, decode_entry};
pub use wire::{Decoder, Encoder};

/// Bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// They are no protobuf.
    #[error("reading protobuf")]
    Malformed(#[from] prost::DecodeError),
    /// They end too early.
    #[error("the bytes end in the middle of a field")]
    CutShort,
    /// A field of another type.
    #[error("a field has wire type {actual}, not {expected}")]
    WireType { expected: u8, actual: u8 },
    /// A number that is larger than its field.
    #[error("number {0} does not fit its field")]
    NumberTooLarge(u64),
    /// A text that is none.
    #[error("a text is not UTF-8")]
    NotUtf8,
    /// A variant of a newer version.
    #[error("{kind} has no variant {number}: it was written by a newer version")]
    VariantUnknown { kind: &'static str, number: u64 },
    /// No variant at all.
    #[error("{kind} is missing")]
    Missing { kind: &'static str },
    /// A pod without its template.
    #[error("template {0} is not in the snapshot")]
    TemplateUnknown(u64),
}

/// Something with a stored form.
pub trait Record: Sized {
    /// Writes its fields.
    fn encode_fields(&self, out: &mut Encoder);

    /// Reads fields to the end of the input.
    ///
    /// # Errors
    /// If the bytes are not of this type.
    fn decode_fields(input: &mut Decoder<'_>) -> Result<Self, CodecError>;
}

/// An enum whose variants have names.
pub trait Variants {
    /// All of them, in the order of their numbers.
    const NAMES: &'static [&'static str];

    /// The name of this one.
    fn variant_name(&self) -> &'static str;
}

/// The bytes of a value.
#[must_use]
pub fn encode<T: Record>(value: &T) -> Vec<u8> {
    let mut out = Encoder::new();
    value.encode_fields(&mut out);
    out.into_bytes()
}

/// The value of bytes.
///
/// # Errors
/// If they are not of this type, or of a newer version.
pub fn decode<T: Record>(bytes: &[u8]) -> Result<T, CodecError> {
    T::decode_fields(&mut Decoder::new(bytes))
}

/// A digest of a whole state: the same on every server that applied the same log.
#[must_use]
pub fn state_digest(state: &State) -> u64 {
    fnv1a(FNV_SEED, &encode(state))
}

/// A digest of a template's content, whatever its present `hash` says.
#[must_use]
pub fn template_hash(template: &Template) -> u64 {
    fnv1a(FNV_SEED, &encode(&Template { hash: 0, ..template.clone() }))
}

/// Where FNV-1a starts.
pub(crate) const FNV_SEED: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a: small, and fixed for ever. For names and comparisons, never against an adversary.
pub(crate) fn fnv1a(seed: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
