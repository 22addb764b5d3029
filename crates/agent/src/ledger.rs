//! The ledger on disk: a line of JSON, then the assignment as it came over the wire.
//! Never decides what is kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use agent_core::Ledger;
use domain::agent::Assignment;
use domain::id::{BootId, Fence, VolumeName};
use journal::DirDisk;
use serde::{Deserialize, Serialize};

use crate::config::AgentError;
use crate::layout;

const FILE: &str = "agent";
const VERSION: u32 = 1;

/// The ledger's file. As long as this lives, no other agent can have the same data directory.
#[derive(Debug)]
pub(crate) struct LedgerFile {
    path: PathBuf,
    file: journal::Ledger<DirDisk>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    version: u32,
    boot_id: String,
    fences: BTreeMap<String, u64>,
}

#[derive(Debug, thiserror::Error)]
enum ContentError {
    #[error("it has no header")]
    NoHeader,
    #[error("it has version {0}")]
    Version(u32),
}

impl LedgerFile {
    pub(crate) fn open(data_dir: &Path) -> Result<Self, AgentError> {
        let path = layout::ledger_dir(data_dir);
        let disk = DirDisk::open(&path).map_err(|source| AgentError::Directory { path: path.clone(), source })?;
        let file = journal::Ledger::open(disk, FILE).map_err(|source| AgentError::Ledger { source })?;
        Ok(Self { path, file })
    }

    /// The last saved ledger, or an empty one when there never was any.
    pub(crate) fn load(&self) -> Result<Ledger, AgentError> {
        let Some(bytes) = self.file.load().map_err(|source| AgentError::Ledger { source })? else {
            return Ok(Ledger::default());
        };
        decode(&bytes).map_err(|source| AgentError::LedgerContent { path: self.path.join(FILE), source })
    }

    /// Durable when this returns.
    pub(crate) fn save(&mut self, ledger: &Ledger) -> Result<(), AgentError> {
        self.file.save(&encode(ledger)).map_err(|source| AgentError::Ledger { source })
    }
}

fn encode(ledger: &Ledger) -> Vec<u8> {
    let header = Header {
        version: VERSION,
        boot_id: ledger.boot_id.to_string(),
        fences: ledger.fences.iter().map(|(volume, fence)| (volume.to_string(), fence.0)).collect(),
    };
    let mut bytes = serde_json::to_vec(&header).expect("invariant: texts and numbers can be written as JSON");
    bytes.push(b'\n');
    bytes.extend_from_slice(&api::codec::encode(&ledger.assignment()));
    bytes
}

fn decode(bytes: &[u8]) -> Result<Ledger, Box<dyn std::error::Error + Send + Sync>> {
    // JSON escapes line ends, so the first one ends the header.
    let end = bytes.iter().position(|&byte| byte == b'\n').ok_or(ContentError::NoHeader)?;
    let header: Header = serde_json::from_slice(&bytes[..end])?;
    if header.version != VERSION {
        return Err(ContentError::Version(header.version).into());
    }
    let assignment: Assignment = api::codec::decode(&bytes[end + 1..])?;
    let fences = header.fences.into_iter().map(|(volume, fence)| (VolumeName::from(volume), Fence(fence))).collect();
    Ok(Ledger::found(BootId::from(header.boot_id), fences, assignment))
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::agent::AssignedPod;
    use domain::config::{ConfigKind, ConfigSpec};
    use domain::id::{Incarnation, Key, Revision, Uid};
    use std::sync::Arc;

    #[test]
    fn what_was_saved_is_found_again_by_the_next_agent() {
        let dir = tempfile::tempdir().unwrap();
        let pod = AssignedPod { pod: Key::new("default", "web-0"), uid: Uid(7), ..AssignedPod::default() };
        let secret = ConfigSpec { is_immutable: true, ..ConfigSpec::default() };
        let ledger = Ledger {
            boot_id: BootId::new("b1\n"),
            incarnation: Incarnation(3),
            revision: Revision(40),
            fences: BTreeMap::from([(VolumeName::new("v0"), Fence(4))]),
            pods: BTreeMap::from([(Uid(7), Arc::new(pod))]),
            configs: BTreeMap::from([((ConfigKind::Secret, Key::new("default", "keys")), Arc::new(secret))]),
        };
        let mut file = LedgerFile::open(dir.path()).unwrap();
        assert_eq!(file.load().unwrap(), Ledger::default());
        file.save(&ledger).unwrap();
        assert!(LedgerFile::open(dir.path()).is_err(), "two agents must not share a directory");
        drop(file);
        assert_eq!(LedgerFile::open(dir.path()).unwrap().load().unwrap(), ledger);
    }
}
