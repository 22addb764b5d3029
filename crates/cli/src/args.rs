//! What can be typed: verbs, flags and their help. Never does anything.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::print::parse_duration;

const EXAMPLES: &str = "\
Examples:
  holdfast up -f cluster-config/examples/web.yaml    start a local cluster and a set of three pods
  holdfast get all,pvc,pv                            what is there
  holdfast fault partition n1                        cut a node off
  holdfast why pod/web-0                             why a pod is as it is, and what would end it
  holdfast down --purge                              stop the cluster and remove its data";

/// Where the help lists what every verb takes.
const GLOBAL: &str = "Global options";

/// Runs StatefulSets, and never starts a second copy of a pod whose first may still run.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, before_help = EXAMPLES, infer_long_args = false)]
pub(crate) struct Cli {
    /// The cluster: its data directory, or its servers as host:port[,host:port…].
    #[arg(long, global = true, help_heading = GLOBAL, env = "HOLDFAST_CLUSTER", value_name = "DIR|HOST:PORT")]
    pub(crate) cluster: Option<String>,
    /// The namespace.
    #[arg(short, long, global = true, help_heading = GLOBAL, value_name = "NS")]
    pub(crate) namespace: Option<String>,
    /// Repeats a change whose outcome was unknown: it is carried out once.
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "ID")]
    pub(crate) request_id: Option<String>,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Start a local cluster and stay until Ctrl-C.
    Up(Up),
    /// Stop the local cluster.
    Down(Down),
    /// Members, leader, term, revision, nodes, holds.
    Status {
        /// How to print it.
        #[arg(short, long, value_enum)]
        output: Option<Output>,
    },
    /// Make or change objects; all are checked before any is applied.
    Apply(Apply),
    /// List objects.
    Get(Get),
    /// Show everything about objects.
    Describe {
        /// KIND NAME… or KIND/NAME….
        #[arg(required = true)]
        targets: Vec<String>,
    },
    /// Delete objects.
    Delete(Delete),
    /// Change how many pods a set has.
    Scale(Scale),
    /// Change one thing of a set.
    #[command(subcommand)]
    Set(Set),
    /// Follow, undo, restart or pause a set's rollout.
    #[command(subcommand)]
    Rollout(Rollout),
    /// Change labels of an object.
    Label(Mark),
    /// Change annotations of an object.
    Annotate(Mark),
    /// Change fields of an object.
    Patch(Patch),
    /// Change an object in an editor.
    Edit {
        #[arg(required = true, num_args = 1..=2)]
        target: Vec<String>,
    },
    /// What applying manifests would change; exit code 1 if anything.
    Diff {
        /// A manifest, or - for stdin; may be given again.
        #[arg(short, long = "filename", value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
    /// What a pod wrote.
    Logs(Logs),
    /// Run a command in a container: exec [-it] POD [-c CONTAINER] -- COMMAND…
    Exec(Exec),
    /// Join a container's own process: attach [-it] POD [-c CONTAINER]
    ///
    /// Leaving ends nothing: the container goes on. The exit code says how the joining ended, and not how the container did,
    /// which `describe pod` tells: 0 when its process has ended, 1 if it was refused, 3 if the way to it broke, and 130 or
    /// 143 when this program was told to end by Ctrl-C or SIGTERM. At the container's terminal, Ctrl-C is typed for the container.
    Attach(Attach),
    /// Copy a file or a directory: cp POD:PATH PATH, or cp PATH POD:PATH.
    Cp(Cp),
    /// Lead ports here to ports of a pod, until Ctrl-C.
    PortForward(PortForward),
    /// Wait until something holds.
    Wait(Wait),
    /// Why an object is as it is, and what would end it.
    Why {
        /// POD, KIND/NAME or KIND NAME.
        #[arg(required = true, num_args = 1..=2)]
        target: Vec<String>,
    },
    /// The event log itself.
    Events(Events),
    /// Keep new pods away from nodes.
    Cordon {
        /// The nodes, by name.
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Let new pods onto nodes again.
    Uncordon {
        /// The nodes, by name.
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Stop all pods of a node, as far as disruption budgets allow it, and keep new ones away.
    Drain(Drain),
    /// List, add and remove servers, and choose who leads.
    #[command(subcommand)]
    Member(Member),
    /// Break the local cluster, and mend it.
    #[command(subcommand)]
    Fault(Fault),
    /// Measure how fast this machine's cluster is, on one made for it or with --cluster on another.
    #[command(subcommand)]
    Bench(crate::bench::Bench),
    /// Run the control plane, nodes and pods in a simulated world full of faults, judged by checkers.
    Sim(crate::sim::Sim),
    /// Write a completion script.
    Completion { shell: clap_complete::Shell },
    /// Run one server; what `up` starts, for real deployments.
    Server(Box<crate::child::Server>),
    /// Run the agent of one node; what `up` starts, for real deployments.
    Agent(Box<crate::child::Agent>),
    #[command(hide = true)]
    Launcher(Launcher),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Wide,
    Json,
    Yaml,
    Name,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// How many servers [default: 3].
    #[arg(long)]
    pub(crate) servers: Option<u64>,
    /// How many agents [default: 3].
    #[arg(long)]
    pub(crate) agents: Option<u64>,
    /// Where everything of the cluster is kept.
    #[arg(long, default_value = crate::connect::DATA_DIR)]
    pub(crate) data_dir: PathBuf,
    /// The image catalogue; the built-in one if not given.
    #[arg(long, value_name = "FILE")]
    pub(crate) images: Option<PathBuf>,
    /// How the agents run containers: in sandboxes, as plain processes, or as the machine allows [default: auto].
    #[arg(long, value_enum)]
    pub(crate) runtime: Option<crate::child::Runtime>,
    /// Whose network the nodes have: the host's, or each one of its own, with addresses for its pods, which needs root
    /// [default: host].
    #[arg(long, value_enum)]
    pub(crate) network: Option<crate::cluster::NetworkChoice>,
    /// A further argument for every server.
    #[arg(long = "server-argument", value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) server_arguments: Vec<std::ffi::OsString>,
    /// A further argument for every agent.
    #[arg(long = "agent-argument", value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) agent_arguments: Vec<std::ffi::OsString>,
    /// Return when the cluster is ready; it goes on.
    #[arg(long)]
    pub(crate) detach: bool,
    /// Apply these when the cluster is ready.
    #[arg(short, long = "filename", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Down {
    /// Where the cluster keeps its data.
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Remove the cluster's data, too.
    #[arg(long)]
    pub(crate) purge: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Launcher {
    #[arg(long)]
    pub(crate) data_dir: PathBuf,
    #[arg(long)]
    pub(crate) servers: Option<u64>,
    #[arg(long)]
    pub(crate) agents: Option<u64>,
    #[arg(long)]
    pub(crate) images: Option<PathBuf>,
    #[arg(long, value_enum)]
    pub(crate) network: Option<crate::cluster::NetworkChoice>,
    #[arg(long = "server-argument", allow_hyphen_values = true)]
    pub(crate) server_arguments: Vec<std::ffi::OsString>,
    #[arg(long = "agent-argument", allow_hyphen_values = true)]
    pub(crate) agent_arguments: Vec<std::ffi::OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// A manifest, or - for stdin; may be given again.
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Check everything, change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Wait until every set is ready.
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait.
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    pub(crate) timeout: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// KIND[,KIND…] [NAME…] or KIND/NAME….
    #[arg(required = true)]
    pub(crate) targets: Vec<String>,
    /// How to print it.
    #[arg(short, long, value_enum)]
    pub(crate) output: Option<Output>,
    /// Every namespace.
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Only objects with these labels.
    #[arg(short = 'l', long, default_value = "", hide_default_value = true)]
    pub(crate) selector: String,
    /// Go on with every change.
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Without the header.
    #[arg(long)]
    pub(crate) no_headers: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// KIND NAME… or KIND/NAME….
    #[arg(required_unless_present = "files")]
    pub(crate) targets: Vec<String>,
    /// Delete what these manifests name.
    #[arg(short, long = "filename", value_name = "FILE", conflicts_with = "targets")]
    pub(crate) files: Vec<PathBuf>,
    /// Delete every object of the kinds.
    #[arg(long, conflicts_with_all = ["files", "selector"])]
    pub(crate) all: bool,
    /// Delete the objects of the kinds with these labels: key=value,….
    #[arg(
        short = 'l',
        long,
        value_name = "LABELS",
        default_value = "",
        hide_default_value = true,
        conflicts_with = "files"
    )]
    pub(crate) selector: String,
    /// How many seconds a pod may take to stop.
    #[arg(long)]
    pub(crate) grace_period: Option<i64>,
    /// Assert that the pod's processes are dead; you answer for it.
    #[arg(long)]
    pub(crate) force: bool,
    /// With `orphan`, a set's pods stay.
    #[arg(long, value_enum, default_value = "background")]
    pub(crate) cascade: Cascade,
    /// Wait until the objects are gone.
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait.
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    pub(crate) timeout: u64,
    /// Say nothing about objects that do not exist.
    #[arg(long)]
    pub(crate) ignore_not_found: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cascade {
    Background,
    Orphan,
}

#[derive(Debug, Args)]
pub(crate) struct Scale {
    /// statefulset NAME or sts/NAME.
    #[arg(required = true, num_args = 1..=2)]
    pub(crate) target: Vec<String>,
    /// How many pods it should have.
    #[arg(long)]
    pub(crate) replicas: i32,
    /// Only if it has this many now.
    #[arg(long)]
    pub(crate) current_replicas: Option<i32>,
    /// Stop pods beyond that number that are not ready at once, from the top; they would hold it up otherwise.
    #[arg(long)]
    pub(crate) force_unready: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Set {
    /// Change images: set image sts/NAME CONTAINER=IMAGE….
    Image {
        /// sts/NAME.
        target: String,
        /// CONTAINER=IMAGE; * means every container.
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Change variables: set env sts/NAME KEY=VALUE… KEY-….
    Env {
        /// sts/NAME.
        target: String,
        /// KEY=VALUE, or KEY- to remove it.
        #[arg(required = true, allow_hyphen_values = true)]
        changes: Vec<String>,
        /// Only this container.
        #[arg(short, long, default_value = "*", hide_default_value = true)]
        container: String,
    },
    /// Change what containers need: set resources sts/NAME --requests=cpu=250m,memory=64Mi --limits=….
    Resources {
        /// sts/NAME.
        target: String,
        /// What is set aside; 0 removes it.
        #[arg(long, value_delimiter = ',', value_name = "NAME=QUANTITY")]
        requests: Vec<String>,
        /// What may not be exceeded; 0 removes it.
        #[arg(long, value_delimiter = ',', value_name = "NAME=QUANTITY")]
        limits: Vec<String>,
        /// Only this container.
        #[arg(short, long, default_value = "*", hide_default_value = true)]
        container: String,
    },
}

/// Changes of labels or annotations.
#[derive(Debug, Args)]
pub(crate) struct Mark {
    /// KIND NAME or KIND/NAME, then KEY=VALUE, or KEY- to remove it.
    #[arg(required = true, num_args = 2.., allow_hyphen_values = true)]
    pub(crate) words: Vec<String>,
    /// Change values that are there.
    #[arg(long)]
    pub(crate) overwrite: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PatchType {
    Strategic,
    Merge,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Patch {
    /// KIND NAME or KIND/NAME.
    #[arg(required = true, num_args = 1..=2)]
    pub(crate) target: Vec<String>,
    /// The patch, in JSON or YAML.
    #[arg(short, long, required_unless_present = "patch_file", default_value = "", hide_default_value = true)]
    pub(crate) patch: String,
    /// A file with the patch.
    #[arg(long, value_name = "FILE", conflicts_with = "patch")]
    pub(crate) patch_file: Option<PathBuf>,
    /// How it is meant.
    #[arg(long = "type", value_enum, default_value = "strategic")]
    pub(crate) kind: PatchType,
}

#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// The node.
    pub(crate) node: String,
    /// How many seconds a pod may take to stop; its own time if not given.
    #[arg(long)]
    pub(crate) grace_period: Option<i64>,
    /// Also stop pods that no set owns: nothing makes them again.
    #[arg(long)]
    pub(crate) force: bool,
    /// Stop pods without asking disruption budgets.
    #[arg(long)]
    pub(crate) disable_eviction: bool,
    /// How long to try; for ever if not given.
    #[arg(long, value_parser = parse_duration)]
    pub(crate) timeout: Option<u64>,
    /// Accepted, and without effect: there are no daemon sets.
    #[arg(long)]
    pub(crate) ignore_daemonsets: bool,
    /// Accepted, and without effect: what is not in a claim ends with its pod anyway.
    #[arg(long)]
    pub(crate) delete_emptydir_data: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Rollout {
    /// Follow a rollout to its end.
    Status {
        /// statefulset NAME or sts/NAME.
        #[arg(required = true, num_args = 1..=2)]
        target: Vec<String>,
        /// Only say how far it is.
        #[arg(long, num_args = 0..=1, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
        watch: bool,
        /// How long to follow it; for ever if not given.
        #[arg(long, value_parser = parse_duration)]
        timeout: Option<u64>,
    },
    /// The templates that a set has had.
    History {
        #[arg(required = true, num_args = 1..=2)]
        target: Vec<String>,
        /// Show the template of this one.
        #[arg(long)]
        revision: Option<i64>,
    },
    /// Go back to a former template.
    Undo {
        #[arg(required = true, num_args = 1..=2)]
        target: Vec<String>,
        /// To this one; to the one before the present if not given.
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        to_revision: i64,
    },
    /// Make all pods anew, one after another.
    Restart {
        #[arg(required = true, num_args = 1..=2)]
        target: Vec<String>,
    },
    /// Let a rollout rest: no pod is replaced for a new template.
    Pause {
        #[arg(required = true, num_args = 1..=2)]
        target: Vec<String>,
    },
    /// Let a rollout go on.
    Resume {
        #[arg(required = true, num_args = 1..=2)]
        target: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// POD or pod/POD; of sts/NAME or svc/NAME, the first pod that is ready.
    #[arg(required_unless_present = "selector")]
    pub(crate) target: Option<String>,
    /// Of all pods with these labels.
    #[arg(
        short = 'l',
        long,
        value_name = "LABELS",
        conflicts_with = "target",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) selector: String,
    /// Of all pods of sts/NAME or svc/NAME.
    #[arg(long)]
    pub(crate) all_pods: bool,
    /// Which container; the first if not given.
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub(crate) container: String,
    /// Of all containers.
    #[arg(long, conflicts_with = "container")]
    pub(crate) all_containers: bool,
    /// Begin each line with the pod and the container that it comes from.
    #[arg(long)]
    pub(crate) prefix: bool,
    /// How many logs may be followed at once.
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    pub(crate) max_log_requests: usize,
    /// Go on with what is written, also when the container is started again, until its pod is gone.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Of the container before the last restart.
    #[arg(short, long)]
    pub(crate) previous: bool,
    /// Only so many lines from the end; -1 means all, which it is by default, except that it is 10 with --selector.
    #[arg(long, value_name = "LINES", allow_negative_numbers = true)]
    pub(crate) tail: Option<i64>,
    /// Only what was written in the last 5s, 2m or 3h.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) since: Option<u64>,
    /// Only what was written since 2024-05-01T12:00:00Z.
    #[arg(long, value_name = "TIME", conflicts_with = "since", default_value = "", hide_default_value = true)]
    pub(crate) since_time: String,
    /// Begin each line with its time.
    #[arg(long)]
    pub(crate) timestamps: bool,
}

/// A container that somebody wants to have to do with.
#[derive(Debug, Args)]
pub(crate) struct Whose {
    /// POD or pod/POD; of sts/NAME or svc/NAME, the first pod that is ready.
    pub(crate) pod: String,
    /// Which container; the first if not given.
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub(crate) container: String,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    #[command(flatten)]
    pub(crate) whose: Whose,
    /// Pass standard input on.
    #[arg(short = 'i', long)]
    pub(crate) stdin: bool,
    /// Give the command a terminal.
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Attach {
    #[command(flatten)]
    pub(crate) whose: Whose,
    /// Type for it; its template must say `stdin: true`.
    #[arg(short = 'i', long)]
    pub(crate) stdin: bool,
    /// Lend it this terminal; its template must say `tty: true`.
    #[arg(short, long)]
    pub(crate) tty: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Cp {
    /// What is copied: PATH, or [NAMESPACE/]POD:PATH.
    pub(crate) source: String,
    /// Where to. A file goes into a directory that is there, and so does what is copied to a pod; a directory that is
    /// copied from a pod is merged with it.
    pub(crate) target: String,
    /// Which container; not needed where there is one.
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub(crate) container: String,
}

#[derive(Debug, Args)]
pub(crate) struct PortForward {
    /// POD or pod/POD; of sts/NAME or svc/NAME, the first pod that is ready.
    pub(crate) target: String,
    /// [LOCAL:]REMOTE; :REMOTE finds a free port here. A port of a service leads to the pod's.
    #[arg(required = true)]
    pub(crate) ports: Vec<String>,
    /// Where to listen: addresses of this machine, or localhost.
    #[arg(long, default_value = "localhost", value_delimiter = ',')]
    pub(crate) address: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// KIND NAME… or KIND/NAME….
    #[arg(required = true)]
    pub(crate) targets: Vec<String>,
    /// condition=NAME[=VALUE], delete, or jsonpath='{.path}'=VALUE.
    #[arg(long = "for", value_name = "WHAT")]
    pub(crate) wanted: String,
    /// How long to wait.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub(crate) timeout: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Go on with new events.
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Only events after this revision.
    #[arg(long, value_name = "REVISION")]
    pub(crate) since: Option<u64>,
    /// Only events about KIND/NAME.
    #[arg(long = "for", value_name = "KIND/NAME")]
    pub(crate) about: Option<String>,
    /// Every namespace.
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// How to print them.
    #[arg(short, long, value_enum)]
    pub(crate) output: Option<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    In,
    Out,
}

/// Which links a fault is on.
#[derive(Debug, Args)]
pub(crate) struct Links {
    /// A server (s1) or a node (n1).
    pub(crate) target: String,
    /// Only the links to these. Where nodes have networks of their own, two nodes can be parted so.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) from: Vec<String>,
    /// Only what the target receives, or what it sends.
    #[arg(long, value_enum)]
    pub(crate) one_way: Option<Way>,
    /// Ends by itself after this time.
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    pub(crate) for_ms: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Member {
    /// The servers: who leads, who only learns, who lags.
    List {
        /// How to print it.
        #[arg(short, long, value_enum)]
        output: Option<Output>,
    },
    /// Start one more server in the local cluster, and wait until it votes.
    Add {
        /// How long to wait.
        #[arg(long, default_value = "60s", value_parser = parse_duration)]
        timeout: u64,
    },
    /// Remove servers for good: a number is never used again.
    Remove {
        /// Servers, such as s2.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Let another server lead.
    TransferLeader {
        /// A server, such as s2; the one that holds most of the log if not given.
        name: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Fault {
    /// Cut links.
    Partition(Links),
    /// Slow links down: fault delay n1 200ms.
    Delay {
        #[command(flatten)]
        links: Links,
        /// How much later everything arrives.
        #[arg(value_parser = parse_duration)]
        by: u64,
    },
    /// End partitions and delays: of one process, or all.
    Heal { target: Option<String> },
    /// Kill a server or an agent; pods go on.
    Kill { target: String },
    /// Shut a node down in good order: its pods end within its grace period and start elsewhere, then its agent ends.
    ///
    /// It comes back with `fault restart NODE --new-boot`.
    Shutdown {
        /// A node, such as n1.
        target: String,
    },
    /// Start a server or an agent again.
    Restart {
        /// A server (s1) or a node (n1).
        target: String,
        /// As after a reboot of the node: its pods are killed, too.
        #[arg(long)]
        new_boot: bool,
    },
    /// Stop a process so that it can go on.
    Pause {
        /// A server (s1) or a node (n1).
        target: String,
        /// Goes on by itself after this time.
        #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
        for_ms: Option<u64>,
    },
    /// Let a paused process go on.
    Resume { target: String },
    /// The active faults.
    List,
    /// End partitions, delays and pauses.
    Clear,
    /// Run a scenario of timed steps, and judge what happened.
    ///
    /// Each step of the file is a command line: `- {at: 5s, do: fault partition n1 --for 10s}`. When all are done, every
    /// fault ends, and after a rest what the servers wrote down is judged by the checkers of the simulator.
    Run {
        /// The scenario, in YAML.
        file: PathBuf,
    },
}
