//! Facts and deeds as lines that people read. Owns wording, nothing else.

use crate::history::{Answer, Fact, Question, What};
use crate::scenario::Deed;
use domain::Batch;
use std::fmt::Write as _;

/// The line of a fact; `None` for what would only fill the page: states, and lines of pods.
#[must_use]
pub fn line(fact: &Fact) -> Option<String> {
    let text = words(&fact.what)?;
    Some(format!("{:>9}  {text}", seconds(fact.at_ms)))
}

/// The line of a step.
#[must_use]
pub fn deed_line(at_ms: u64, deed: &Deed) -> String {
    format!("{:>9}  » {deed:?}", seconds(at_ms))
}

fn seconds(at_ms: u64) -> String {
    format!("{}.{:03}", at_ms / 1_000, at_ms % 1_000)
}

fn words(what: &What) -> Option<String> {
    Some(match what {
        What::ServerStarted { server, state } => format!("s{server} started with revision {}", state.revision),
        What::ServerStopped { server } => format!("s{server} ended"),
        What::Applied { server, batch, revision } => {
            format!("s{server} applied up to {revision}, by {}: {}", batch.actor, events(batch))
        }
        What::Restored { server, state } => format!("s{server} took a snapshot of revision {}", state.revision),
        What::Assigned { node, pods } => {
            let uids: Vec<String> = pods.iter().map(ToString::to_string).collect();
            format!("{node} is told that its pods are [{}]", uids.join(", "))
        }
        What::Led { server, term } => format!("s{server} leads in term {term}"),
        What::NodeBooted { node, boot } => format!("{node} booted as {boot}"),
        What::NodeDied { node } => format!("{node} went down"),
        What::AgentStarted { node } => format!("{node}'s agent started"),
        What::AgentDied { node } => format!("{node}'s agent died"),
        What::Attached { node, pod, uid, volume, fence } => {
            format!("{node} attached {volume} for {pod} ({uid}) under fence {fence}")
        }
        What::Cleaned { node, uid } => format!("{node} has nothing of pod {uid} any more"),
        What::ProcessStarted { node, pod, uid, container } => format!("{node} started {pod} ({uid}) {container}"),
        What::ProcessEnded { node, uid, container, was_stopped } => {
            let how = if *was_stopped { "as it was told" } else { "by itself" };
            format!("{node}: pod {uid} {container} ended {how}")
        }
        What::Killed { node, uid, container } => format!("{node} kills pod {uid} {container}"),
        What::WatchEnded { watcher } => format!("w{watcher} watches no more"),
        What::StopBegan { node, uid, container, grace_ms } => {
            format!("{node} tells pod {uid} {container} to end within {grace_ms} ms")
        }
        What::StorageRemoved { volume } => format!("the storage of {volume} is gone"),
        What::Asked { client, operation, question } => format!("c{client}-{operation} asks: {}", asked(question)),
        What::Answered { client, operation, answer } => format!("c{client}-{operation} hears: {}", heard(answer)),
        What::WatchBegan { watcher, after } => format!("w{watcher} watches after {after}"),
        What::WatchCompacted { watcher, floor } => format!("w{watcher} is too late: {floor} is the oldest place"),
        What::ShutDown { node, grace_ms } => format!("{node} is to go down, its pods within {grace_ms} ms"),
        What::CutOff { node } => format!("{node} is cut off"),
        What::Reconnected { node } => format!("{node} is connected again"),
        What::DiskLost { owner } => format!("the disk of {owner} is lost"),
        What::Calm => "nothing is broken any more".to_owned(),
        What::Rest => "the time to come to rest is over".to_owned(),
        What::Shown { .. }
        | What::ReportAccepted { .. }
        | What::Wrote { .. }
        | What::Found { .. }
        | What::Watched { .. }
        | What::Bookmarked { .. } => return None,
    })
}

fn events(batch: &Batch) -> String {
    let mut text = String::new();
    for event in &batch.events {
        let name = format!("{event:?}");
        let kind = name.split([' ', '{', '(']).next().unwrap_or_default();
        let (_, key) = event.object();
        let separator = if text.is_empty() { "" } else { ", " };
        // Writing to a text does not fail.
        let _ = write!(text, "{separator}{kind} {}", key.name);
    }
    text
}

fn asked(question: &Question) -> String {
    match question {
        Question::Change(request) => {
            let text = format!("{:?}", request.command);
            text.chars().take(120).collect()
        }
        Question::Read { stale: true } => "read, however old".to_owned(),
        Question::Read { stale: false } => "read".to_owned(),
    }
}

fn heard(answer: &Answer) -> String {
    match answer {
        Answer::Done { revision, changed: true } => format!("done at {revision}"),
        Answer::Done { revision, changed: false } => format!("nothing to do as of {revision}"),
        Answer::Rejected { rejection } => format!("no: {rejection}"),
        Answer::State(state) => format!("the state at {}", state.revision),
        Answer::Unknown => "nothing; it gives up".to_owned(),
    }
}
