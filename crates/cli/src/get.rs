//! `get`: objects as tables, JSON, YAML or names, once or with every change.

use std::collections::BTreeSet;

use api::manifest::{self, Object};
use api::v1;

use crate::args::{Get, Output};
use crate::connect::Session;
use crate::error::CliError;
use crate::fetch;
use crate::listing::{self, Layout};
use crate::print;
use crate::resource::{Resource, Targets};

/// What was found of one kind.
struct Found {
    resource: Resource,
    objects: Vec<Object>,
}

/// Lists objects.
pub(crate) async fn get(session: &Session, args: &Get, namespace: &str) -> Result<(), CliError> {
    let targets = Targets::parse(&args.targets)?;
    let namespace = if args.all_namespaces { "" } else { namespace };
    let (revision, found, missing) = find(session, &targets, namespace, &args.selector).await?;
    let is_single = matches!(&targets, Targets::Objects(objects) if objects.len() == 1);
    let mut printer = Printer { args, is_mixed: 1 < found.len(), widths: Vec::new(), is_first: true };
    match args.output {
        Some(Output::Json | Output::Yaml) if !args.watch => print_documents(args.output, found, is_single)?,
        _ => printer.print_all(&found, namespace)?,
    }
    if args.watch && missing.is_empty() {
        watch(session, &targets, namespace, revision, &mut printer).await?;
    }
    match missing.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

async fn find(
    session: &Session,
    targets: &Targets,
    namespace: &str,
    selector: &str,
) -> Result<(u64, Vec<Found>, Vec<CliError>), CliError> {
    let (mut revision, mut found, mut missing) = (u64::MAX, Vec::<Found>::new(), Vec::new());
    match targets {
        Targets::Kinds(kinds) => {
            for &resource in kinds {
                let (at, objects) = fetch::list(session, resource, namespace, selector).await?;
                revision = revision.min(at);
                found.push(Found { resource, objects });
            }
        }
        Targets::Objects(objects) => {
            if namespace.is_empty() {
                return Err(CliError::usage("a name and --all-namespaces do not go together"));
            }
            for (resource, name) in objects {
                match fetch::get(session, *resource, namespace, name).await {
                    Ok((at, object)) => {
                        revision = revision.min(at);
                        match found.iter_mut().find(|found| found.resource == *resource) {
                            Some(found) => found.objects.push(object),
                            None => found.push(Found { resource: *resource, objects: vec![object] }),
                        }
                    }
                    Err(error) if error.is_not_found => missing.push(error),
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok((revision, found, missing))
}

fn print_documents(output: Option<Output>, found: Vec<Found>, is_single: bool) -> Result<(), CliError> {
    let mut objects: Vec<Object> = found.into_iter().flat_map(|found| found.objects).collect();
    if is_single && objects.is_empty() {
        return Ok(());
    }
    let is_json = output == Some(Output::Json);
    let text = match objects.pop() {
        Some(object) if is_single && is_json => manifest::to_json(&object)?,
        Some(object) if is_single => manifest::to_yaml(&object)?,
        last => {
            objects.extend(last);
            if is_json { manifest::list_to_json(&objects)? } else { manifest::list_to_yaml(&objects)? }
        }
    };
    print::data(text.as_bytes());
    Ok(())
}

struct Printer<'a> {
    args: &'a Get,
    is_mixed: bool,
    widths: Vec<usize>,
    is_first: bool,
}

impl Printer<'_> {
    fn print_all(&mut self, found: &[Found], namespace: &str) -> Result<(), CliError> {
        if found.iter().all(|found| found.objects.is_empty()) && self.args.output.is_none_or(|o| o == Output::Wide) {
            match namespace {
                "" => print::note("No resources found"),
                _ => print::note(format!("No resources found in {namespace} namespace.")),
            }
            return Ok(());
        }
        for found in found.iter().filter(|found| !found.objects.is_empty()) {
            self.print(found.resource, &found.objects, true)?;
        }
        Ok(())
    }

    fn print(&mut self, resource: Resource, objects: &[Object], has_header: bool) -> Result<(), CliError> {
        for object in objects {
            match self.args.output {
                Some(Output::Name) => print::line(format!("{}/{}", resource.output_name(), object.name())),
                Some(Output::Json) => print::data(manifest::to_json(object)?.as_bytes()),
                Some(Output::Yaml) => print::data(format!("---\n{}", manifest::to_yaml(object)?).as_bytes()),
                Some(Output::Wide) | None => {}
            }
        }
        if matches!(self.args.output, Some(Output::Wide) | None) {
            let layout = Layout {
                is_wide: self.args.output == Some(Output::Wide),
                has_namespace: self.args.all_namespaces,
                has_kind: self.is_mixed,
            };
            let table = listing::table(resource, objects, layout);
            if self.is_mixed && has_header && !self.is_first {
                print::line("");
            }
            let before: &[usize] = if self.is_mixed { &[] } else { &self.widths };
            self.widths = table.widths(before);
            print::data(table.render(&self.widths, has_header && !self.args.no_headers).as_bytes());
        }
        self.is_first = false;
        Ok(())
    }
}

/// Prints every object again that an event is about.
async fn watch(
    session: &Session,
    targets: &Targets,
    namespace: &str,
    revision: u64,
    printer: &mut Printer<'_>,
) -> Result<(), CliError> {
    let kinds: Vec<Resource> = match targets {
        Targets::Kinds(kinds) => kinds.clone(),
        Targets::Objects(objects) => objects.iter().map(|(resource, _)| *resource).collect(),
    };
    let is_wanted = |resource: Resource, name: &str| match targets {
        Targets::Kinds(kinds) => kinds.contains(&resource),
        Targets::Objects(objects) => objects.iter().any(|(kind, wanted)| *kind == resource && wanted == name),
    };
    let since = if revision == u64::MAX { None } else { Some(revision) };
    let request = v1::WatchRequest { since_revision: since, ..v1::WatchRequest::default() };
    let mut stream = fetch::watch(session, request).await?;
    while let Some(reply) = stream.message().await? {
        let mut changed = BTreeSet::new();
        for event in reply.events {
            // A set's and a node's numbers change with their pods.
            if let Some(resource) = Resource::of_kind(&event.kind).filter(|kind| kinds.contains(kind)) {
                if is_wanted(resource, &event.name) {
                    changed.insert((resource, event.namespace, event.name));
                }
            } else if event.kind == "Pod"
                && kinds.contains(&Resource::StatefulSet)
                && let Some((set, _)) = event.name.rsplit_once('-')
                && is_wanted(Resource::StatefulSet, set)
            {
                changed.insert((Resource::StatefulSet, event.namespace, set.to_owned()));
            }
        }
        for (resource, of_namespace, name) in changed {
            let is_here = namespace.is_empty() || !resource.is_namespaced() || namespace == of_namespace;
            if is_here && let Some(object) = fetch::find(session, resource, &of_namespace, &name).await? {
                printer.print(resource, &[object], false)?;
            }
        }
        if print::is_closed() {
            return Ok(());
        }
    }
    Err(CliError::unreachable("the server ended the watch").hint("holdfast status"))
}
