//! What can be found out about the machine: its size, its system, its address, and what this agent can do here.
//! Asked once, when the agent begins.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use domain::address::{AddressRange, PODS};
use domain::driver;
use domain::id::Name;
use domain::spec::{Labels, Resources};

use crate::config::AgentError;
use crate::hostname;
use crate::sandbox::probe::Probed;
use crate::volume::Support;

/// Its processors and its memory.
pub(crate) fn capacity() -> Result<Resources, AgentError> {
    let machine = |source| AgentError::Machine { source };
    let cores = std::thread::available_parallelism().map_err(machine)?.get();
    let meminfo = fs::read_to_string("/proc/meminfo").map_err(machine)?;
    let memory_kib: u64 = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok())
        .ok_or_else(|| machine(io::Error::new(io::ErrorKind::InvalidData, "no MemTotal in /proc/meminfo")))?;
    Ok(Resources { cpu_milli: cores as u64 * 1_000, memory_bytes: memory_kib * 1_024 })
}

/// What people are told of it. Features are `feature/NAME`, with `on` or why not; some are for others to know.
pub(crate) fn info(
    servers: &BTreeMap<u64, String>,
    pod_range: Option<AddressRange>,
    sandbox: &Probed,
    volumes: &[Support],
    features: &[(&str, String)],
) -> Labels {
    let system = rustix::system::uname();
    let facts = [
        ("address", address(servers)),
        ("kernelVersion", system.release().to_string_lossy().into_owned()),
        ("agentVersion", env!("CARGO_PKG_VERSION").to_owned()),
        ("operatingSystem", std::env::consts::OS.to_owned()),
        ("osImage", os_image()),
        ("architecture", architecture(&system.machine().to_string_lossy())),
        ("runtime", if sandbox.kind.is_some() { "sandbox" } else { "process" }.to_owned()),
        ("feature/sandbox", sandboxes(sandbox)),
        ("feature/hostnames", if sandbox.kind.is_some() { "on".to_owned() } else { hostnames() }),
        ("feature/network", network(pod_range)),
        ("feature/pod-addresses", pod_addresses(pod_range.unwrap_or(PODS))),
        ("feature/probes", "on".to_owned()),
    ];
    let drivers = volumes.iter().map(|support| {
        let found = match &support.found {
            Ok(_) => "on".to_owned(),
            Err(refusal) => format!("off: {refusal}"),
        };
        (driver::feature(support.driver), Name::from(found))
    });
    facts
        .into_iter()
        .chain(features.iter().cloned())
        .map(|(key, value)| (Name::new(key), Name::from(value)))
        .chain(drivers)
        .collect()
}

/// The address that the machine has on its way to the servers; nothing is sent.
fn address(servers: &BTreeMap<u64, String>) -> String {
    let towards = |server: &String| {
        let any = if server.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(server.as_str()).ok()?;
        Some(socket.local_addr().ok()?.ip().to_string())
    };
    servers.values().find_map(towards).unwrap_or_default()
}

/// The name of the distribution, as it calls itself.
fn os_image() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| std::env::consts::OS.to_owned(), |name| name.trim_matches('"').to_owned())
}

/// As container tools call it.
fn architecture(machine: &str) -> String {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
    .to_owned()
}

/// Whose network the pods have, and where from their addresses are.
fn network(pod_range: Option<AddressRange>) -> String {
    match pod_range {
        Some(range) => format!("the node's own: pods have addresses of {range}"),
        None => "the machine's: pods have addresses of its loopback".to_owned(),
    }
}

/// Every address of 127/8 is there without configuration, unless somebody has taken it away; a network of the node's own
/// was made by somebody else, who may have forgotten its addresses.
fn pod_addresses(range: AddressRange) -> String {
    let first = Ipv4Addr::from(range.first + 1);
    match TcpListener::bind((first, 0)) {
        Ok(_) => "on".to_owned(),
        Err(error) => format!("off: {first} cannot be used: {error}"),
    }
}

/// Which kind, and why no better one.
fn sandboxes(probed: &Probed) -> String {
    let refusals = probed.refusals.join("; ");
    match probed.kind {
        Some(kind) => {
            let user = if kind.has_user_namespace { ", in a user namespace" } else { "" };
            let worse = if refusals.is_empty() { String::new() } else { format!("; others are off: {refusals}") };
            format!("on: {}{user}{worse}", kind.describe())
        }
        None => format!("off: {refusals}"),
    }
}

/// Each pod's own; where there is none, `HOSTNAME` in the environment is all that says it.
fn hostnames() -> String {
    match hostname::check() {
        Ok(()) => "on".to_owned(),
        Err(error) => format!("off: containers have the host's, and HOSTNAME says their own: {error}"),
    }
}
