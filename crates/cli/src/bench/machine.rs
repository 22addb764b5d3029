//! The machine of a measurement, and what processes cost on it: read from `/proc`.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::load::Latencies;
use crate::error::CliError;

/// What a record of the journal of one small change is about as long as.
const SYNCED_BYTES: usize = 512;
const SYNCS: usize = 200;
/// Clock ticks per second in `/proc`: fixed for programs on every Linux that we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the numbers depend on.
#[derive(Debug)]
pub(super) struct Machine {
    cpu: String,
    memory: String,
    kernel: String,
    disk: String,
    program: String,
}

impl Machine {
    /// Looks at this machine, and at the disk under a directory.
    pub(super) fn look(scratch: &Path) -> Result<Self, CliError> {
        let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, m)| m));
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory_kib = memory.lines().next().and_then(number_in).unwrap_or(0);
        let system = rustix::system::uname();
        let mut syncs = sync_times(scratch, SYNCS)?;
        let disk = format!(
            "{}; write of {SYNCED_BYTES} bytes and fdatasync: p50 {:.2} ms, p99 {:.2} ms",
            file_system(scratch),
            syncs.quantile_ms(0.5),
            syncs.quantile_ms(0.99)
        );
        Ok(Self {
            cpu: format!("{}, {cores} cores", model.unwrap_or("unknown")),
            memory: format!("{:.1} GiB", memory_kib as f64 / f64::from(1 << 20)),
            kernel: format!("{} {}", system.sysname().to_string_lossy(), system.release().to_string_lossy()),
            disk,
            program: format!("holdfast {}{}", env!("CARGO_PKG_VERSION"), debug_note()),
        })
    }

    pub(super) fn lines(&self) -> Vec<(String, Value)> {
        let line = |what: &str, value: &String| (what.to_owned(), json!(value));
        vec![
            line("program", &self.program),
            line("cpu", &self.cpu),
            line("memory", &self.memory),
            line("kernel", &self.kernel),
            line("disk", &self.disk),
        ]
    }
}

const fn debug_note() -> &'static str {
    if cfg!(debug_assertions) { " (a debug build: its numbers mean nothing)" } else { "" }
}

fn number_in(line: &str) -> Option<u64> {
    line.split_whitespace().find_map(|word| word.parse().ok())
}

/// How long a small write takes until it is durable, into a file that is there already, as the journal's segments are.
pub(super) fn sync_times(scratch: &Path, count: usize) -> Result<Latencies, CliError> {
    let failed = |error| CliError::refused(format!("writing to {}: {error}", scratch.display()));
    let path = scratch.join(format!("holdfast-sync-{}", std::process::id()));
    let measure = || -> std::io::Result<Latencies> {
        let file = fs::File::create(&path)?;
        let bytes = [7; SYNCED_BYTES];
        file.write_all_at(&vec![0; SYNCED_BYTES * count], 0)?;
        file.sync_all()?;
        let mut times = Latencies::default();
        for at in 0..count {
            let began_at = Instant::now();
            file.write_all_at(&bytes, (at * SYNCED_BYTES) as u64)?;
            file.sync_data()?;
            times.add(began_at.elapsed());
        }
        Ok(times)
    };
    let measured = measure().map_err(failed);
    // It may never have been made.
    let _ = fs::remove_file(&path);
    measured
}

/// The file system and device under a directory, as `/proc/self/mountinfo` tells.
fn file_system(directory: &Path) -> String {
    let device = fs::metadata(directory).map_or(0, |metadata| metadata.dev());
    let wanted = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let found = mounts.lines().find_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        let mut source = source.split_whitespace();
        (mount.split_whitespace().nth(2)? == wanted).then(|| (source.next(), source.next()))
    });
    let Some((kind, source)) = found else { return "unknown file system".to_owned() };
    let kind = kind.unwrap_or_default();
    let note = if kind == "tmpfs" { " (in memory: a sync costs nothing here, use --scratch)" } else { "" };
    format!("{kind} on {}{note}", source.unwrap_or_default())
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Processor time.
    pub(super) cpu: Duration,
    /// Memory now.
    pub(super) resident_mib: f64,
    /// Memory at most.
    pub(super) peak_mib: f64,
}

/// The memory of a process, where each page counts by its part among those who share it, in MiB: what the processes of one
/// program really take, since most of what each has resident is the same program.
pub(super) fn share_mib(pid: u32) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find(|line| line.starts_with("Pss:"));
    line.and_then(number_in).unwrap_or(0) as f64 / 1_024.0
}

impl Usage {
    /// Of a process that runs; nothing of one that does not.
    pub(super) fn of(pid: u32) -> Self {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let status = read("status");
        let mib = |field: &str| {
            let line = status.lines().find(|line| line.starts_with(field));
            line.and_then(number_in).unwrap_or(0) as f64 / 1_024.0
        };
        let stat = read("stat");
        // The name, in brackets, may hold anything.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
        let cpu = Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND);
        Self { cpu, resident_mib: mib("VmRSS:"), peak_mib: mib("VmHWM:") }
    }
}
