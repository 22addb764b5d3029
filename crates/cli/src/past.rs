//! What a local cluster has written down, judged by the checkers of the simulator. Only reads, whether the cluster runs
//! or not.

use anyhow::Context as _;
use sim::recording::{Files, Judged, Recording, judge};
use std::fs;
use std::io;
use std::path::Path;

/// A server that writes may be caught between two files; a second look tells that from damage.
const LOOKS_MAX: u32 = 3;

/// Judges the logs of all servers in a cluster's data directory.
///
/// # Errors
/// A log cannot be read, or a promise was broken.
pub fn judge_past(data_dir: &Path) -> anyhow::Result<Judged> {
    let mut servers = Vec::new();
    for entry in fs::read_dir(data_dir).with_context(|| format!("reading {}", data_dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(number) = name.strip_prefix('s').and_then(|number| number.parse().ok())
            && path.join("journal").is_dir()
        {
            let recording = record(&path).with_context(|| format!("reading what {name} wrote down"))?;
            servers.push((number, recording));
        }
    }
    judge(&servers).map_err(|violation| anyhow::anyhow!("{violation}"))
}

fn record(server: &Path) -> anyhow::Result<Recording> {
    let mut look = 0;
    loop {
        look += 1;
        // The journal first: it may begin after a snapshot that is taken meanwhile, never after one that is not.
        let read = || Ok(Recording::read(copy(&server.join("journal"))?, copy(&server.join("snapshots"))?)?);
        match read() {
            Err(_) if look < LOOKS_MAX => {}
            outcome => return outcome,
        }
    }
}

/// The files of a directory, as they are now.
fn copy(directory: &Path) -> io::Result<Files> {
    let mut files = Files::default();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_file()
            && let Ok(name) = entry.file_name().into_string()
        {
            files.0.insert(name, fs::read(entry.path())?);
        }
    }
    Ok(files)
}
