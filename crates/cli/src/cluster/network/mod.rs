//! The network of a cluster whose nodes have one each: a bridge on the host, and a namespace for every node, joined by a
//! wire. Knows which ways are cut; never decides which.
//!
//! Of the cluster's 16 bits, the first block is for the host (254) and the nodes (by their numbers), and block *k* is for
//! the pods of node *k*: all of it is local there, so that pods use their addresses as they use those of loopback.
//!
//! A way is cut where it begins: what goes there is sent to a neighbour who does not exist. So whoever sends is told
//! nothing, as with a cable that was pulled far away, each direction is cut by itself, and mending takes no time.
//!
//! Namespaces have no names. The launcher holds them, and so does each process in them; when all are gone, so are the
//! namespace and its wire. The bridge alone must be taken away.

mod namespace;
mod netlink;
mod range;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::Refused;
use super::layout::{ClusterFile, ProcessName};
use namespace::Namespace;
use netlink::{Netlink, Prefix};
pub(super) use range::PodNetwork;
pub(super) use range::choose;

/// The link of a node, in its namespace.
const NODE_LINK: &str = "eth0";

/// Whose network the nodes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum NetworkChoice {
    /// The host's: pods have addresses of loopback.
    Host,
    /// Each node has a network namespace of its own, and its pods have addresses there; needs root.
    Netns,
}

impl NetworkChoice {
    /// As it is spelled on the command line.
    pub(super) fn argument(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Netns => "netns",
        }
    }
}

/// One end of a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// This machine, with the servers.
    Host,
    /// A node, with its pods.
    Node(ProcessName),
}

/// The network while its launcher runs.
#[derive(Debug)]
pub(super) struct Network {
    pods: PodNetwork,
    names: Names,
    host: Netlink,
    nodes: BTreeMap<ProcessName, Namespace>,
    /// The ways on which nothing arrives, from and to.
    cut: BTreeSet<(End, End)>,
}

/// What the links on the host are called: no other cluster's.
#[derive(Clone, Debug)]
struct Names {
    bridge: String,
}

impl Names {
    /// Links have names of up to 15 bytes.
    fn of(cluster_id: &str) -> Self {
        Self { bridge: format!("hf{}", cluster_id.get(..6).unwrap_or(cluster_id)) }
    }

    fn wire(&self, node: ProcessName) -> String {
        format!("{}{node}", self.bridge)
    }
}

/// Whether namespaces can be made and joined here.
pub(super) fn probe() -> Result<(), Refused> {
    let namespace = Namespace::create().map_err(|error| impossible("making a network namespace", &error))?;
    let tried = namespace.within(|| {
        let netlink = Netlink::open()?;
        netlink.add_bridge("probe", [0x02, 0, 0, 0, 0, 1])?;
        let other = Namespace::create()?;
        netlink.add_wire("probe0", NODE_LINK, other.as_fd())?;
        netlink.join("probe0", "probe")
    });
    tried.map_err(|error: io::Error| impossible("joining network namespaces by a bridge", &error))
}

fn impossible(what: &str, error: &io::Error) -> Refused {
    Refused::new(format!(
        "nodes cannot have networks of their own here: {what}: {error} (it needs root, with CAP_SYS_ADMIN and \
         CAP_NET_ADMIN, and a kernel with network namespaces, veth and bridges)"
    ))
    .hint("holdfast up --network=host")
}

impl Network {
    /// Makes what is missing. `found` leads to the namespace of a process of each node that has one, which goes on.
    pub(super) fn build(
        pods: PodNetwork,
        file: &ClusterFile,
        found: &BTreeMap<ProcessName, PathBuf>,
    ) -> io::Result<Self> {
        let (names, host) = (Names::of(&file.cluster_id), Netlink::open()?);
        host.add_bridge(&names.bridge, pods.wire_address())?;
        host.add_address(&names.bridge, pods.host(), PodNetwork::BITS)?;
        host.set_up(&names.bridge)?;
        host.add_nobody(&names.bridge, pods.nobody())?;
        let mut network = Self { pods, names, host, nodes: BTreeMap::new(), cut: BTreeSet::new() };
        for &node in file.nodes.keys() {
            let namespace = match found.get(&node).map(|path| Namespace::find(path)) {
                Some(Ok(Some(namespace))) => namespace,
                // Its last process has ended meanwhile.
                Some(Ok(None) | Err(_)) | None => Namespace::create()?,
            };
            network.add(node, namespace)?;
        }
        network.mend(found.keys().copied())?;
        Ok(network)
    }

    fn add(&mut self, node: ProcessName, namespace: Namespace) -> io::Result<()> {
        let wire = self.names.wire(node);
        let inside = namespace.netlink();
        inside.set_loopback_up()?;
        if !inside.has_link(NODE_LINK) {
            // An end that is left belongs to a namespace that is about to vanish.
            self.host.remove_link(&wire)?;
            self.host.add_wire(&wire, NODE_LINK, namespace.as_fd())?;
        }
        self.host.join(&wire, &self.names.bridge)?;
        self.host.set_up(&wire)?;
        inside.add_address(NODE_LINK, self.pods.node(node), PodNetwork::BITS)?;
        inside.set_up(NODE_LINK)?;
        inside.own(self.pods.block(node))?;
        inside.add_nobody(NODE_LINK, self.pods.nobody())?;
        self.nodes.insert(node, namespace);
        Ok(())
    }

    /// Where nodes reach the host.
    pub(super) fn host(&self) -> Ipv4Addr {
        self.pods.host()
    }

    /// Does something where a node is; on the host for whoever is no node.
    pub(super) fn within<T: Send>(
        &self,
        name: ProcessName,
        what: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        match self.nodes.get(&name) {
            Some(namespace) => namespace.within(what),
            None => what(),
        }
    }

    /// Cuts these ways, and mends all others.
    pub(super) fn set_cuts(&mut self, wanted: &BTreeSet<(End, End)>) -> io::Result<()> {
        let begun: Vec<(End, End)> = wanted.difference(&self.cut).copied().collect();
        let ended: Vec<(End, End)> = self.cut.difference(wanted).copied().collect();
        for way in begun {
            // Written down first: half a cut is mended as a whole one.
            self.cut.insert(way);
            self.set_cut(way, true)?;
        }
        for way in ended {
            self.set_cut(way, false)?;
            self.cut.remove(&way);
        }
        Ok(())
    }

    /// Ends what an earlier launcher may have cut: on the host, and in namespaces that are older than this one.
    fn mend(&self, older: impl Iterator<Item = ProcessName>) -> io::Result<()> {
        for from in std::iter::once(End::Host).chain(older.map(End::Node)) {
            for to in self.ends().filter(|to| *to != from) {
                self.set_cut((from, to), false)?;
            }
        }
        Ok(())
    }

    /// The host, and the nodes.
    pub(super) fn ends(&self) -> impl Iterator<Item = End> {
        std::iter::once(End::Host).chain(self.nodes.keys().copied().map(End::Node))
    }

    fn set_cut(&self, (from, to): (End, End), is_cut: bool) -> io::Result<()> {
        let (netlink, link) = match from {
            End::Host => (&self.host, self.names.bridge.as_str()),
            End::Node(name) => match self.nodes.get(&name) {
                Some(namespace) => (namespace.netlink(), NODE_LINK),
                None => return Ok(()),
            },
        };
        let one = |first| Prefix { first, bits: 32 };
        let ranges = match to {
            End::Host => vec![one(self.pods.host())],
            End::Node(name) => vec![one(self.pods.node(name)), self.pods.block(name)],
        };
        for range in ranges {
            if is_cut {
                netlink.divert(range, link, self.pods.nobody())?;
            } else {
                netlink.undivert(range, link, self.pods.nobody())?;
            }
        }
        Ok(())
    }
}

/// Takes away what a cluster has on the host. Its processes must have ended, or they lose their network.
pub(super) fn remove(file: &ClusterFile) -> io::Result<()> {
    if file.network.is_none() {
        return Ok(());
    }
    let (names, host) = (Names::of(&file.cluster_id), Netlink::open()?);
    for &node in file.nodes.keys() {
        host.remove_link(&names.wire(node))?;
    }
    host.remove_link(&names.bridge)
}

/// The bridge of a cluster, by its name.
pub(super) fn bridge_of(cluster_id: &str) -> String {
    Names::of(cluster_id).bridge
}
