//! The servers of the control plane: list, add, remove, transfer-leader. In a local cluster the launcher starts what is
//! added and stops what is removed. Decides nothing.

use std::path::Path;
use std::time::Duration;

use api::manifest;
use api::v1;
use api::v1::cluster_client::ClusterClient;
use tokio::time::Instant;

use crate::args::{Member, Output};
use crate::change::chosen;
use crate::cluster::{Answer, Control, ProcessName, ProcessState, Request};
use crate::connect::{ANSWER_MS_MAX, Address, Session};
use crate::error::CliError;
use crate::print::{self, Table};

/// The pause between two looks at a server that is to vote.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Carries out a verb.
pub(crate) async fn run(address: &Address, verb: &Member, request_id: Option<&String>) -> Result<(), CliError> {
    match verb {
        Member::List { output } => list(&address.connect(), *output).await,
        Member::Add { timeout } => add(address, *timeout).await,
        Member::Remove { names } => remove(address, names, request_id).await,
        Member::TransferLeader { name } => transfer_leader(&address.connect(), name.as_deref()).await,
    }
}

/// The table of servers.
pub(crate) fn table(members: &[v1::Member]) -> Table {
    let mut table = Table::new(["SERVER", "ROLE", "ADDRESS", "REACHABLE", "APPLIED", "MATCHED", "LAG"]);
    let last = members.iter().map(|member| member.matched).max().unwrap_or_default();
    let known = |entry: u64| if entry == 0 { String::new() } else { entry.to_string() };
    for member in members {
        let role = match (member.leader, member.learner) {
            (true, _) => "leader",
            (false, true) => "learner",
            (false, false) => "follower",
        };
        table.row(vec![
            member.name.clone(),
            role.to_owned(),
            if member.address.is_empty() { print::NONE.to_owned() } else { member.address.clone() },
            if member.reachable { "yes" } else { "no" }.to_owned(),
            known(member.applied),
            known(member.matched),
            if member.matched == 0 { String::new() } else { (last - member.matched).to_string() },
        ]);
    }
    table
}

async fn list(session: &Session, output: Option<Output>) -> Result<(), CliError> {
    let reply = members(session, false).await?;
    match output {
        Some(Output::Json) => print::data(manifest::to_json(&reply)?.as_bytes()),
        Some(Output::Yaml) => print::data(manifest::to_yaml(&reply)?.as_bytes()),
        Some(Output::Name) => reply.members.iter().for_each(|member| print::line(&member.name)),
        Some(Output::Wide) | None => table(&reply.members).print(),
    }
    Ok(())
}

async fn members(session: &Session, stale: bool) -> Result<v1::ListMembersReply, CliError> {
    let ask = |channel| async move { ClusterClient::new(channel).list_members(v1::ListMembersRequest { stale }).await };
    session.read_within(ANSWER_MS_MAX, ask).await
}

async fn add(address: &Address, timeout_ms: u64) -> Result<(), CliError> {
    let Address::Dir(dir) = address else {
        return Err(CliError::usage("a new server begins where it is to run, and joins by itself")
            .hint("holdfast server --join HOST:PORT --listen HOST:PORT --data-dir DIR --name NAME, on its machine"));
    };
    let mut control = Control::connect(dir).await?;
    let (name, log) = match control.ask(&Request::AddServer).await? {
        Answer::Added { name, log } => (name, log),
        other => return Err(CliError::refused(format!("the launcher answered with {other:?}"))),
    };
    print::note(format!("starting {name}"));
    let deadline = Instant::now() + Duration::from_millis(timeout_ms);
    let mut is_learning = false;
    loop {
        let seen = members(&address.connect(), false).await.ok();
        let member = seen.iter().flat_map(|reply| &reply.members).find(|member| member.name == name.to_string());
        match member {
            Some(member) if !member.learner => break,
            Some(_) if !is_learning => {
                print::note(format!("{name} learns"));
                is_learning = true;
            }
            Some(_) | None => {}
        }
        check_running(&mut control, name, &log).await?;
        if deadline <= Instant::now() {
            let text = format!("{name} does not vote after {timeout_ms} ms; it goes on trying");
            return Err(CliError::refused(text).hint("holdfast member list"));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    print::line(format!("{name} added"));
    Ok(())
}

async fn check_running(control: &mut Control, name: ProcessName, log: &Path) -> Result<(), CliError> {
    let status = control.status().await?;
    let process = status.processes.iter().find(|process| process.name == name);
    if process.is_some_and(|process| process.state == ProcessState::Exited) {
        let text = format!("{name} ended before it belonged to the cluster");
        return Err(CliError::refused(text).hint(format!("tail {}", log.display())));
    }
    Ok(())
}

async fn remove(address: &Address, names: &[String], request_id: Option<&String>) -> Result<(), CliError> {
    if request_id.is_some() && names.len() != 1 {
        return Err(CliError::usage("--request-id repeats one change, but several servers are named"));
    }
    for name in names {
        let server = match name.parse::<ProcessName>() {
            Ok(server @ ProcessName::Server(_)) => server,
            Ok(ProcessName::Node(_)) => {
                return Err(CliError::usage(format!("{name} is a node")).hint(format!("holdfast delete node {name}")));
            }
            Err(_) => return Err(CliError::usage(format!("{name:?} is no server (s1, s2, …)"))),
        };
        remove_one(address, server, request_id).await?;
        print::line(format!("{server} removed"));
    }
    Ok(())
}

async fn remove_one(address: &Address, server: ProcessName, request_id: Option<&String>) -> Result<(), CliError> {
    let request = v1::RemoveMemberRequest { name: server.to_string(), request_id: chosen(request_id)? };
    let id = request.request_id.clone();
    let ask = |channel| {
        let request = request.clone();
        async move { ClusterClient::new(channel).remove_member(request).await }
    };
    let outcome = address.connect().change(&id, ask).await;
    let control = match address {
        Address::Dir(dir) => Control::connect(dir).await.ok(),
        Address::Servers(_) => None,
    };
    match (outcome, control) {
        (Ok(_), None) => Ok(()),
        (Err(error), None) => Err(error),
        (Err(error), Some(_)) if !error.is_not_found => Err(error),
        // It may have been removed before, and the launcher not have heard of it.
        (outcome, Some(mut control)) => match (control.ask(&Request::RemoveServer { target: server }).await, outcome) {
            (Ok(_), _) => Ok(()),
            (Err(_), Err(error)) => Err(error),
            (Err(error), Ok(_)) => Err(error.into()),
        },
    }
}

async fn transfer_leader(session: &Session, name: Option<&str>) -> Result<(), CliError> {
    let request = v1::TransferLeaderRequest { to: name.unwrap_or_default().to_owned() };
    let ask = |channel| {
        let request = request.clone();
        async move { ClusterClient::new(channel).transfer_leader(request).await }
    };
    let reply: v1::TransferLeaderReply = session.read_within(ANSWER_MS_MAX, ask).await?;
    print::line(format!("{} leads", reply.leader));
    Ok(())
}
