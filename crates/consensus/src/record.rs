//! Journal records: what one `Persist` carries, as bytes.
//! No checksum here, the journal has one. The order of the fields is the order in which they take effect.
//!
//! ```text
//! format u8 | term u64 | vote u64 | commit u64 | first_index u64 | entry_count u32 | has_reset u8
//! reset:   index u64 | term u64 | voter_count u32 | voter u64 ... | learner_count u32 | learner u64 ...
//! entries: (term u64 | kind u8 | data_bytes u32 | data | context_bytes u32 | context) ...
//! ```
//! Numbers are little-endian. Format 1 had no learners.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::eraftpb::{Entry, EntryType, HardState};

use crate::error::RecordError;
use crate::members::Members;
use crate::store::SnapshotMeta;

const FORMAT: u8 = 2;
/// What was written before groups had learners, and is still read.
const FORMAT_WITHOUT_LEARNERS: u8 = 1;

/// One decoded record.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Record {
    /// The log was replaced by this snapshot before `entries` were added.
    pub(crate) reset: Option<SnapshotMeta>,
    /// Entries to add; they replace a conflicting suffix.
    pub(crate) entries: Vec<Entry>,
    /// Hard state after all of this. Every record has it, so that the last record alone tells term and vote.
    pub(crate) hard_state: HardState,
}

pub(crate) fn encode(hard_state: &HardState, reset: Option<&SnapshotMeta>, entries: &[Entry]) -> Bytes {
    let payload_bytes: usize = entries.iter().map(|entry| entry.data.len() + entry.context.len() + 17).sum();
    let mut out = BytesMut::with_capacity(64 + payload_bytes);
    out.put_u8(FORMAT);
    out.put_u64_le(hard_state.term);
    out.put_u64_le(hard_state.vote);
    out.put_u64_le(hard_state.commit);
    out.put_u64_le(entries.first().map_or(0, |entry| entry.index));
    out.put_u32_le(length(entries.len()));
    out.put_u8(u8::from(reset.is_some()));
    if let Some(meta) = reset {
        out.put_u64_le(meta.index);
        out.put_u64_le(meta.term);
        for ids in [&meta.members.voters, &meta.members.learners] {
            out.put_u32_le(length(ids.len()));
            ids.iter().for_each(|&id| out.put_u64_le(id));
        }
    }
    for entry in entries {
        out.put_u64_le(entry.term);
        out.put_u8(kind_to_byte(entry.get_entry_type()));
        put_bytes(&mut out, &entry.data);
        put_bytes(&mut out, &entry.context);
    }
    out.freeze()
}

pub(crate) fn decode(bytes: Bytes) -> Result<Record, RecordError> {
    let mut rest = bytes;
    let header = Header::take(&mut rest)?;
    let reset = if header.has_reset { Some(take_reset(&mut rest, header.has_learners)?) } else { None };
    let mut entries = Vec::new();
    for offset in 0..u64::from(header.entry_count) {
        let mut entry = Entry { index: header.first_index + offset, term: take_u64(&mut rest)?, ..Entry::default() };
        entry.set_entry_type(kind_from_byte(take_u8(&mut rest)?)?);
        entry.data = take_bytes(&mut rest)?;
        entry.context = take_bytes(&mut rest)?;
        entries.push(entry);
    }
    if !rest.is_empty() {
        return Err(RecordError::TooLong { count: rest.len() });
    }
    Ok(Record { reset, entries, hard_state: header.hard_state })
}

/// The highest entry index in a record, 0 if it has no entries. Reads the header only.
pub(crate) fn last_index(bytes: &[u8]) -> Result<u64, RecordError> {
    let header = Header::take(&mut &*bytes)?;
    Ok((header.first_index + u64::from(header.entry_count)).saturating_sub(1))
}

struct Header {
    hard_state: HardState,
    first_index: u64,
    entry_count: u32,
    has_reset: bool,
    has_learners: bool,
}

impl Header {
    fn take(rest: &mut impl Buf) -> Result<Self, RecordError> {
        let format = take_u8(rest)?;
        let has_learners = match format {
            FORMAT => true,
            FORMAT_WITHOUT_LEARNERS => false,
            found => return Err(RecordError::UnknownFormat { found }),
        };
        let (term, vote, commit) = (take_u64(rest)?, take_u64(rest)?, take_u64(rest)?);
        Ok(Self {
            hard_state: HardState { term, vote, commit, ..HardState::default() },
            first_index: take_u64(rest)?,
            entry_count: take_u32(rest)?,
            has_reset: take_u8(rest)? != 0,
            has_learners,
        })
    }
}

fn take_reset(rest: &mut Bytes, has_learners: bool) -> Result<SnapshotMeta, RecordError> {
    let (index, term) = (take_u64(rest)?, take_u64(rest)?);
    let voters = take_ids(rest)?;
    let learners = if has_learners { take_ids(rest)? } else { Vec::new() };
    Ok(SnapshotMeta { index, term, members: Members { voters, learners } })
}

fn take_ids(rest: &mut Bytes) -> Result<Vec<u64>, RecordError> {
    let count = take_u32(rest)?;
    (0..count).map(|_| take_u64(rest)).collect()
}

fn length(count: usize) -> u32 {
    u32::try_from(count).expect("invariant: payloads and batches are far below 4 GiB")
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32_le(length(bytes.len()));
    out.put_slice(bytes);
}

fn take_bytes(rest: &mut Bytes) -> Result<Bytes, RecordError> {
    let count = take_u32(rest)? as usize;
    if rest.len() < count {
        return Err(RecordError::TooShort);
    }
    Ok(rest.split_to(count))
}

fn take_u8(rest: &mut impl Buf) -> Result<u8, RecordError> {
    rest.try_get_u8().map_err(|_| RecordError::TooShort)
}

fn take_u32(rest: &mut impl Buf) -> Result<u32, RecordError> {
    rest.try_get_u32_le().map_err(|_| RecordError::TooShort)
}

fn take_u64(rest: &mut impl Buf) -> Result<u64, RecordError> {
    rest.try_get_u64_le().map_err(|_| RecordError::TooShort)
}

fn kind_to_byte(kind: EntryType) -> u8 {
    match kind {
        EntryType::EntryNormal => 0,
        EntryType::EntryConfChange => 1,
        EntryType::EntryConfChangeV2 => 2,
    }
}

fn kind_from_byte(byte: u8) -> Result<EntryType, RecordError> {
    match byte {
        0 => Ok(EntryType::EntryNormal),
        1 => Ok(EntryType::EntryConfChange),
        2 => Ok(EntryType::EntryConfChangeV2),
        found => Err(RecordError::UnknownEntryKind { found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_record() -> impl Strategy<Value = Record> {
        let payloads = prop::collection::vec((any::<u64>(), prop::collection::vec(any::<u8>(), 0..40)), 0..6);
        let ids = || prop::collection::vec(any::<u64>(), 0..4);
        let reset = prop::option::of((any::<u64>(), any::<u64>(), ids(), ids()));
        (payloads, reset, 1..1_000_000_u64, any::<[u64; 3]>()).prop_map(|(payloads, reset, first, hard)| Record {
            reset: reset.map(|(index, term, voters, learners)| SnapshotMeta {
                index,
                term,
                members: Members { voters, learners },
            }),
            entries: (first..)
                .zip(payloads)
                .map(|(index, (term, data))| Entry { index, term, data: data.into(), ..Entry::default() })
                .collect(),
            hard_state: HardState { term: hard[0], vote: hard[1], commit: hard[2], ..HardState::default() },
        })
    }

    proptest! {
        #[test]
        fn records_survive_the_round_trip(record in any_record()) {
            let bytes = encode(&record.hard_state, record.reset.as_ref(), &record.entries);
            prop_assert_eq!(last_index(&bytes).unwrap(), record.entries.last().map_or(0, |entry| entry.index));
            prop_assert_eq!(decode(bytes).unwrap(), record);
        }

        #[test]
        fn every_strict_prefix_is_refused(record in any_record(), cut in any::<prop::sample::Index>()) {
            let bytes = encode(&record.hard_state, record.reset.as_ref(), &record.entries);
            prop_assert_eq!(decode(bytes.slice(..cut.index(bytes.len()))), Err(RecordError::TooShort));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode(Bytes::from(bytes));
        }
    }

    #[test]
    fn records_from_before_there_were_learners_are_read() {
        let members = Members::of_voters(vec![1, 2, 3]);
        let meta = SnapshotMeta { index: 20, term: 3, members };
        let entry = Entry { index: 21, term: 3, data: b"payload".as_slice().into(), ..Entry::default() };
        let hard_state = HardState { term: 3, vote: 2, commit: 20, ..HardState::default() };
        let mut bytes = encode(&hard_state, Some(&meta), std::slice::from_ref(&entry)).to_vec();
        let header_bytes = 1 + 4 * 8 + 4 + 1;
        let learner_count_at = header_bytes + 2 * 8 + 4 + 3 * 8;
        bytes.drain(learner_count_at..learner_count_at + 4);
        bytes[0] = 1;
        let record = decode(bytes.into()).unwrap();
        assert_eq!(record, Record { reset: Some(meta), entries: vec![entry], hard_state });
    }

    #[test]
    fn unknown_format_and_trailing_bytes_are_refused() {
        let mut bytes = encode(&HardState::default(), None, &[]).to_vec();
        bytes.push(0);
        assert_eq!(decode(bytes.clone().into()), Err(RecordError::TooLong { count: 1 }));
        bytes[0] = 9;
        assert_eq!(decode(bytes.into()), Err(RecordError::UnknownFormat { found: 9 }));
    }
}
