//! Ending a cluster, with its launcher's help or without, so that no process is left.
//! Never touches a process that it did not recognise by pid and start time, command line or environment.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::Signal;

use super::control::{Answer, Control, Request};
use super::layout::{ClusterFile, Layout, ProcessName};
use super::procfs::{self, ProcessRef};
use super::{Refused, network, process};

/// How long servers and agents may take to end in order before they are killed.
const STOP_MS_MAX: u64 = 3_000;
/// How long a launcher may take to end its cluster before we do it ourselves.
const LAUNCHER_MS_MAX: u64 = 30_000;
/// How long a launcher may take to end, once its cluster is gone or it was killed.
const LAUNCHER_EXIT_MS_MAX: u64 = 5_000;

/// How a cluster was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// There was nothing to end.
    NothingRan,
    /// Its launcher ended it.
    ByLauncher,
    /// Its launcher was gone or did not answer; its processes were found and ended.
    WithoutLauncher,
}

/// Ends the cluster of a data directory and, with `purge`, removes the directory.
pub async fn down(data_dir: &Path, purge: bool) -> anyhow::Result<Stopped> {
    let absent = || Refused::new(format!("there is no cluster in {}", data_dir.display())).hint("holdfast up");
    let layout = Layout::open(data_dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => anyhow::Error::new(absent()),
        _ => anyhow::Error::new(error),
    })?;
    let file = ClusterFile::read(&layout)?.ok_or_else(absent)?;
    if layout.try_lock()?.is_none() {
        let asking = Control::connect_to(&file).await;
        let answer = match asking {
            Ok(mut control) => control.ask_within(&Request::Down { purge }, LAUNCHER_MS_MAX).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(Answer::Refused { message, hint }) => return Err(Refused { message, hint }.into()),
            Ok(_) => {
                let deadline = Instant::now() + Duration::from_millis(LAUNCHER_EXIT_MS_MAX);
                let launcher = file.launcher.filter(|&launcher| Some(launcher) != ProcessRef::of_self().ok());
                tokio::task::spawn_blocking(move || procfs::wait_until_gone(launcher, deadline)).await??;
                return Ok(Stopped::ByLauncher);
            }
            // It hangs, is paused, or dies just now.
            Err(_) => {}
        }
    }
    tokio::task::spawn_blocking(move || down_without_launcher(&layout, purge)).await?
}

fn down_without_launcher(layout: &Layout, purge: bool) -> anyhow::Result<Stopped> {
    let absent = || Refused::new("the cluster is being removed by somebody else");
    let mut file = ClusterFile::read(layout)?.ok_or_else(absent)?;
    let deadline = Instant::now() + Duration::from_millis(LAUNCHER_EXIT_MS_MAX);
    let _lock = loop {
        if let Some(lock) = layout.try_lock()? {
            break lock;
        }
        if file.host_boot_id == procfs::host_boot_id()?
            && let Some(launcher) = file.launcher
            && ProcessRef::of_self().is_ok_and(|own| own != launcher)
        {
            launcher.signal(Signal::KILL).context("killing the launcher")?;
        }
        if deadline <= Instant::now() {
            return Err(Refused::new(format!("another holdfast is using {}", layout.root().display())).into());
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let ran = file.launcher.is_some() || !running(layout, &file)?.is_empty();
    end_cluster(layout, &mut file)?;
    if purge {
        self::purge(layout, &file)?;
    }
    Ok(if ran { Stopped::WithoutLauncher } else { Stopped::NothingRan })
}

/// Ends everything and writes down that it has ended. The launcher's lock must be held.
pub(super) fn end_cluster(layout: &Layout, file: &mut ClusterFile) -> anyhow::Result<()> {
    end_servers_and_agents(layout, file)?;
    end_nodes(layout, file)?;
    file.launcher = None;
    file.write(layout)?;
    if let Some(directory) = file.control_socket.parent()
        && directory != layout.root()
    {
        let _ = fs::remove_dir_all(directory);
    }
    Ok(())
}

/// Switches every node off: nothing of it is left, and what comes is another boot. Its agent must have ended.
pub(super) fn end_nodes(layout: &Layout, file: &mut ClusterFile) -> anyhow::Result<()> {
    for &name in file.nodes.keys() {
        process::kill_node(layout, name)?;
        agent::confine::release_node(&layout.process_dir(name)).context("removing control groups")?;
    }
    network::remove(file).context("removing the network of the nodes")?;
    // What was mounted for them goes with them, as with a machine that is switched off.
    agent::volume::release_below(layout.root()).context("unmounting volumes")?;
    // Every process of every node is gone, so the next start is another boot.
    file.reboot_nodes()?;
    Ok(())
}

/// Ends servers and agents, in order where they let us; pods go on.
pub(super) fn end_servers_and_agents(layout: &Layout, file: &mut ClusterFile) -> anyhow::Result<()> {
    let running = running(layout, file)?;
    for process in &running {
        process.signal(Signal::TERM)?;
        // A paused process takes the other signal only when it goes on.
        process.signal(Signal::CONT)?;
    }
    let deadline = Instant::now() + Duration::from_millis(STOP_MS_MAX);
    if procfs::wait_until_gone(running.iter().copied(), deadline).is_err() {
        for process in &running {
            process.signal(Signal::KILL)?;
        }
        procfs::wait_until_gone(running, Instant::now() + Duration::from_millis(procfs::KILL_MS_MAX))?;
    }
    file.processes.clear();
    Ok(())
}

/// Removes the data directory of a cluster that has ended.
pub(super) fn purge(layout: &Layout, file: &ClusterFile) -> anyhow::Result<()> {
    // Removal would reach through a mount into whatever is mounted there.
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    let inside = mounts.lines().filter_map(|line| line.split(' ').nth(4)).find(|&mounted| {
        let mounted = Path::new(mounted);
        mounted != layout.root() && mounted.starts_with(layout.root())
    });
    if let Some(mounted) = inside {
        return Err(Refused::new(format!("the data directory is not removed: {mounted} is still mounted"))
            .hint(format!("umount {mounted}"))
            .into());
    }
    // First what others look for, last what tells that this is ours: an interrupted removal can be repeated.
    let mut entries: Vec<String> = vec!["logs".into(), "storage".into()];
    entries.extend(file.names().iter().map(ProcessName::to_string));
    for entry in entries {
        remove_tree(&layout.root().join(entry))?;
    }
    remove_tree(layout.root())
}

fn remove_tree(path: &Path) -> anyhow::Result<()> {
    agent::files::remove_tree(path).with_context(|| format!("removing {}", path.display()))
}

fn running(layout: &Layout, file: &ClusterFile) -> anyhow::Result<Vec<ProcessRef>> {
    let mut running = process::find_running(layout, file)?;
    if file.host_boot_id == procfs::host_boot_id()? {
        running.extend(file.processes.values().filter(|process| process.is_alive()));
    }
    running.sort_unstable();
    running.dedup();
    Ok(running)
}
