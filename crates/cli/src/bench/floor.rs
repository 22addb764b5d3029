//! What this machine can do at best, whatever runs on it: the numbers that no other measurement can go below.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use clap::Args;
use journal::{DirDisk, Journal, Options};

use super::Common;
use super::load::Latencies;
use super::machine::{Machine, sync_times};
use super::report::{Cell, Report, Rows};
use crate::error::CliError;

const SYNCS: usize = 1_000;
const ROUND_TRIPS: usize = 10_000;
const STARTS: usize = 200;
const RECORD_BYTES: usize = 512;
/// What is started: it ends at once.
const PROGRAM: &str = "true";

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Floor {
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) async fn run(args: &Floor) -> Result<Report, CliError> {
    let scratch = args.common.scratch.clone();
    let machine = Machine::look(&scratch)?;
    let rows = tokio::task::spawn_blocking(move || {
        let mut rows = Rows::new("floor", &["WHAT", "P50 MS", "P99 MS", "MAX MS"]);
        rows.push(row("write and fdatasync of 512 bytes", sync_times(&scratch, SYNCS)?));
        rows.push(row("journal append and sync of 512 bytes", journal_times(&scratch)?));
        rows.push(row("round trip of 1 byte over loopback", loopback_times().map_err(failed)?));
        rows.push(row("fork, exec and wait", start_times().map_err(failed)?));
        Ok::<_, CliError>(rows)
    });
    let rows = rows.await.map_err(|error| CliError::refused(format!("measuring: {error}")))??;
    Ok(Report::new("floor", machine).with(rows))
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::refused(format!("measuring: {error}"))
}

fn row(what: &str, mut times: Latencies) -> Vec<Cell> {
    let quantile = |part| Cell::Number(times.quantile_ms(part), 3);
    let quantiles = [0.5, 0.99, 1.0].map(quantile);
    std::iter::once(Cell::word(what)).chain(quantiles).collect()
}

fn measure(count: usize, mut deed: impl FnMut() -> std::io::Result<()>) -> std::io::Result<Latencies> {
    let mut times = Latencies::default();
    for _ in 0..count {
        let began_at = Instant::now();
        deed()?;
        times.add(began_at.elapsed());
    }
    Ok(times)
}

/// What one server's journal takes for one change alone.
fn journal_times(scratch: &std::path::Path) -> Result<Latencies, CliError> {
    let dir = scratch.join(format!("holdfast-journal-{}", std::process::id()));
    let fill = || -> Result<Latencies, CliError> {
        let disk = DirDisk::open(&dir).map_err(failed)?;
        let (mut journal, _) = Journal::open(disk, Options::default()).map_err(failed)?;
        let mut times = Latencies::default();
        for _ in 0..SYNCS {
            let began_at = Instant::now();
            journal.append(&[7; RECORD_BYTES]).map_err(failed)?;
            journal.sync().map_err(failed)?;
            times.add(began_at.elapsed());
        }
        Ok(times)
    };
    let filled = fill();
    // It may never have been made.
    let _ = std::fs::remove_dir_all(&dir);
    filled
}

fn loopback_times() -> std::io::Result<Latencies> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    near.set_read_timeout(Some(Duration::from_secs(5)))?;
    let echoing = std::thread::spawn(move || -> std::io::Result<()> {
        let mut byte = [0];
        while far.read(&mut byte)? == 1 {
            far.write_all(&byte)?;
        }
        Ok(())
    });
    let times = measure(ROUND_TRIPS, || {
        near.write_all(&[7])?;
        near.read_exact(&mut [0])
    });
    drop(near);
    echoing.join().map_err(|_| std::io::Error::other("the echoing thread failed"))??;
    times
}

fn start_times() -> std::io::Result<Latencies> {
    measure(STARTS, || std::process::Command::new(PROGRAM).status().map(|_| ()))
}
