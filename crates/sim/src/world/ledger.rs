//! An agent's ledger on a simulated disk. Mirrors `agent/src/ledger.rs`; only the header is written in another way.

use agent_core::Ledger;
use domain::agent::Assignment;
use domain::id::{BootId, Fence, VolumeName};
use journal::FileError;
use journal::testing::MemDisk;
use std::collections::BTreeMap;

const FILE: &str = "agent";

pub(super) fn load(disk: &MemDisk) -> Result<Ledger, FileError> {
    let file = journal::Ledger::open(disk.clone(), FILE)?;
    Ok(file.load()?.as_deref().and_then(decode).unwrap_or_default())
}

/// Durable when this returns.
pub(super) fn save(disk: &MemDisk, bytes: &[u8]) -> Result<(), FileError> {
    journal::Ledger::open(disk.clone(), FILE)?.save(bytes)
}

pub(super) fn encode(ledger: &Ledger) -> Vec<u8> {
    let mut header = format!("{}\n", ledger.boot_id);
    for (volume, fence) in &ledger.fences {
        header.push_str(&format!("{volume} {fence}\n"));
    }
    header.push('\n');
    let mut bytes = header.into_bytes();
    bytes.extend(api::codec::encode(&ledger.assignment()));
    bytes
}

fn decode(bytes: &[u8]) -> Option<Ledger> {
    let mut lines = bytes.split(|&byte| byte == b'\n').map(std::str::from_utf8);
    let boot_id = lines.next()?.ok()?;
    let mut header_bytes = boot_id.len() + 1;
    let mut fences = BTreeMap::new();
    loop {
        let line = lines.next()?.ok()?;
        header_bytes += line.len() + 1;
        let Some((volume, fence)) = line.split_once(' ') else { break };
        fences.insert(VolumeName::new(volume), Fence(fence.parse().ok()?));
    }
    let assignment: Assignment = api::codec::decode(&bytes[header_bytes..]).ok()?;
    Some(Ledger::found(BootId::new(boot_id), fences, assignment))
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::agent::AssignedPod;
    use domain::id::{Incarnation, Key, Revision, Uid};
    use std::sync::Arc;

    #[test]
    fn what_was_saved_is_found_again() {
        let pod = AssignedPod { pod: Key::new("default", "web-0"), uid: Uid(7), ..AssignedPod::default() };
        let ledger = Ledger {
            boot_id: BootId::new("b2"),
            incarnation: Incarnation(3),
            revision: Revision(40),
            fences: BTreeMap::from([(VolumeName::new("v0"), Fence(4)), (VolumeName::new("v1"), Fence(1))]),
            pods: BTreeMap::from([(Uid(7), Arc::new(pod))]),
            ..Ledger::default()
        };
        let disk = MemDisk::new();
        assert_eq!(load(&disk).unwrap(), Ledger::default());
        save(&disk, &encode(&ledger)).unwrap();
        assert_eq!(load(&disk).unwrap(), ledger);
    }
}
