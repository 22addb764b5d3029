//! The local cluster and its state: `up`, `down`, `status`, `fault` and the launcher of `up --detach`.

use std::path::{Path, PathBuf};

use api::manifest::{self, Object};
use api::v1;
use domain::driver::{DRIVER_DIR, DRIVER_LOOP};

use crate::apply::{Given, STORAGE_CLASSES, apply_all, read_classes, read_files, wait_ready};
use crate::args::{Down, Fault, Launcher, Links, Output, Up, Way};
use crate::cluster::{
    self, Answer, ClusterFile, Control, Direction, ProcessName, Request, Running, Stopped, UpOptions,
};
use crate::connect::{ANSWER_MS_MAX, Address, Session};
use crate::error::CliError;
use crate::fetch::{self, ApplyOptions};
use crate::listing;
use crate::print::{self, Table};
use crate::resource::Resource;

/// The class that stands for a real driver's, as `storage-classes.yaml` names it.
const REAL_CLASS: &str = "name: csi-fs-sc";
/// How nodes name the runtime that gives each container a view of its own.
const SANDBOX_FEATURE: &str = "sandbox";
/// How nodes name the driver of volumes that are images.
const IMAGES_FEATURE: &str = "volumes-loop";
/// How long a cluster may take to start.
const READY_MS_MAX: u64 = 60_000;
/// How long the sets of `up -f` may take to become ready.
const SETS_READY_MS_MAX: u64 = 120_000;
/// How long one question to a starting cluster may take.
const PROBE_MS_MAX: u64 = 500;
/// How long the leader's own answer is waited for before any server's is taken.
const LEADER_MS_MAX: u64 = 4_000;

/// Starts a cluster.
pub(crate) async fn up(args: &Up, namespace: Option<&str>) -> Result<(), CliError> {
    // What is wrong with the manifests is better told before anything is started.
    let given = read_files(&args.files, namespace)?;
    let runtime = args.runtime.map(|runtime| runtime.agent_argument().into());
    let options = UpOptions {
        data_dir: args.data_dir.clone(),
        servers: args.servers,
        agents: args.agents,
        images: args.images.clone(),
        network: args.network,
        executable: None,
        server_arguments: args.server_arguments.clone(),
        agent_arguments: runtime.into_iter().chain(args.agent_arguments.iter().cloned()).collect(),
    };
    if args.detach {
        let status = cluster::up_detached(options, progress, READY_MS_MAX).await?;
        warn_of_ended(&status);
        let session = Address::Dir(args.data_dir.clone()).connect();
        set_up(&session, &given).await?;
        show_next(&session, &args.data_dir, true);
        return Ok(());
    }
    let mut running = cluster::up(options, progress).await?;
    if let Err(error) = become_ready(&mut running).await {
        print::note("stopping the cluster");
        running.down(false).await?;
        return Err(error);
    }
    if let Answer::Status(status) = running.ask(Request::Status).await? {
        warn_of_ended(&status);
    }
    let session = session_of(running.cluster())?;
    let interrupted = tokio::signal::ctrl_c();
    tokio::select! {
        done = set_up(&session, &given) => match done {
            Ok(()) => show_next(&session, &args.data_dir, false),
            // The cluster stays, so that one can look why.
            Err(error) => print::error(&error),
        },
        _ = interrupted => {}
    }
    running.supervise(|notice| print::note(notice.to_string())).await?;
    print::note("the cluster is stopped; its data is kept");
    Ok(())
}

/// The launcher of a detached cluster.
pub(crate) async fn launcher(args: Launcher) -> Result<(), CliError> {
    let options = UpOptions {
        data_dir: args.data_dir,
        servers: args.servers,
        agents: args.agents,
        images: args.images,
        network: args.network,
        executable: None,
        server_arguments: args.server_arguments,
        agent_arguments: args.agent_arguments,
    };
    let mut running = cluster::up(options, progress).await?;
    if let Err(error) = become_ready(&mut running).await {
        running.down(false).await?;
        return Err(error);
    }
    running.supervise(|notice| print::note(notice.to_string())).await?;
    Ok(())
}

/// A cluster can be ready without one of its servers; people should know.
fn warn_of_ended(status: &cluster::Status) {
    for process in status.processes.iter().filter(|process| process.state == cluster::ProcessState::Exited) {
        let how = process.exit_status.as_deref().unwrap_or("nobody saw how");
        print::note(format!("warning: {} ended by itself ({how}); its log is {}", process.name, process.log.display()));
    }
}

fn progress(text: &str) {
    print::note(text);
}

fn session_of(file: &ClusterFile) -> Result<Session, CliError> {
    Session::new(file.servers.values().map(ToString::to_string).collect())
}

async fn become_ready(running: &mut Running) -> Result<(), CliError> {
    let session = session_of(running.cluster())?;
    let agents = running.cluster().nodes.len();
    print::note("waiting until the cluster is ready");
    let is_ready = async || match fetch::status(&session, false, PROBE_MS_MAX).await {
        Ok(status) => !status.leader.is_empty() && agents <= status.nodes_ready as usize,
        Err(_) => false,
    };
    running.wait_ready(is_ready, READY_MS_MAX).await.map_err(CliError::from)
}

async fn set_up(session: &Session, given: &[Given]) -> Result<(), CliError> {
    describe_nodes(session).await?.iter().for_each(print::note);
    let options = ApplyOptions::default();
    let mut missing = Vec::new();
    for class in read_classes(&storage_classes(session).await?) {
        // A class that somebody changed stays as it is.
        if fetch::find(session, Resource::Class, "", class.object().name()).await?.is_none() {
            missing.push(class);
        }
    }
    apply_all(session, &missing, &options, false).await?;
    for (namespace, name) in apply_all(session, given, &options, true).await? {
        wait_ready(session, &namespace, &name, SETS_READY_MS_MAX).await?;
        print::note(format!("statefulset/{name} is ready"));
    }
    Ok(())
}

/// The built-in classes. The one that stands for a real driver's gets volumes that are file systems of their own where
/// every node can mount them.
async fn storage_classes(session: &Session) -> Result<String, CliError> {
    let (_, nodes) = fetch::list(session, Resource::Node, "", "").await?;
    let has_images = |object: &Object| match object {
        Object::Node(node) => {
            let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
            info.is_some_and(|info| info.features.get(IMAGES_FEATURE).is_some_and(|said| said.starts_with("on")))
        }
        _ => false,
    };
    if nodes.is_empty() || !nodes.iter().all(has_images) {
        return Ok(STORAGE_CLASSES.to_owned());
    }
    let (before, after) = STORAGE_CLASSES.split_once(REAL_CLASS).expect("invariant: the built-in classes name it");
    Ok(format!("{before}{REAL_CLASS}{}", after.replacen(DRIVER_DIR, DRIVER_LOOP, 1)))
}

/// How pods run here, and what the nodes cannot do: all of them are this machine, so that one speaks for all.
async fn describe_nodes(session: &Session) -> Result<Vec<String>, CliError> {
    let (_, nodes) = fetch::list(session, Resource::Node, "", "").await?;
    let node = nodes.into_iter().find_map(|object| match object {
        Object::Node(node) => Some(node),
        _ => None,
    });
    let Some(node) = node else { return Ok(Vec::new()) };
    let name = node.metadata.map(|metadata| metadata.name).unwrap_or_default();
    let features = node.status.and_then(|status| status.node_info).unwrap_or_default().features;
    let said = features.get(SANDBOX_FEATURE).map_or("", String::as_str);
    let mut lines = vec![match said.strip_prefix("on: ") {
        Some(kind) => format!("pods run in sandboxes: {}", kind.split(';').next().unwrap_or(kind)),
        None => format!("pods are plain processes of this machine; sandboxes are {said}"),
    }];
    let is_off = |(feature, state): &(&String, &String)| *feature != SANDBOX_FEATURE && state.starts_with("off");
    let off: Vec<&str> = features.iter().filter(is_off).map(|(feature, _)| feature.as_str()).collect();
    if !off.is_empty() {
        lines.push(format!("off here: {} (holdfast describe node {name} says why)", off.join(", ")));
    }
    Ok(lines)
}

fn show_next(session: &Session, data_dir: &Path, is_detached: bool) {
    let is_default = data_dir == Path::new(crate::connect::DATA_DIR);
    let flag = if is_default { String::new() } else { format!(" --cluster {}", data_dir.display()) };
    print::line(format!("the cluster is ready; its servers are {}", session.endpoints().join(", ")));
    print::line("next:");
    for command in ["status", "get all,pvc,pv -o wide", "fault partition n1"] {
        print::line(format!("  holdfast{flag} {command}"));
    }
    if is_detached {
        let flag = if is_default { String::new() } else { format!(" --data-dir {}", data_dir.display()) };
        print::line(format!("  holdfast down{flag}"));
    } else {
        print::line("Ctrl-C stops the cluster and keeps its data.");
    }
}

/// Stops the local cluster.
pub(crate) async fn down(args: &Down, address: &Address) -> Result<(), CliError> {
    let data_dir = match &args.data_dir {
        Some(data_dir) => data_dir.clone(),
        None => address.local_dir()?.to_owned(),
    };
    let stopped = cluster::down(&data_dir, args.purge).await?;
    let what = match stopped {
        Stopped::NothingRan => "no cluster was running",
        Stopped::ByLauncher => "the cluster is stopped",
        Stopped::WithoutLauncher => "the cluster is stopped; its launcher was gone already",
    };
    let data = if args.purge { "its data is removed" } else { "its data is kept" };
    print::line(format!("{what}; {data}"));
    Ok(())
}

/// Shows members, leader, revision, nodes and holds.
pub(crate) async fn status(address: &Address, output: Option<Output>) -> Result<(), CliError> {
    let session = address.connect();
    let (reply, is_stale) = match fetch::digested_status(&session, false, LEADER_MS_MAX).await {
        Ok(reply) => (reply, false),
        Err(_) => (fetch::digested_status(&session, true, ANSWER_MS_MAX).await?, true),
    };
    match output {
        Some(Output::Json) => {
            print::data(manifest::to_json(&reply)?.as_bytes());
            return Ok(());
        }
        Some(Output::Yaml) => {
            print::data(manifest::to_yaml(&reply)?.as_bytes());
            return Ok(());
        }
        Some(Output::Name | Output::Wide) | None => {}
    }
    if is_stale {
        print::note(format!("warning: no leader answers; this is what {} knows", reply.answered_by));
    }
    show_status(&reply);
    if !is_stale {
        show_nodes_and_holds(&session).await?;
    }
    if let Address::Dir(dir) = address
        && let Ok(mut control) = Control::connect(dir).await
        && let Ok(local) = control.status().await
        && !local.faults.is_empty()
    {
        print::line("\nfaults:");
        local.faults.iter().for_each(|fault| print::line(format!("  {}: {}", fault.id, fault.kind)));
    }
    Ok(())
}

fn show_status(reply: &v1::StatusReply) {
    let leader = if reply.leader.is_empty() { print::NONE } else { &reply.leader };
    let digest = &reply.digest;
    print::line(format!("cluster   {} (version {})", reply.cluster, reply.version));
    print::line(format!("leader    {leader}, term {}", reply.term));
    print::line(format!("revision  {}, state digest {digest}", reply.revision));
    print::line(format!("nodes     {} of {} ready", reply.nodes_ready, reply.nodes));
    print::line(format!("pods      {} of {} ready, {} held\n", reply.pods_ready, reply.pods, reply.pods_held));
    crate::member::table(&reply.members).print();
}

async fn show_nodes_and_holds(session: &Session) -> Result<(), CliError> {
    let (_, nodes) = fetch::list(session, Resource::Node, "", "").await?;
    if !nodes.is_empty() {
        print::line("");
        listing::table(Resource::Node, &nodes, listing::Layout::default()).print();
    }
    let (_, pods) = fetch::list(session, Resource::Pod, "", "").await?;
    for object in &pods {
        let Object::Pod(pod) = object else { continue };
        if listing::is_held(pod) {
            let hold = pod.status.clone().unwrap_or_default().hold.unwrap_or_default();
            let (name, ago) = (object.name(), print::age(&hold.since));
            print::line(format!("\nheld: pod/{name} on {} for {ago}; holdfast why pod/{name}", hold.node));
        }
    }
    Ok(())
}

/// Breaks the local cluster, and mends it.
pub(crate) async fn fault(address: &Address, fault: &Fault) -> Result<(), CliError> {
    let dir: PathBuf = address.local_dir()?.to_owned();
    let request = fault_request(fault)?;
    let mut control = Control::connect(&dir).await?;
    match control.ask(&request).await? {
        Answer::Done { message } => print::line(message),
        Answer::Faults { faults } if faults.is_empty() => print::note("no faults are active"),
        Answer::Faults { faults } => {
            let mut table = Table::new(["ID", "FAULT"]);
            faults.iter().for_each(|fault| table.row(vec![fault.id.to_string(), fault.kind.to_string()]));
            table.print();
        }
        other => return Err(CliError::refused(format!("the launcher answered with {other:?}"))),
    }
    Ok(())
}

/// What a command line about faults asks the launcher for.
pub(crate) fn fault_request(fault: &Fault) -> Result<Request, CliError> {
    Ok(match fault {
        Fault::Partition(links) => {
            let (target, from, direction) = parts(links)?;
            Request::Partition { target, from, direction, for_ms: links.for_ms }
        }
        Fault::Delay { links, by } => {
            let (target, from, direction) = parts(links)?;
            Request::Delay { target, from, direction, delay_ms: *by, for_ms: links.for_ms }
        }
        Fault::Heal { target } => Request::Heal { target: target.as_deref().map(process).transpose()? },
        Fault::Kill { target } => Request::Kill { target: process(target)? },
        Fault::Shutdown { target } => Request::Shutdown { target: process(target)? },
        Fault::Restart { target, new_boot } => Request::Restart { target: process(target)?, new_boot: *new_boot },
        Fault::Pause { target, for_ms } => Request::Pause { target: process(target)?, for_ms: *for_ms },
        Fault::Resume { target } => Request::Resume { target: process(target)? },
        Fault::List => Request::List,
        Fault::Clear => Request::Clear,
        Fault::Run { file } => {
            return Err(CliError::usage(format!("{} is a scenario, not a fault", file.display())));
        }
    })
}

fn parts(links: &Links) -> Result<(ProcessName, Vec<ProcessName>, Direction), CliError> {
    let from = links.from.iter().map(|name| process(name)).collect::<Result<_, _>>()?;
    let direction = match links.one_way {
        None => Direction::Both,
        Some(Way::In) => Direction::In,
        Some(Way::Out) => Direction::Out,
    };
    Ok((process(&links.target)?, from, direction))
}

fn process(name: &str) -> Result<ProcessName, CliError> {
    ProcessName::try_from(name.to_owned()).map_err(|_| {
        CliError::usage(format!("{name:?} is no server (s1, s2, …) and no node (n1, n2, …)")).hint("holdfast status")
    })
}
