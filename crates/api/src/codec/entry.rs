//! What an entry of the log holds: batches that were decided one after another. Written and read as a whole.

use super::wire::Texts;
use super::{CodecError, Decoder, Encoder, Record, decode};
use domain::Batch;

/// How an entry of many batches begins. No field has this key: a version that knows entries of one batch alone refuses
/// such an entry, rather than misread it.
const MANY: u8 = 0;
/// The field of each batch after that.
const BATCH: u32 = 1;

/// In an entry of so many bytes it pays to look which names come again.
const LARGE_BYTES_MIN: usize = 4 * 1024;

/// Batches on their way into an entry.
#[derive(Debug, Default)]
pub struct EntryWriter {
    out: Encoder,
}

impl EntryWriter {
    /// Adds the batch that was decided next.
    pub fn push(&mut self, batch: &Batch) {
        if self.len_bytes() == 0 {
            self.out.byte(MANY);
        }
        self.out.message(BATCH, |out| batch.encode_fields(out));
    }

    /// How much there is so far.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.out.len_bytes()
    }

    /// The entry, unless nothing was added since the last one.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        // Copied, so that the entry, which is kept for long, has no more room than it needs.
        let entry = self.out.as_bytes().to_vec();
        self.out.clear();
        (!entry.is_empty()).then_some(entry)
    }
}

/// The batches of an entry, in their order. Entries of one batch, as they were written at first, are read like others.
///
/// # Errors
/// If it is no such entry, or one of a newer version.
pub fn decode_entry(entry: &[u8]) -> Result<Vec<Batch>, CodecError> {
    let Some((&MANY, many)) = entry.split_first() else { return Ok(vec![decode(entry)?]) };
    let texts = Texts::default();
    let mut input = Decoder::new(many);
    if LARGE_BYTES_MIN <= many.len() {
        input = input.with_texts(&texts);
    }
    let mut batches = Vec::new();
    while let Some((number, wire)) = input.key()? {
        match number {
            BATCH => batches.push(Batch::decode_fields(&mut input.message(wire)?)?),
            _ => input.skip(number, wire)?,
        }
    }
    Ok(batches)
}
