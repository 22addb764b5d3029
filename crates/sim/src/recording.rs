//! The log of servers that have run, read from their disks and judged: history as far as a real cluster wrote it down.
//!
//! What happened beside the log, such as which process lived where, is not known then; checkers that need it have
//! nothing to judge. Only reads.

use crate::checker::{Violation, all};
use crate::history::{Fact, What};
use crate::judge::Judge;
use consensus::{ConsensusError, SnapshotMeta};
use domain::id::Revision;
use domain::{Batch, State};
use journal::{Disk, Journal, Options, SnapshotStore};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Copies of the files of a directory: a disk that nobody else sees.
#[derive(Clone, Debug, Default)]
pub struct Files(pub BTreeMap<String, Vec<u8>>);

impl Files {
    fn file(&mut self, name: &str) -> io::Result<&mut Vec<u8>> {
        self.0.get_mut(name).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, name.to_owned()))
    }
}

impl Disk for Files {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.0.get(name).cloned().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, name.to_owned()))
    }

    fn create(&mut self, name: &str, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        self.0.insert(name.to_owned(), vec![0; len]);
        Ok(())
    }

    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let content = self.file(name)?;
        content.resize(content.len().max(start + bytes.len()), 0);
        content[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.file(name).map(|_| ())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let content = std::mem::take(self.file(from)?);
        self.0.remove(from);
        self.0.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.file(name)?;
        self.0.remove(name);
        Ok(())
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a server's disk says of its past.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// Its newest snapshot, or the empty state.
    pub start: Arc<State>,
    /// The batches that are known to be committed and that changed the state, from there on.
    pub batches: Vec<Arc<Batch>>,
    /// The state after them.
    pub end: Arc<State>,
    /// Committed batches that came too late for their base and did nothing.
    pub skipped_count: u64,
}

/// Why a disk could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The journal is damaged.
    #[error("reading the journal")]
    Journal(#[from] journal::JournalError),
    /// A snapshot is damaged.
    #[error("reading the newest snapshot")]
    Snapshot(#[from] journal::FileError),
    /// The log cannot be put together.
    #[error("putting the log together")]
    Log(#[from] ConsensusError),
    /// Something in it is not what this version writes.
    #[error("decoding {0}")]
    Codec(&'static str, #[source] api::codec::CodecError),
}

/// What became of a history.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// How many batches the log had.
    pub batch_count: usize,
    /// How often each checker had something to judge.
    pub counts: Vec<(&'static str, u64)>,
}

impl Recording {
    /// Reads what the journal and the snapshots of a server have.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn read(journal: Files, snapshots: Files) -> Result<Self, RecordingError> {
        let snapshot = SnapshotStore::open(snapshots)?.latest()?;
        let (_, recovered) = Journal::open(journal, Options::default())?;
        let records = recovered.records.into_iter().map(|(_, record)| record).collect();
        let mut start = State::default();
        let mut meta = None;
        if let Some(found) = snapshot {
            start = api::codec::decode(&found.bytes).map_err(|source| RecordingError::Codec("a snapshot", source))?;
            meta = Some(SnapshotMeta { index: found.index, term: found.term, ..SnapshotMeta::default() });
        }
        let payloads = consensus::Recovered { records, snapshot: meta }.committed_payloads()?;
        let mut recording = Self { start: Arc::new(start.clone()), ..Self::default() };
        let mut state = start;
        for payload in payloads {
            let batches = api::codec::decode_entry(&payload);
            for batch in batches.map_err(|source| RecordingError::Codec("an entry of the log", source))? {
                if state.apply_batch(&batch) {
                    recording.batches.push(Arc::new(batch));
                } else {
                    recording.skipped_count += 1;
                }
            }
        }
        recording.end = Arc::new(state);
        Ok(recording)
    }

    fn facts(&self, server: u64) -> impl Iterator<Item = Fact> {
        let mut revision = self.start.revision;
        let started = What::ServerStarted { server, state: Arc::clone(&self.start) };
        let applied = self.batches.iter().map(move |batch| {
            revision = Revision(revision.0 + batch.events.len() as u64);
            Fact { at_ms: batch.at_ms, what: What::Applied { server, batch: Arc::clone(batch), revision } }
        });
        let shown = What::Shown { server, state: Arc::clone(&self.end) };
        let last_ms = self.end.at_ms;
        std::iter::once(Fact { at_ms: self.start.at_ms, what: started })
            .chain(applied)
            .chain(std::iter::once(Fact { at_ms: last_ms, what: shown }))
    }
}

/// Judges what several servers of one cluster have written down. Those whose logs do not meet are judged apart.
///
/// # Errors
/// A promise was broken.
pub fn judge(servers: &[(u64, Recording)]) -> Result<Judged, Violation> {
    let mut order: Vec<&(u64, Recording)> = servers.iter().collect();
    order.sort_by_key(|(number, recording)| (recording.start.revision, *number));
    let mut judged = Judged::default();
    let mut judge: Option<Judge> = None;
    for (number, recording) in order {
        let meets = judge.as_ref().is_some_and(|judge| recording.start.revision <= judge.scene().log.revision());
        if !meets {
            finish(judge.take(), &mut judged)?;
        }
        let current = judge.get_or_insert_with(|| Judge::since((*recording.start).clone(), all()));
        for fact in recording.facts(*number) {
            current.see(&fact)?;
        }
    }
    finish(judge, &mut judged)?;
    Ok(judged)
}

fn finish(judge: Option<Judge>, judged: &mut Judged) -> Result<(), Violation> {
    let Some(mut judge) = judge else { return Ok(()) };
    let at_ms = judge.scene().log.state().at_ms;
    judge.see(&Fact { at_ms, what: What::Calm })?;
    judged.batch_count += judge.scene().log.batches().len();
    for (name, count) in judge.counts() {
        match judged.counts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, total)) => *total += count,
            None => judged.counts.push((name, count)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::spec::Labels;
    use domain::{Command, Draft, Event, Outcome, Request};

    fn recording(commands: Vec<Command>) -> Recording {
        let mut draft = Draft::default();
        let mut recording = Recording::default();
        for command in commands {
            let request = Request { actor: "user".into(), id: None, expected: None, command };
            if let Ok(Outcome::Committed(batch)) = draft.submit(&request, 1) {
                recording.batches.push(Arc::new(batch));
            }
        }
        recording.end = Arc::new(draft.state().clone());
        recording
    }

    fn commands() -> Vec<Command> {
        let (labels, annotations) = (Labels::new(), Labels::new());
        let spec = crate::checker::story::spec(2, domain::spec::PodManagement::Parallel);
        let set = crate::checker::story::key("web");
        vec![
            Command::FormCluster { cluster: "00c0ffee".into() },
            Command::ApplySet { set: set.clone(), labels, annotations, spec },
            Command::ScaleSet { set, replicas: 4, current: None, force_unready: false },
        ]
    }

    #[test]
    fn servers_that_agree_and_kept_promises_are_praised() {
        let whole = recording(commands());
        let mut late = whole.clone();
        let first = late.batches.remove(0);
        let mut start = State::default();
        start.apply_batch(&first);
        late.start = Arc::new(start);
        let judged = judge(&[(1, whole.clone()), (2, whole), (3, late)]).unwrap();
        assert_eq!(judged.batch_count, 3);
    }

    #[test]
    fn servers_that_differ_are_noticed() {
        let one = recording(commands());
        let mut other = one.clone();
        let mut batch = (*other.batches[2]).clone();
        batch.events.push(Event::NodeRemoved { node: "n1".into() });
        other.batches[2] = Arc::new(batch);
        let violation = judge(&[(1, one), (2, other)]).unwrap_err();
        assert_eq!(violation.checker, crate::judge::ONE_HISTORY);
    }

    #[test]
    fn an_empty_directory_has_no_past() {
        let empty = Recording::read(Files::default(), Files::default()).unwrap();
        assert!(empty.batches.is_empty());
    }

    #[test]
    fn copies_behave_like_a_disk() {
        let (mut journal, _) = Journal::open(Files::default(), Options { segment_bytes_max: 4_096 }).unwrap();
        for _ in 0..100 {
            journal.append(&[7; 100]).unwrap();
        }
        journal.sync().unwrap();
    }
}
