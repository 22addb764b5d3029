//! The journal: append, sync, drop a prefix, recover.
//!
//! Owns the segments of one directory and the order of their durability steps. Never repairs more than the end of an
//! interrupted write, never retries a failed sync.
//!
//! Three rules make recovery decidable. The next segment is durable before the current one is sealed, and the seal is
//! durable before the next one takes records: so a lost last segment shows. A floor file says where the journal begins,
//! and is moved before segments are removed: so a lost first segment shows. Each record says which record was durable
//! when it was written: so damage differs from writes that a crash reordered. What cannot be told apart from a crash is
//! the loss of whole sectors among the records of the very last sync.

use crate::disk::DiskExt;
use crate::record::{self, HEADER_BYTES, RECORD_BYTES_MAX, le_u64};
use crate::segment::{self, Ending, RECORDS_AT, Scan};
use crate::{Disk, JournalError, Ledger, Seq};
use mutants::{Mutant, is_on};

const FLOOR_FILE: &str = "floor";
const FIRST: Seq = Seq(1);

/// How a journal lays out its files.
#[derive(Clone, Debug)]
pub struct Options {
    /// The size of a segment. A single larger record makes its segment longer.
    pub segment_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes_max: 16 << 20 }
    }
}

/// What a journal held when it was opened. All of it is durable.
#[derive(Debug)]
pub struct Recovered {
    /// Every record that was not dropped, in order, without holes.
    pub records: Vec<(Seq, Vec<u8>)>,
    /// The end of an interrupted write, which was cleared.
    pub torn_tail: Option<TornTail>,
}

/// Records that were being written when the machine stopped. None of them had been synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub file: String,
    /// Where the cleared bytes begin.
    pub offset: u64,
    /// How many were cleared.
    pub bytes: u64,
}

/// An append-only log of numbered records.
///
/// After an error from the disk every call returns [`JournalError::Failed`]: the process must stop.
#[derive(Debug)]
pub struct Journal<D> {
    disk: D,
    segment_bytes_max: u64,
    /// The first record of each segment, in order; the last one takes appends.
    segments: Vec<Seq>,
    active: Active,
    next: Seq,
    synced: Seq,
    has_failed: bool,
    /// Reused, so that an append does not allocate.
    buffer: Vec<u8>,
}

/// The segment that takes appends.
#[derive(Debug)]
struct Active {
    name: String,
    end: u64,
    len: u64,
}

impl<D: Disk> Journal<D> {
    /// Opens the journal in the disk's directory, or begins a new one when there is none.
    pub fn open(mut disk: D, options: Options) -> Result<(Self, Recovered), JournalError> {
        let floor = load_floor(&mut disk)?;
        let mut segments = list_segments(&disk)?;
        if let Some(floor) = floor {
            remove_below(&mut disk, &mut segments, floor)?;
        }
        let mut scans = scan_segments(&disk, &segments)?;
        discard_unfinished(&mut disk, &mut segments, &mut scans, floor)?;
        check(&disk, &segments, &scans, floor)?;
        if segments.is_empty() {
            create_segment(&mut disk, FIRST, options.segment_bytes_max)?;
            segments.push(FIRST);
            let name = segment::file_name(FIRST);
            scans.push(segment::scan(&disk.read_file(&name)?, FIRST));
        }
        if floor.is_none() {
            save_floor(&mut disk, FIRST)?;
        }
        Self::recover(disk, options, segments, scans)
    }

    /// Makes the end of checked segments writable and collects their records.
    fn recover(
        mut disk: D,
        options: Options,
        segments: Vec<Seq>,
        scans: Vec<Scan>,
    ) -> Result<(Self, Recovered), JournalError> {
        let first = *segments.last().expect("invariant: a journal has a segment");
        let last = scans.last().expect("invariant: a journal has a segment");
        let name = segment::file_name(first);
        let torn_tail = match last.ending {
            Ending::Torn { until } => Some(clear(&mut disk, &name, last.end, until)?),
            _ => None,
        };
        disk.sync_file(&name)?;
        disk.prepare(options.segment_bytes_max);
        let journal = Self {
            disk,
            segment_bytes_max: options.segment_bytes_max,
            segments,
            active: Active { name, end: last.end as u64, len: last.len as u64 },
            next: last.next,
            synced: Seq(last.next.0 - 1),
            has_failed: false,
            buffer: Vec::new(),
        };
        let records = scans.into_iter().flat_map(|scan| scan.records).collect();
        Ok((journal, Recovered { records, torn_tail }))
    }

    /// Writes a record. It is durable only after [`sync`](Self::sync).
    pub fn append(&mut self, bytes: &[u8]) -> Result<Seq, JournalError> {
        if RECORD_BYTES_MAX < bytes.len() {
            return Err(JournalError::RecordTooLarge { bytes: bytes.len(), max: RECORD_BYTES_MAX });
        }
        self.unless_failed(|journal| journal.write_record(bytes))
    }

    /// Makes every appended record durable.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.unless_failed(|journal| {
            if journal.synced.next() < journal.next {
                let outcome = journal.disk.sync_file(&journal.active.name);
                outcome.or_else(|error| if is_on(Mutant::SyncErrorIgnored) { Ok(()) } else { Err(error) })?;
                journal.synced = Seq(journal.next.0 - 1);
            }
            Ok(())
        })
    }

    /// Removes the segments whose records all come before `before`. Some earlier records may stay.
    pub fn drop_prefix(&mut self, before: Seq) -> Result<(), JournalError> {
        self.unless_failed(|journal| {
            let kept_from = journal.segments.partition_point(|&first| first <= before).saturating_sub(1);
            if 0 < kept_from {
                let floor = journal.segments[kept_from];
                save_floor(&mut journal.disk, floor)?;
                remove_below(&mut journal.disk, &mut journal.segments, floor)?;
            }
            Ok(())
        })
    }

    /// The number the next record gets.
    #[must_use]
    pub fn next_seq(&self) -> Seq {
        self.next
    }

    /// The last durable record, or zero when there is none.
    #[must_use]
    pub fn synced_seq(&self) -> Seq {
        self.synced
    }

    /// The first record still on disk, or the number the first one will get.
    #[must_use]
    pub fn first_seq(&self) -> Seq {
        self.segments[0]
    }

    fn unless_failed<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, JournalError>) -> Result<T, JournalError> {
        if self.has_failed {
            return Err(JournalError::Failed);
        }
        let outcome = work(self);
        self.has_failed = outcome.is_err();
        outcome
    }

    fn write_record(&mut self, bytes: &[u8]) -> Result<Seq, JournalError> {
        let is_full = self.active.len < self.active.end + (record::record_bytes(bytes.len()) + HEADER_BYTES) as u64;
        // A record too large for any segment goes into an empty one, and makes it longer.
        if is_full && self.segments.last() != Some(&self.next) {
            self.roll()?;
        }
        let seq = self.next;
        record::encode(&mut self.buffer, seq, self.synced, bytes);
        self.write_buffer()?;
        self.next = seq.next();
        Ok(seq)
    }

    fn write_buffer(&mut self) -> Result<(), JournalError> {
        self.disk.write_file_at(&self.active.name, self.active.end, &self.buffer)?;
        self.active.end += self.buffer.len() as u64;
        Ok(())
    }

    /// Ends the active segment and begins the next.
    fn roll(&mut self) -> Result<(), JournalError> {
        create_segment(&mut self.disk, self.next, self.segment_bytes_max)?;
        record::encode_seal(&mut self.buffer, self.next, self.synced);
        self.write_buffer()?;
        self.disk.sync_file(&self.active.name)?;
        self.synced = Seq(self.next.0 - 1);
        self.segments.push(self.next);
        let name = segment::file_name(self.next);
        self.active = Active { name, end: RECORDS_AT as u64, len: self.segment_bytes_max };
        self.disk.prepare(self.segment_bytes_max);
        Ok(())
    }
}

/// Also makes all names durable, which they need not be if only the process died.
fn load_floor(disk: &mut impl Disk) -> Result<Option<Seq>, JournalError> {
    let ledger = Ledger::open(disk, FLOOR_FILE).map_err(JournalError::Floor)?;
    let floor = ledger.load().map_err(JournalError::Floor)?;
    Ok(floor.map(|bytes| Seq(le_u64(&bytes))))
}

fn save_floor(disk: &mut impl Disk, floor: Seq) -> Result<(), JournalError> {
    let mut ledger = Ledger::open(disk, FLOOR_FILE).map_err(JournalError::Floor)?;
    ledger.save(&floor.0.to_le_bytes()).map_err(JournalError::Floor)
}

fn list_segments(disk: &impl Disk) -> Result<Vec<Seq>, JournalError> {
    let mut segments: Vec<Seq> = disk.list_files()?.iter().filter_map(|name| segment::first_seq(name)).collect();
    segments.sort_unstable();
    Ok(segments)
}

fn scan_segments(disk: &impl Disk, segments: &[Seq]) -> Result<Vec<Scan>, JournalError> {
    let scan = |&first: &Seq| Ok(segment::scan(&disk.read_file(&segment::file_name(first))?, first));
    segments.iter().map(scan).collect()
}

/// Removes the segments that end before `floor`.
fn remove_below(disk: &mut impl Disk, segments: &mut Vec<Seq>, floor: Seq) -> Result<(), JournalError> {
    let kept_from = segments.partition_point(|&first| first <= floor).saturating_sub(1);
    for first in segments.drain(..kept_from) {
        disk.remove_file(&segment::file_name(first))?;
    }
    if 0 < kept_from {
        disk.sync_names()?;
    }
    Ok(())
}

/// Removes a last segment whose creation was interrupted: before it took records, and before anything relied on it.
fn discard_unfinished(
    disk: &mut impl Disk,
    segments: &mut Vec<Seq>,
    scans: &mut Vec<Scan>,
    floor: Option<Seq>,
) -> Result<(), JournalError> {
    let is_unneeded = match scans.as_slice() {
        [only] => only.ending == Ending::Unfinished && floor.is_none() && segments[0] == FIRST,
        [.., before, last] => {
            let is_empty = last.ending == Ending::Unfinished || last.ending == Ending::Blank && last.records.is_empty();
            is_empty && matches!(before.ending, Ending::Blank | Ending::Torn { .. })
        }
        [] => false,
    };
    if is_unneeded {
        scans.pop();
        let first = segments.pop().expect("invariant: every scan has its segment");
        disk.remove_file(&segment::file_name(first))?;
        disk.sync_names()?;
    }
    Ok(())
}

/// Refuses a journal in which something durable is missing or wrong.
fn check(disk: &impl Disk, segments: &[Seq], scans: &[Scan], floor: Option<Seq>) -> Result<(), JournalError> {
    let missing = |seq: Seq| JournalError::MissingSegment { file: disk.locate(&segment::file_name(seq)), seq };
    match (floor, segments.first()) {
        (Some(floor), None) => return Err(missing(floor)),
        (Some(floor), Some(&first)) if floor < first => return Err(missing(floor)),
        (None, Some(&first)) if first != FIRST || segments.len() != 1 || !scans[0].records.is_empty() => {
            return Err(JournalError::MissingFloor { file: disk.locate(FLOOR_FILE) });
        }
        _ => {}
    }
    for (position, scan) in scans.iter().enumerate() {
        let file = || disk.locate(&segment::file_name(segments[position]));
        let following = segments.get(position + 1);
        match (&scan.ending, following) {
            (Ending::Sealed, Some(&first)) if first == scan.next => {}
            (Ending::Sealed, _) => return Err(missing(scan.next)),
            (Ending::Blank | Ending::Torn { .. }, None) => {}
            (&Ending::UnknownFormat(version), _) => {
                return Err(JournalError::UnknownFormat { file: file(), version, supported: segment::FORMAT });
            }
            _ => {
                return Err(JournalError::Damaged { file: file(), offset: scan.end as u64, seq: scan.next });
            }
        }
    }
    Ok(())
}

/// Creates a segment that is durable and ready for records.
fn create_segment(disk: &mut impl Disk, first: Seq, len: u64) -> Result<(), JournalError> {
    let name = segment::file_name(first);
    disk.create_file(&name, len)?;
    disk.write_file_at(&name, 0, &segment::encode_header(first))?;
    disk.sync_file(&name)?;
    disk.sync_names()?;
    Ok(())
}

/// Zeroes the remains of interrupted writes: they must not be taken for records once others are written before them.
fn clear(disk: &mut impl Disk, name: &str, from: usize, until: usize) -> Result<TornTail, JournalError> {
    disk.write_file_at(name, from as u64, &vec![0; until - from])?;
    Ok(TornTail { file: disk.locate(name), offset: from as u64, bytes: (until - from) as u64 })
}
