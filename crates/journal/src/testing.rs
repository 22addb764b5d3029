//! `MemDisk`: a disk in memory that forgets, as real ones do, what was not synced.
//!
//! Owns the model of a crash. Never loses what was synced.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Disk;

const SECTOR_BYTES: u64 = 512;

/// A [`Disk`] in memory. Clones share their content, so a test keeps one while a store owns the other.
#[derive(Clone, Debug, Default)]
pub struct MemDisk {
    state: Arc<Mutex<State>>,
}

/// Something that a crash may lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// A file was created, renamed or removed. When one is lost, all later ones are lost too.
    Name,
    /// The zeros of a created file.
    Zeros,
    /// The part of one write that lies in one sector.
    Sector {
        /// Where in the file.
        offset: u64,
    },
}

/// A bit that was flipped.
#[derive(Clone, Debug)]
pub struct Flip {
    file: usize,
    at: usize,
    was: u8,
}

#[derive(Clone, Debug, Default)]
struct State {
    files: Vec<FileState>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    name_changes: Vec<NameChange>,
    steps: u64,
    steps_left: Option<u64>,
    is_full: bool,
}

#[derive(Clone, Debug, Default)]
struct FileState {
    content: Vec<u8>,
    durable: Vec<u8>,
    writes: Vec<Write>,
}

#[derive(Clone, Debug)]
enum Write {
    Zeros(u64),
    Bytes { offset: u64, bytes: Vec<u8> },
}

#[derive(Clone, Debug)]
enum NameChange {
    Created { name: String, file: usize },
    Renamed { from: String, to: String },
    Removed { name: String },
}

impl MemDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy that shares nothing with this one.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { state: Arc::new(Mutex::new(self.state().clone())) }
    }

    /// Crashes: of what was not synced, `seed` decides what survives.
    pub fn crash(&self, seed: u64) {
        let mut random = seed;
        let mut draw = || {
            // splitmix64: the same seed gives the same crash everywhere.
            random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        };
        // Losing everything and losing nothing are the likeliest crashes, and would be rare among coin tosses.
        let kind = draw() % 4;
        self.crash_with(|_| match kind {
            0 => false,
            1 => true,
            _ => draw() % 2 == 0,
        });
    }

    /// Crashes: of what was not synced, that survives for which `is_kept` says so.
    ///
    /// Asked in the order of the operations: names first, then file by file. Steps work again afterwards.
    pub fn crash_with(&self, mut is_kept: impl FnMut(Unsynced) -> bool) {
        let mut state = self.state();
        let mut names = std::mem::take(&mut state.durable_names);
        for change in std::mem::take(&mut state.name_changes) {
            if !is_kept(Unsynced::Name) {
                break;
            }
            // File systems journal names in order.
            change.apply(&mut names);
        }
        for file in &mut state.files {
            file.crash(&mut is_kept);
        }
        state.names.clone_from(&names);
        state.durable_names = names;
        state.forget_removed();
        state.steps_left = None;
    }

    /// Every way to crash here, each a disk of its own: with more than `parts_max` losable parts a sample of `samples`.
    #[must_use]
    pub fn every_crash(&self, parts_max: u32, samples: u64) -> Vec<Self> {
        let mut parts = 0;
        self.fork().crash_with(|_| {
            parts += 1;
            true
        });
        let crashed = |crash: &dyn Fn(&Self)| {
            let disk = self.fork();
            crash(&disk);
            disk
        };
        if parts_max < parts {
            return (0..samples).map(|seed| crashed(&|disk| disk.crash(seed))).collect();
        }
        let keep = |kept: u32| {
            crashed(&|disk| {
                let mut part = 0;
                disk.crash_with(|_| {
                    part += 1;
                    kept >> (part - 1) & 1 == 1
                });
            })
        };
        (0..1_u32 << parts).map(keep).collect()
    }

    /// Lets `count` more changing steps (every call that takes `&mut self`) succeed; all later ones fail, until a crash.
    pub fn fail_after(&self, count: u64) {
        self.state().steps_left = Some(count);
    }

    /// From now on every changing step fails for want of room, over crashes too, until the disk is mended.
    pub fn fill(&self) {
        self.state().is_full = true;
    }

    /// Whether it has no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.state().is_full
    }

    /// Steps work again, and nothing is lost.
    pub fn mend(&self) {
        let mut state = self.state();
        (state.is_full, state.steps_left) = (false, None);
    }

    /// How many changing steps succeeded so far.
    #[must_use]
    pub fn step_count(&self) -> u64 {
        self.state().steps
    }

    /// Flips one bit, durably: rot, not a crash.
    ///
    /// # Panics
    /// If there is no such file, or it is shorter.
    pub fn flip_bit(&self, name: &str, offset: u64) -> Flip {
        let at = usize::try_from(offset).expect("invariant: memory holds the offset");
        let mut state = self.state();
        let file = *state.names.get(name).expect("invariant: the test names an existing file");
        let was = state.files[file].content[at];
        state.files[file].replace(at, was, was ^ 1);
        Flip { file, at, was }
    }

    /// Takes a flip back, wherever the wrong byte still is: not in what was written over it or lost since, and not in
    /// another file that has the name now.
    pub fn put_back(&self, flip: &Flip) {
        let Flip { file, at, was } = *flip;
        self.state().files[file].replace(at, was ^ 1, was);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, for one changing step.
    fn step(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        if state.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        match &mut state.steps_left {
            Some(0) => return Err(io::Error::other("the simulated disk stopped")),
            Some(left) => *left -= 1,
            None => {}
        }
        state.steps += 1;
        Ok(state)
    }
}

impl State {
    fn file(&mut self, name: &str) -> io::Result<&mut FileState> {
        let &file = self.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(&mut self.files[file])
    }

    /// Frees the content that no name leads to any more, so that long simulations stay small.
    fn forget_removed(&mut self) {
        for (position, file) in self.files.iter_mut().enumerate() {
            if !self.durable_names.values().any(|&kept| kept == position) {
                *file = FileState::default();
            }
        }
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Created { name, file } => {
                names.insert(name.clone(), *file);
            }
            Self::Renamed { from, to } => {
                let file = names.remove(from).expect("invariant: name changes apply in order");
                names.insert(to.clone(), file);
            }
            Self::Removed { name } => {
                names.remove(name);
            }
        }
    }
}

impl FileState {
    fn crash(&mut self, is_kept: &mut impl FnMut(Unsynced) -> bool) {
        for write in std::mem::take(&mut self.writes) {
            match write {
                Write::Zeros(len) => {
                    if is_kept(Unsynced::Zeros) {
                        put(&mut self.durable, len, &[]);
                    }
                }
                Write::Bytes { mut offset, bytes } => {
                    let mut rest = bytes.as_slice();
                    while !rest.is_empty() {
                        let room = (SECTOR_BYTES - offset % SECTOR_BYTES) as usize;
                        let (part, behind) = rest.split_at(room.min(rest.len()));
                        if is_kept(Unsynced::Sector { offset }) {
                            put(&mut self.durable, offset, part);
                        }
                        offset += part.len() as u64;
                        rest = behind;
                    }
                }
            }
        }
        self.content.clone_from(&self.durable);
    }

    /// Replaces a byte of this value wherever it is: in what is seen, in what is durable, and in what is to become so.
    fn replace(&mut self, at: usize, old: u8, new: u8) {
        let pending = self.writes.iter_mut().filter_map(|write| match write {
            Write::Zeros(_) => None,
            Write::Bytes { offset, bytes } => bytes.get_mut(at.checked_sub(usize::try_from(*offset).ok()?)?),
        });
        let seen = [self.content.get_mut(at), self.durable.get_mut(at)].into_iter().flatten();
        for byte in seen.chain(pending).filter(|byte| **byte == old) {
            *byte = new;
        }
    }
}

/// Writes into a content, which grows when the end is passed.
fn put(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let start = usize::try_from(offset).expect("invariant: memory holds the offset");
    let end = start + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[start..end].copy_from_slice(bytes);
}

impl Disk for MemDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        Ok(self.state().file(name)?.content.clone())
    }

    fn create(&mut self, name: &str, len: u64) -> io::Result<()> {
        let mut state = self.step()?;
        let mut file = FileState { writes: vec![Write::Zeros(len)], ..FileState::default() };
        put(&mut file.content, len, &[]);
        state.files.push(file);
        let file = state.files.len() - 1;
        state.change_names(NameChange::Created { name: name.to_owned(), file });
        Ok(())
    }

    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.step()?;
        let file = state.file(name)?;
        put(&mut file.content, offset, bytes);
        file.writes.push(Write::Bytes { offset, bytes: bytes.to_vec() });
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.step()?;
        let file = state.file(name)?;
        for write in std::mem::take(&mut file.writes) {
            match write {
                Write::Zeros(len) => put(&mut file.durable, len, &[]),
                Write::Bytes { offset, bytes } => put(&mut file.durable, offset, &bytes),
            }
        }
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.step()?;
        state.file(from)?;
        state.change_names(NameChange::Renamed { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.step()?;
        state.file(name)?;
        state.change_names(NameChange::Removed { name: name.to_owned() });
        Ok(())
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        let mut state = self.step()?;
        state.durable_names = state.names.clone();
        state.name_changes.clear();
        state.forget_removed();
        Ok(())
    }
}
