//! What may be asked about the servers of the control plane. Whether enough of them are alive is the leader's to know.

use super::{Decision, not_found};
use crate::command::Rejection;
use crate::event::Event;
use crate::id::{Name, ServerId};
use crate::server::SERVERS_MAX;
use crate::state::State;

/// Once, by the first leader; for a group that is older than this event, by the first one that knows it.
pub(super) fn found(state: &State, servers: &[ServerId]) -> Vec<Event> {
    if state.servers.is_empty() { vec![Event::ServersFounded { servers: servers.to_vec() }] } else { Vec::new() }
}

pub(super) fn add(state: &State, wanted: Option<ServerId>, address: &Name) -> Decision {
    let server = wanted.unwrap_or_else(|| state.last_server.next());
    let refuse = |field, rule| Rejection::Invalid { kind: "server", name: server.name(), field, rule };
    check_address(address).map_err(|rule| refuse("address", rule))?;
    if server <= state.last_server {
        let next = state.last_server.next().name();
        return Err(refuse("id", format!("a number is never given twice: the next server is {next}")));
    }
    if let Some((other, _)) = state.servers.iter().find(|(_, record)| record.address == *address) {
        let rule = format!("server {} has this address: if it lost its disk, remove it first", other.name());
        return Err(refuse("address", rule));
    }
    if SERVERS_MAX <= state.servers.len() {
        return Err(refuse("id", format!("there are {SERVERS_MAX} servers already, and no more are useful")));
    }
    Ok(vec![Event::ServerAdded { server, address: address.clone() }])
}

pub(super) fn promote(state: &State, server: ServerId) -> Decision {
    let record = state.servers.get(&server).ok_or_else(|| not_found("server", server.name()))?;
    Ok(if record.is_voter { Vec::new() } else { vec![Event::ServerPromoted { server }] })
}

pub(super) fn readdress(state: &State, server: ServerId, address: &Name) -> Decision {
    let record = state.servers.get(&server).ok_or_else(|| not_found("server", server.name()))?;
    if record.address == *address {
        return Ok(Vec::new());
    }
    check_address(address).map_err(|rule| Rejection::Invalid {
        kind: "server",
        name: server.name(),
        field: "address",
        rule,
    })?;
    Ok(vec![Event::ServerAddressed { server, address: address.clone() }])
}

pub(super) fn remove(state: &State, server: ServerId) -> Decision {
    let record = state.servers.get(&server).ok_or_else(|| not_found("server", server.name()))?;
    let voter_count = state.servers.values().filter(|other| other.is_voter).count();
    if record.is_voter && voter_count == 1 {
        return Err(Rejection::ServerIsLast { server });
    }
    Ok(vec![Event::ServerRemoved { server }])
}

fn check_address(address: &Name) -> Result<(), String> {
    let is_fine = address.as_str().rsplit_once(':').is_some_and(|(host, port)| {
        let has_space = host.contains(char::is_whitespace);
        !host.is_empty() && !has_space && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if is_fine { Ok(()) } else { Err(format!("\"{address}\" is no host:port")) }
}
