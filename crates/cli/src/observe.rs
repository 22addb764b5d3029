//! Verbs that look and wait: `rollout status`, `wait`, `why`, `events`.

use std::time::Duration;

use api::manifest;
use api::v1;
use api::v1::history_client::HistoryClient;
use api::v1::stateful_sets_client::StatefulSetsClient;
use serde_json::Value;
use tokio::time::Instant;

use crate::args::{Events, Output, Wait};
use crate::connect::Session;
use crate::error::CliError;
use crate::fetch::{self, read};
use crate::print::{self, Table};
use crate::resource::{Resource, Targets};

/// The pause between two looks at something that is waited for.
const LOOK_PAUSE_MS: u64 = 100;

/// Follows a rollout to its end.
pub(crate) async fn rollout_status(
    session: &Session,
    target: &[String],
    namespace: &str,
    is_followed: bool,
    within_ms: Option<u64>,
) -> Result<(), CliError> {
    let name = Targets::parse_set(target)?;
    let deadline = within_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
    let mut shown = String::new();
    loop {
        let request = v1::GetRequest { namespace: namespace.to_owned(), name: name.clone(), stale: false };
        let reply = read!(session, StatefulSetsClient.rollout_status(request))?;
        if reply.message != shown {
            print::line(&reply.message);
            shown.clone_from(&reply.message);
        }
        if reply.done || !is_followed || print::is_closed() {
            return Ok(());
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            let blocked = if reply.blocked_by.is_empty() { format!("statefulset/{name}") } else { reply.blocked_by };
            return Err(CliError::refused(format!("the rollout of {name} is not done in time"))
                .hint(format!("holdfast why {blocked}")));
        }
        tokio::time::sleep(Duration::from_millis(LOOK_PAUSE_MS)).await;
    }
}

/// The name of POD or pod/POD.
pub(crate) fn pod_name(text: &str) -> Result<String, CliError> {
    if !text.contains('/') {
        return Ok(text.to_owned());
    }
    match Targets::parse_one(&[text.to_owned()])? {
        (Resource::Pod, name) => Ok(name),
        (other, _) => Err(CliError::usage(format!("this is for pods, and {text} is a {}", other.word()))),
    }
}

/// What is waited for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Condition { name: String, value: String },
    Deletion,
    Field { path: Vec<String>, value: Option<String> },
}

impl Wanted {
    fn parse(text: &str) -> Result<Self, CliError> {
        let wrong = || {
            CliError::usage(format!("--for={text} is not understood"))
                .hint("--for=condition=Ready, --for=delete or --for=jsonpath='{.status.phase}'=Running")
        };
        if text == "delete" {
            return Ok(Self::Deletion);
        }
        if let Some(rest) = text.strip_prefix("condition=") {
            let (name, value) = rest.split_once('=').unwrap_or((rest, "True"));
            return Ok(Self::Condition { name: name.to_owned(), value: value.to_owned() });
        }
        let rest = text.strip_prefix("jsonpath=").ok_or_else(wrong)?;
        let (path, value) = match rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            Some((path, "")) => (path, None),
            Some((path, value)) => (path, Some(value.strip_prefix('=').ok_or_else(wrong)?.to_owned())),
            None => match rest.split_once('=') {
                Some((path, value)) => (path, Some(value.to_owned())),
                None => (rest, None),
            },
        };
        let path = path.replace('[', ".").replace(']', "");
        let path = path.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        Ok(Self::Field { path, value })
    }

    fn is_met(&self, object: Option<&Value>) -> bool {
        let Some(object) = object else { return *self == Self::Deletion };
        match self {
            Self::Deletion => false,
            Self::Condition { name, value } => {
                let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
                let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
                let found = conditions.into_iter().flatten().find(|c| text(c, "type").eq_ignore_ascii_case(name));
                // What was never held is not held.
                found.map_or_else(|| "False".to_owned(), |c| text(c, "status")).eq_ignore_ascii_case(value)
            }
            Self::Field { path, value } => {
                let found = path.iter().try_fold(object, |at, part| match part.parse::<usize>() {
                    Ok(index) if at.is_array() => at.get(index),
                    _ => at.get(part),
                });
                let shown = found.map(|found| found.as_str().map_or_else(|| found.to_string(), str::to_owned));
                match value {
                    Some(value) => shown.as_ref() == Some(value),
                    None => shown.is_some_and(|shown| !shown.is_empty()),
                }
            }
        }
    }
}

/// Waits until something holds for every object.
pub(crate) async fn wait(session: &Session, args: &Wait, namespace: &str) -> Result<(), CliError> {
    let wanted = Wanted::parse(&args.wanted)?;
    let objects = match Targets::parse(&args.targets)? {
        Targets::Objects(objects) => objects,
        Targets::Kinds(_) => return Err(CliError::usage("names are missing: wait KIND/NAME --for=…")),
    };
    let deadline = Instant::now() + Duration::from_millis(args.timeout);
    for (resource, name) in objects {
        let target = format!("{}/{name}", resource.word());
        let mut is_first = true;
        loop {
            let object = match fetch::get(session, resource, namespace, &name).await {
                Ok((_, object)) => Some(serde_json::to_value(&object)?),
                // A pod may be between two of its lives; but what never was will not come.
                Err(error) if error.is_not_found => match wanted {
                    Wanted::Deletion => None,
                    _ if is_first => return Err(error),
                    _ => Some(Value::Null),
                },
                Err(error) => return Err(error),
            };
            if wanted.is_met(object.as_ref()) {
                break;
            }
            if deadline <= Instant::now() {
                let error = CliError::refused(format!("timed out: {target} does not meet --for={}", args.wanted));
                return Err(error.hint(format!("holdfast why {target}")));
            }
            is_first = false;
            tokio::time::sleep(Duration::from_millis(LOOK_PAUSE_MS)).await;
        }
        let word = if wanted == Wanted::Deletion { "deleted" } else { "condition met" };
        print::line(format!("{}/{name} {word}", resource.output_name()));
    }
    Ok(())
}

/// Tells why an object is as it is. A name alone is a pod, or what else has it.
pub(crate) async fn why(session: &Session, target: &[String], namespace: &str) -> Result<(), CliError> {
    let candidates = match target {
        [name] if !name.contains('/') => [Resource::Pod, Resource::StatefulSet, Resource::Claim, Resource::Node]
            .map(|resource| (resource, name.clone()))
            .to_vec(),
        _ => vec![Targets::parse_one(target)?],
    };
    for (resource, name) in &candidates {
        let request = v1::WhyRequest {
            kind: resource.kind().to_owned(),
            namespace: if resource.is_namespaced() { namespace.to_owned() } else { String::new() },
            name: name.clone(),
            stale: false,
        };
        match read!(session, HistoryClient.why(request)) {
            Ok(reply) => {
                show_why(&reply);
                return Ok(());
            }
            Err(error) if error.is_not_found => {}
            Err(error) => return Err(error),
        }
    }
    let name = candidates.first().map_or("", |(_, name)| name);
    let message = match candidates.as_slice() {
        [(resource, _)] => format!("{} {name:?} not found", resource.word()),
        _ => format!("there is no pod, statefulset, claim or node {name:?}"),
    };
    Err(CliError::not_found(message).hint("holdfast get all,pvc,nodes -A"))
}

fn show_why(reply: &v1::WhyReply) {
    print::line(&reply.sentence);
    if let Some(blocking) = &reply.blocked_by {
        let word = Resource::of_kind(&blocking.kind).map_or(blocking.kind.as_str(), |resource| resource.word());
        let name = &blocking.name;
        print::line(if word.is_empty() { format!("blocked by: {name}") } else { format!("blocked by: {word}/{name}") });
    }
    if reply.since_ms != 0 {
        let revision =
            if reply.since_revision == 0 { String::new() } else { format!(", revision {}", reply.since_revision) };
        let ago = print::duration(print::now_ms().saturating_sub(reply.since_ms));
        print::line(format!("since:      {} ({ago} ago{revision})", api::time::format_ms(reply.since_ms)));
    }
    section("evidence:", reply.evidence.iter().map(String::clone));
    section("what would end it:", reply.exits.iter().map(exit_line));
}

/// A heading and its lines; nothing if there are none.
pub(crate) fn section(heading: &str, lines: impl Iterator<Item = String>) {
    let lines: Vec<String> = lines.collect();
    if !lines.is_empty() {
        print::line(heading);
        lines.iter().for_each(|line| print::line(format!("  {line}")));
    }
}

/// An exit on one line.
pub(crate) fn exit_line(exit: &v1::Exit) -> String {
    match (exit.command.is_empty(), exit.message.is_empty()) {
        (true, _) => exit.message.clone(),
        (false, true) => exit.command.clone(),
        (false, false) => format!("{}    ({})", exit.command, exit.message),
    }
}

/// Prints the event log.
pub(crate) async fn events(session: &Session, args: &Events, namespace: Option<&str>) -> Result<(), CliError> {
    let mut request = fetch::history();
    request.since_revision = Some(args.since.unwrap_or(0));
    request.until_now = !args.watch;
    if !args.all_namespaces {
        request.namespace = namespace.unwrap_or_default().to_owned();
    }
    if let Some(about) = &args.about {
        let (resource, name) = Targets::parse_one(std::slice::from_ref(about))?;
        request.kinds = vec![resource.kind().to_owned()];
        request.name = name;
        if resource.is_namespaced() && !args.all_namespaces {
            request.namespace = namespace.unwrap_or("default").to_owned();
        }
    }
    let mut stream = fetch::watch(session, request).await?;
    let mut is_first = true;
    let mut widths = Vec::new();
    let mut pending = Vec::new();
    while let Some(reply) = stream.message().await? {
        pending.extend(reply.events);
        if args.watch {
            show_events(&pending, args.output, &mut widths, &mut is_first)?;
            pending.clear();
        }
        if print::is_closed() {
            return Ok(());
        }
    }
    if args.watch {
        return Err(CliError::unreachable("the server ended the watch").hint("holdfast events -w --since REVISION"));
    }
    show_events(&pending, args.output, &mut widths, &mut is_first)
}

fn show_events(
    events: &[v1::Event],
    output: Option<Output>,
    widths: &mut Vec<usize>,
    is_first: &mut bool,
) -> Result<(), CliError> {
    if events.is_empty() {
        return Ok(());
    }
    match output {
        Some(Output::Json) => {
            for event in events {
                print::line(serde_json::to_string(event)?);
            }
        }
        Some(Output::Yaml) => {
            for event in events {
                print::data(format!("---\n{}", manifest::to_yaml(event)?).as_bytes());
            }
        }
        _ => {
            let table = events_table(events, output == Some(Output::Wide));
            *widths = table.widths(widths);
            print::data(table.render(widths, *is_first).as_bytes());
        }
    }
    *is_first = false;
    Ok(())
}

/// Events as a table; a wide one has the exact time, and who caused them.
pub(crate) fn events_table(events: &[v1::Event], is_wide: bool) -> Table {
    let mut header = vec!["REVISION", "AGE", "EVENT", "OBJECT", "MESSAGE"];
    if is_wide {
        header.splice(2..2, ["TIME", "BY"]);
    }
    let mut table = Table::new(header);
    let now_ms = print::now_ms();
    for event in events {
        let word = Resource::of_kind(&event.kind).map_or("cluster", Resource::short);
        let namespace = if matches!(event.namespace.as_str(), "" | "default") {
            String::new()
        } else {
            format!("{}/", event.namespace)
        };
        let mut cells = vec![
            event.revision.to_string(),
            print::duration(now_ms.saturating_sub(event.at_ms)),
            event.r#type.clone(),
            if word == "cluster" { word.to_owned() } else { format!("{word}/{namespace}{}", event.name) },
            event.message.clone(),
        ];
        if is_wide {
            cells.splice(2..2, [api::time::format_ms(event.at_ms), event.actor.clone()]);
        }
        table.row(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_waited_for_is_understood() {
        let object = json!({"status": {"phase": "Running", "readyReplicas": 3,
            "conditions": [{"type": "Ready", "status": "True"}], "list": [{"a": "b"}]}});
        let met = [
            "condition=Ready",
            "condition=held=false",
            "jsonpath={.status.phase}=Running",
            "jsonpath='{.status.phase}'",
            "jsonpath={.status.readyReplicas}=3",
            "jsonpath={.status.list[0].a}=b",
        ];
        for text in met {
            let wanted = Wanted::parse(&text.replace('\'', "")).unwrap();
            assert!(wanted.is_met(Some(&object)), "{text}");
        }
        for text in ["condition=Held", "delete", "jsonpath={.status.phase}=Pending", "jsonpath={.nothing}"] {
            assert!(!Wanted::parse(text).unwrap().is_met(Some(&object)), "{text}");
        }
        assert!(Wanted::parse("delete").unwrap().is_met(None));
        assert!(Wanted::parse("ready").is_err());
    }
}
