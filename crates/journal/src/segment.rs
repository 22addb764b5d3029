//! Segments: their names, their headers, and what one holds after a crash.
//!
//! Owns the judgement of one segment by itself. Never touches a disk, never compares segments.

use crate::Seq;
use crate::record::{self, ALIGNMENT, Body, HEADER_BYTES, Invalid, le_u32, le_u64};

/// The format this program writes and reads.
pub(crate) const FORMAT: u32 = 1;
/// Where the first record of a segment begins.
pub(crate) const RECORDS_AT: usize = 24;

const PREFIX: &str = "segment-";
const MAGIC: [u8; 8] = *b"hfsegmnt";

pub(crate) fn file_name(first: Seq) -> String {
    format!("{PREFIX}{:020}", first.0)
}

/// The first record of the segment with this file name, or `None` for another kind of file.
pub(crate) fn first_seq(name: &str) -> Option<Seq> {
    let first = Seq(name.strip_prefix(PREFIX)?.parse().ok()?);
    (file_name(first) == name).then_some(first)
}

pub(crate) fn encode_header(first: Seq) -> [u8; RECORDS_AT] {
    let mut header = [0; RECORDS_AT];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[16..].copy_from_slice(&first.0.to_le_bytes());
    let crc = header_crc(&header);
    header[12..16].copy_from_slice(&crc.to_le_bytes());
    header
}

fn header_crc(header: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[8..12]);
    hasher.update(&header[16..RECORDS_AT]);
    hasher.finalize()
}

/// What one segment holds.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) records: Vec<(Seq, Vec<u8>)>,
    /// The record that would follow the last good one.
    pub(crate) next: Seq,
    /// The offset behind the last good record.
    pub(crate) end: usize,
    pub(crate) ending: Ending,
    /// The size of the file.
    pub(crate) len: usize,
}

/// What follows the last good record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Zeros: room for more.
    Blank,
    /// A seal: the next segment goes on.
    Sealed,
    /// The rest of writes that were interrupted, up to an offset.
    Torn { until: usize },
    /// A record that was written whole, and is wrong.
    Damaged,
    /// No header and no record: the creation was interrupted.
    Unfinished,
    /// The header names a format of another program version.
    UnknownFormat(u32),
}

pub(crate) fn scan(bytes: &[u8], first: Seq) -> Scan {
    let mut scan = Scan { records: Vec::new(), next: first, end: 0, ending: Ending::Blank, len: bytes.len() };
    if let Some(ending) = judge_header(bytes, first) {
        scan.ending = ending;
        return scan;
    }
    scan.end = RECORDS_AT;
    loop {
        let invalid = match record::decode(bytes, scan.end) {
            Ok(record) if record.seq == scan.next => match record.body {
                Body::Seal => {
                    scan.ending = Ending::Sealed;
                    return scan;
                }
                Body::Payload(payload) => {
                    scan.records.push((record.seq, payload.to_vec()));
                    scan.next = record.seq.next();
                    scan.end = record.end;
                    continue;
                }
            },
            // A whole record of another number: it does not belong here.
            Ok(_) => Invalid::Altered,
            Err(invalid) => invalid,
        };
        scan.ending = judge_rest(bytes, scan.end, scan.next, &invalid);
        return scan;
    }
}

/// `None` for a good header.
fn judge_header(bytes: &[u8], first: Seq) -> Option<Ending> {
    let is_ours = |header: &[u8]| header.starts_with(&MAGIC) && le_u32(&header[12..]) == header_crc(header);
    match bytes.get(..RECORDS_AT) {
        Some(header) if is_ours(header) => {
            let version = le_u32(&header[8..]);
            if version != FORMAT {
                return Some(Ending::UnknownFormat(version));
            }
            (le_u64(&header[16..]) != first.0).then_some(Ending::Damaged)
        }
        _ if has_later_record(bytes, 0, |seq, _| first <= seq) => Some(Ending::Damaged),
        _ => Some(Ending::Unfinished),
    }
}

/// Judges what begins at `end`, where record `next` should be.
fn judge_rest(bytes: &[u8], end: usize, next: Seq, invalid: &Invalid) -> Ending {
    let Some(last_used) = bytes[end..].iter().rposition(|&byte| byte != 0) else {
        return Ending::Blank;
    };
    // Writes between two syncs may arrive in any order, so a later record alone proves nothing: only one that was
    // written after `next` had been synced does.
    let was_synced = || has_later_record(bytes, end, |seq, synced| next < seq && next <= synced);
    if *invalid == Invalid::Altered || was_synced() {
        return Ending::Damaged;
    }
    Ending::Torn { until: end + last_used + 1 }
}

fn has_later_record(bytes: &[u8], from: usize, is_wanted: impl Fn(Seq, Seq) -> bool) -> bool {
    // One segment cannot hold more records than this; the filter keeps payload bytes from posing as headers.
    let records_max = (bytes.len() / HEADER_BYTES) as u64;
    (from..bytes.len()).step_by(ALIGNMENT).any(|offset| {
        record::claimed(bytes, offset).is_some_and(|(seq, synced)| {
            is_wanted(seq, synced)
                && synced < seq
                && seq.0 - synced.0 <= records_max + 1
                && record::decode(bytes, offset).is_ok()
        })
    })
}
