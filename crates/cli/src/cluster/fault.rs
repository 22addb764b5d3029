//! The faults that are active, and what they make of each link.
//! Never touches a socket or a process: the launcher carries out what is decided here.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::layout::ProcessName;
use super::link::{Conduct, LinkConduct};
use super::network::End;

/// Which way of the target's traffic a fault concerns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Everything.
    #[default]
    Both,
    /// What is sent to the target.
    In,
    /// What the target sends.
    Out,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FaultKind {
    /// Links of the target are cut.
    Partition {
        /// Whose links.
        target: ProcessName,
        /// Only the links to these; empty means all.
        from: Vec<ProcessName>,
        /// Which way.
        direction: Direction,
    },
    /// Links of the target are slow.
    Delay {
        /// Whose links.
        target: ProcessName,
        /// Only the links to these; empty means all.
        from: Vec<ProcessName>,
        /// Which way.
        direction: Direction,
        /// How slow.
        delay_ms: u64,
    },
    /// The process is stopped, and can go on.
    Pause {
        /// Which process.
        target: ProcessName,
    },
    /// The process was killed, and not started again yet.
    Kill {
        /// Which process.
        target: ProcessName,
    },
    /// The node was told that its machine is going down, and not started again yet.
    Shutdown {
        /// Which node.
        target: ProcessName,
    },
}

impl FaultKind {
    /// The process that the fault was put on.
    pub fn target(&self) -> ProcessName {
        match self {
            Self::Partition { target, .. }
            | Self::Delay { target, .. }
            | Self::Pause { target }
            | Self::Kill { target }
            | Self::Shutdown { target } => *target,
        }
    }

    /// Whether the fault is one of links, which `heal` ends.
    pub fn is_on_links(&self) -> bool {
        match self {
            Self::Partition { .. } | Self::Delay { .. } => true,
            Self::Pause { .. } | Self::Kill { .. } | Self::Shutdown { .. } => false,
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (target, from, direction) = match self {
            Self::Pause { target } => return write!(f, "{target} is paused"),
            Self::Kill { target } => return write!(f, "{target} is killed"),
            Self::Shutdown { target } => return write!(f, "{target} is shut down"),
            Self::Partition { target, from, direction } => {
                write!(f, "{target} is partitioned")?;
                (target, from, direction)
            }
            Self::Delay { target, from, direction, delay_ms } => {
                write!(f, "{target} is delayed by {delay_ms} ms")?;
                (target, from, direction)
            }
        };
        if !from.is_empty() {
            let names: Vec<String> = from.iter().map(ProcessName::to_string).collect();
            write!(f, " from {}", names.join(", "))?;
        }
        match direction {
            Direction::Both => Ok(()),
            Direction::In => write!(f, " (only what {target} receives)"),
            Direction::Out => write!(f, " (only what {target} sends)"),
        }
    }
}

/// An active fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Counts the faults of this launcher.
    pub id: u64,
    /// What is wrong.
    #[serde(flatten)]
    pub kind: FaultKind,
    /// When it began, in Unix time.
    pub since_ms: u64,
    /// When it ends by itself, in Unix time.
    pub until_ms: Option<u64>,
}

/// Every active fault, oldest first.
#[derive(Debug, Default)]
pub(super) struct Faults {
    last_id: u64,
    active: BTreeMap<u64, Fault>,
}

impl Faults {
    pub(super) fn add(&mut self, kind: FaultKind, now_ms: u64, for_ms: Option<u64>) -> Fault {
        self.last_id += 1;
        let until_ms = for_ms.map(|for_ms| now_ms.saturating_add(for_ms));
        let fault = Fault { id: self.last_id, kind, since_ms: now_ms, until_ms };
        self.active.insert(fault.id, fault.clone());
        fault
    }

    /// Ends the faults that fit, and returns them.
    pub(super) fn end(&mut self, fits: impl Fn(&Fault) -> bool) -> Vec<Fault> {
        let ended: Vec<Fault> = self.active.values().filter(|fault| fits(fault)).cloned().collect();
        for fault in &ended {
            self.active.remove(&fault.id);
        }
        ended
    }

    pub(super) fn list(&self) -> Vec<Fault> {
        self.active.values().cloned().collect()
    }

    pub(super) fn is_paused(&self, name: ProcessName) -> bool {
        self.active.values().any(|fault| matches!(fault.kind, FaultKind::Pause { target } if target == name))
    }

    /// When the next fault ends by itself.
    pub(super) fn next_end_ms(&self) -> Option<u64> {
        self.active.values().filter_map(|fault| fault.until_ms).min()
    }

    /// What the link by which `from` dials `to` has to do. Of several delays the longest counts.
    pub(super) fn conduct(&self, from: ProcessName, to: ProcessName) -> LinkConduct {
        let mut conduct = LinkConduct::default();
        for fault in self.active.values() {
            let (target, others, direction, effect) = match &fault.kind {
                FaultKind::Partition { target, from, direction } => {
                    (*target, from, *direction, Conduct { is_cut: true, delay_ms: 0 })
                }
                FaultKind::Delay { target, from, direction, delay_ms } => {
                    (*target, from, *direction, Conduct { is_cut: false, delay_ms: *delay_ms })
                }
                FaultKind::Pause { .. } | FaultKind::Kill { .. } | FaultKind::Shutdown { .. } => continue,
            };
            let is_meant = |other| others.is_empty() || others.contains(&other);
            let (hits_out, hits_in) = match direction {
                Direction::Both => (true, true),
                Direction::In => (false, true),
                Direction::Out => (true, false),
            };
            if target == from && is_meant(to) {
                impose(&mut conduct.forward, effect, hits_out);
                impose(&mut conduct.backward, effect, hits_in);
            } else if target == to && is_meant(from) {
                impose(&mut conduct.forward, effect, hits_in);
                impose(&mut conduct.backward, effect, hits_out);
            }
        }
        conduct
    }

    /// Whether nothing of what pods send arrives, where nodes have networks of their own. The host is no process: only a
    /// node that is partitioned from all is so from it, too.
    pub(super) fn is_cut(&self, from: End, to: End) -> bool {
        let isolates = |node: ProcessName, way: Direction| {
            self.active.values().any(|fault| match &fault.kind {
                FaultKind::Partition { target, from, direction } => {
                    *target == node && from.is_empty() && (*direction == way || *direction == Direction::Both)
                }
                FaultKind::Delay { .. }
                | FaultKind::Pause { .. }
                | FaultKind::Kill { .. }
                | FaultKind::Shutdown { .. } => false,
            })
        };
        match (from, to) {
            (End::Node(from), End::Node(to)) => from != to && self.conduct(from, to).forward.is_cut,
            (End::Node(from), End::Host) => isolates(from, Direction::Out),
            (End::Host, End::Node(to)) => isolates(to, Direction::In),
            (End::Host, End::Host) => false,
        }
    }
}

fn impose(conduct: &mut Conduct, effect: Conduct, is_hit: bool) {
    if is_hit {
        conduct.is_cut |= effect.is_cut;
        conduct.delay_ms = conduct.delay_ms.max(effect.delay_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S1: ProcessName = ProcessName::Server(1);
    const S2: ProcessName = ProcessName::Server(2);
    const N1: ProcessName = ProcessName::Node(1);
    const N2: ProcessName = ProcessName::Node(2);

    fn partition(target: ProcessName, from: &[ProcessName], direction: Direction) -> FaultKind {
        FaultKind::Partition { target, from: from.to_vec(), direction }
    }

    #[track_caller]
    fn assert_cut(faults: &Faults, from: ProcessName, to: ProcessName, forward: bool, backward: bool) {
        let conduct = faults.conduct(from, to);
        assert_eq!((conduct.forward.is_cut, conduct.backward.is_cut), (forward, backward), "{from} to {to}");
    }

    #[test]
    fn a_partitioned_node_has_no_link_left() {
        let mut faults = Faults::default();
        faults.add(partition(N1, &[], Direction::Both), 0, None);
        assert_cut(&faults, N1, S1, true, true);
        assert_cut(&faults, N1, S2, true, true);
        assert_cut(&faults, N2, S1, false, false);
        assert_cut(&faults, S1, S2, false, false);
    }

    #[test]
    fn a_partitioned_server_is_cut_whoever_dialled() {
        let mut faults = Faults::default();
        faults.add(partition(S2, &[], Direction::Out), 0, None);
        assert_cut(&faults, S2, S1, true, false);
        assert_cut(&faults, S1, S2, false, true);
        assert_cut(&faults, N1, S2, false, true);
        faults.add(partition(S2, &[S1], Direction::In), 0, None);
        assert_cut(&faults, S1, S2, true, true);
        assert_cut(&faults, N1, S2, false, true);
    }

    #[test]
    fn what_pods_send_is_cut_between_nodes_and_from_the_host_alone_when_a_node_is_cut_from_all() {
        let (n1, n2, n3) = (End::Node(N1), End::Node(N2), End::Node(ProcessName::Node(3)));
        let ends = [End::Host, n1, n2, n3];
        for (what, fault, expected) in [
            (
                "all of a node",
                partition(N1, &[], Direction::Both),
                vec![(End::Host, n1), (n1, End::Host), (n1, n2), (n1, n3), (n2, n1), (n3, n1)],
            ),
            ("what a node sends", partition(N1, &[], Direction::Out), vec![(n1, End::Host), (n1, n2), (n1, n3)]),
            ("two nodes", partition(N1, &[N2], Direction::Both), vec![(n1, n2), (n2, n1)]),
            ("what one hears of another", partition(N1, &[N2], Direction::In), vec![(n2, n1)]),
            ("a node and a server", partition(N1, &[S1], Direction::Both), vec![]),
            ("a server", partition(S1, &[], Direction::Both), vec![]),
        ] {
            let mut faults = Faults::default();
            faults.add(fault, 0, None);
            let ways = ends.iter().flat_map(|from| ends.iter().map(move |to| (*from, *to)));
            let cut: Vec<_> = ways.filter(|(from, to)| faults.is_cut(*from, *to)).collect();
            assert_eq!(cut, expected, "{what}");
        }
    }

    #[test]
    fn faults_add_up_and_end_one_by_one() {
        let mut faults = Faults::default();
        let first = faults.add(partition(N1, &[S1], Direction::Both), 1_000, Some(500));
        faults.add(partition(N1, &[], Direction::In), 1_000, None);
        let delay = FaultKind::Delay { target: N1, from: Vec::new(), direction: Direction::Out, delay_ms: 30 };
        faults.add(delay, 1_000, None);
        assert_eq!(faults.next_end_ms(), Some(1_500));
        assert_cut(&faults, N1, S1, true, true);
        assert_eq!(faults.conduct(N1, S1).forward.delay_ms, 30);
        assert_eq!(faults.conduct(N1, S1).backward.delay_ms, 0);
        assert_eq!(faults.end(|fault| fault.until_ms.is_some_and(|until| until <= 1_500)), vec![first]);
        assert_cut(&faults, N1, S1, false, true);
        assert_eq!(faults.end(|fault| fault.kind.target() == N1).len(), 2);
        assert_eq!(faults.conduct(N1, S1), LinkConduct::default());
    }
}
