//! The record codec: how one record lies in a segment, and how an interrupted write differs from damage.
//!
//! Owns the byte layout. Never touches a disk.
//!
//! A record is `len u32, body checksum u32, seq u64, synced u64, header checksum u32, MARK`, the body, zeros up to
//! alignment, `MARK`; integers little endian. `synced` is the last record that was durable when this one was written:
//! it lets a later record prove that an earlier one had been kept. The marks are never zero, so a write into zeroed
//! space that stopped early shows. A seal is a header alone, with `SEAL_LEN`, and ends a segment.

use mutants::{Mutant, is_on};
use std::fmt;

/// The number of a record: 1 for the first, without holes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The largest record; a larger one is refused before anything is written.
pub const RECORD_BYTES_MAX: usize = 1 << 30;
/// The size of a record's header, and of a whole seal.
pub(crate) const HEADER_BYTES: usize = 32;
/// Records begin at multiples of this.
pub(crate) const ALIGNMENT: usize = 8;

const SEAL_LEN: u32 = u32::MAX;
const MARK: [u8; 4] = *b"hfr\n";
/// A disk writes at least this much in one piece, at multiples of it.
const SECTOR_BYTES: usize = 512;

/// What a valid record says.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub(crate) seq: Seq,
    pub(crate) body: Body<'a>,
    /// The offset behind the record.
    pub(crate) end: usize,
}

#[derive(Debug)]
pub(crate) enum Body<'a> {
    Payload(&'a [u8]),
    Seal,
}

/// Why there is no valid record at an offset.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    /// Part of it is still as it was before the write.
    Unwritten,
    /// All of it was written, and it is wrong.
    Altered,
}

/// The size of a record with a body of `len` bytes.
pub(crate) fn record_bytes(len: usize) -> usize {
    (HEADER_BYTES + len + MARK.len()).next_multiple_of(ALIGNMENT)
}

/// Replaces the content of `out` by a record.
pub(crate) fn encode(out: &mut Vec<u8>, seq: Seq, synced: Seq, payload: &[u8]) {
    assert!(payload.len() <= RECORD_BYTES_MAX, "a record of {} bytes was not refused", payload.len());
    let len = u32::try_from(payload.len()).expect("invariant: the largest record fits u32");
    encode_header(out, len, crc32fast::hash(payload), seq, synced);
    out.extend_from_slice(payload);
    out.resize(record_bytes(payload.len()) - MARK.len(), 0);
    out.extend_from_slice(&MARK);
}

/// Replaces the content of `out` by a seal: the segment ends here, and record `seq` begins the next one.
pub(crate) fn encode_seal(out: &mut Vec<u8>, seq: Seq, synced: Seq) {
    encode_header(out, SEAL_LEN, 0, seq, synced);
}

fn encode_header(out: &mut Vec<u8>, len: u32, body_crc: u32, seq: Seq, synced: Seq) {
    out.clear();
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&body_crc.to_le_bytes());
    out.extend_from_slice(&seq.0.to_le_bytes());
    out.extend_from_slice(&synced.0.to_le_bytes());
    let header_crc = crc32fast::hash(out);
    out.extend_from_slice(&header_crc.to_le_bytes());
    out.extend_from_slice(&MARK);
}

/// Reads the record at `offset` of a segment.
pub(crate) fn decode(bytes: &[u8], offset: usize) -> Result<Record<'_>, Invalid> {
    let body_at = offset + HEADER_BYTES;
    let Some(header) = bytes.get(offset..body_at) else {
        return Err(Invalid::Unwritten);
    };
    if header[28..] != MARK || crc32fast::hash(&header[..24]) != le_u32(&header[24..]) {
        return Err(invalid(bytes, offset, body_at));
    }
    let (len, body_crc) = (le_u32(header), le_u32(&header[4..]));
    let seq = Seq(le_u64(&header[8..]));
    if len == SEAL_LEN {
        return Ok(Record { seq, body: Body::Seal, end: body_at });
    }
    let len = len as usize;
    let end = offset + record_bytes(len);
    let Some(body) = bytes.get(body_at..end) else {
        return Err(Invalid::Unwritten);
    };
    let (payload, padding) = body[..body.len() - MARK.len()].split_at(len);
    if !body.ends_with(&MARK) || crc32fast::hash(payload) != body_crc || padding.iter().any(|&byte| byte != 0) {
        let invalid = invalid(bytes, body_at, end);
        let is_accepted = match invalid {
            Invalid::Unwritten => is_on(Mutant::TornTailAccepted),
            Invalid::Altered => is_on(Mutant::RecordNotChecked),
        };
        if !is_accepted {
            return Err(invalid);
        }
    }
    Ok(Record { seq, body: Body::Payload(payload), end })
}

/// The `seq` and `synced` that a header at `offset` claims, unchecked: a cheap filter before [`decode`].
pub(crate) fn claimed(bytes: &[u8], offset: usize) -> Option<(Seq, Seq)> {
    let header = bytes.get(offset..offset + HEADER_BYTES)?;
    (header[28..] == MARK).then(|| (Seq(le_u64(&header[8..])), Seq(le_u64(&header[16..]))))
}

/// Space is zeroed before records are written, and sectors arrive whole or not at all: an interrupted write leaves a
/// zero end mark or a zero sector, anything else was changed afterwards.
fn invalid(bytes: &[u8], start: usize, end: usize) -> Invalid {
    let has_zero_mark = bytes[end - MARK.len()..end].iter().all(|&byte| byte == 0);
    let has_zero_sector = || {
        let mut at = start;
        while at < end {
            let until = (at + 1).next_multiple_of(SECTOR_BYTES).min(end);
            if bytes[at..until].iter().all(|&byte| byte == 0) {
                return true;
            }
            at = until;
        }
        false
    };
    if has_zero_mark || has_zero_sector() { Invalid::Unwritten } else { Invalid::Altered }
}

pub(crate) fn le_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().expect("invariant: four bytes"))
}

pub(crate) fn le_u64(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("invariant: eight bytes"))
}
