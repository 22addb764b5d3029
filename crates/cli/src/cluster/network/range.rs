//! Which addresses a cluster has for its nodes and pods: private ones that nobody on this machine has a way to.
//! Never changes anything.

use std::net::Ipv4Addr;

use domain::address::AddressRange;
use serde::{Deserialize, Serialize};

use super::netlink::Prefix;
use crate::cluster::layout::ProcessName;

/// Where each of the private ranges of 16 bits begins, the likeliest to be free first.
const CANDIDATES: [(u32, u32); 3] = [(0x0a00_0000, 256), (0x6440_0000, 64), (0xac10_0000, 16)];
/// How many addresses a cluster has.
const SIZE: u32 = 1 << 16;
/// How many of them the pods of a node have.
const BLOCK_SIZE: u32 = 1 << 8;
/// Of the first block.
const HOST: u32 = 254;
/// Of the last one; so many nodes there are never.
const NOBODY: u32 = 0xfffe;

/// The addresses of a cluster, by the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(in crate::cluster) struct PodNetwork {
    first: Ipv4Addr,
}

impl PodNetwork {
    /// The bits that all addresses of a cluster have in common.
    pub(super) const BITS: u8 = 16;

    /// The host's own.
    pub(super) fn host(self) -> Ipv4Addr {
        self.at(HOST)
    }

    /// Nobody's, for ever.
    pub(super) fn nobody(self) -> Ipv4Addr {
        self.at(NOBODY)
    }

    /// A node's own.
    pub(super) fn node(self, node: ProcessName) -> Ipv4Addr {
        self.at(number(node))
    }

    /// The addresses of a node's pods.
    pub(in crate::cluster) fn pod_range(self, node: ProcessName) -> AddressRange {
        AddressRange { first: u32::from(self.at(number(node) * BLOCK_SIZE)), count: BLOCK_SIZE }
    }

    /// The same, for routes.
    pub(super) fn block(self, node: ProcessName) -> Prefix {
        Prefix { first: self.at(number(node) * BLOCK_SIZE), bits: 24 }
    }

    /// The host's on the wire: it must not change when nodes come and go, because they remember it.
    pub(super) fn wire_address(self) -> [u8; 6] {
        let [a, b, c, d] = self.host().octets();
        [0x02, 0x68, a, b, c, d]
    }

    fn at(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.first) + offset)
    }

    fn overlaps(self, first: u32, mask: u32) -> bool {
        let common = mask & !(SIZE - 1);
        u32::from(self.first) & common == first & common
    }
}

/// The block of a node follows from its number, of which there are at most 200.
fn number(node: ProcessName) -> u32 {
    match node {
        ProcessName::Node(number) | ProcessName::Server(number) => {
            u32::try_from(number).unwrap_or(u32::MAX).min(HOST - 1)
        }
    }
}

/// Addresses that no way of this machine leads to, but by the cluster's own bridge: those that it had before if they are
/// free, else the first ones after a place that follows from the cluster's random name. `routes` is `/proc/net/route`.
pub(in crate::cluster) fn choose(
    before: Option<PodNetwork>,
    cluster_id: &str,
    bridge: &str,
    routes: &str,
) -> Option<PodNetwork> {
    let taken: Vec<(u32, u32)> = routes.lines().skip(1).filter_map(|line| way(line, bridge)).collect();
    let is_free = |network: &PodNetwork| !taken.iter().any(|(first, mask)| network.overlaps(*first, *mask));
    let start = cluster_id.get(..2).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or_default();
    let candidates = CANDIDATES.iter().flat_map(|(first, count)| {
        (0..*count).map(move |step| PodNetwork { first: Ipv4Addr::from(first + (start + step) % count * SIZE) })
    });
    before.into_iter().chain(candidates).find(is_free)
}

/// Where a line's way leads, and the bits that count; not the default one, which leads everywhere, nor our own.
fn way(line: &str, bridge: &str) -> Option<(u32, u32)> {
    let columns: Vec<&str> = line.split_ascii_whitespace().collect();
    // The kernel writes addresses as numbers of this machine.
    let number = |at: usize| Some(u32::from_be(u32::from_str_radix(columns.get(at)?, 16).ok()?));
    let (first, mask) = (number(1)?, number(7)?);
    (columns.first() != Some(&bridge) && mask != 0).then_some((first, mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";
    const ID: &str = "4d00ff";

    fn chosen(before: Option<[u8; 4]>, routes: &str) -> String {
        let before = before.map(|first| PodNetwork { first: first.into() });
        let chosen = choose(before, ID, "hf4d00ff", &format!("{HEADER}{routes}"));
        chosen.map(|network| network.first.to_string()).unwrap_or_default()
    }

    #[test]
    fn addresses_are_those_that_nobody_has() {
        let (default, ten_77) =
            ("eth0 00000000 0100A8C0 0003 0 0 0 00000000 0 0 0\n", "x 00004D0A 0 1 0 0 0 0000FFFF 0 0 0\n");
        let own = "hf4d00ff 00004D0A 0 1 0 0 0 0000FFFF 0 0 0\n";
        let (inside_77, ten) = ("x 00034D0A 0 1 0 0 0 00FFFFFF 0 0 0\n", "x 0000000A 0 1 0 0 0 000000FF 0 0 0\n");
        for (what, before, routes, expected) in [
            ("nothing is taken", None, String::new(), "10.77.0.0"),
            ("the way to everywhere takes nothing", None, default.to_owned(), "10.77.0.0"),
            ("its own bridge takes nothing", None, own.to_owned(), "10.77.0.0"),
            ("somebody has it", None, ten_77.to_owned(), "10.78.0.0"),
            ("somebody has a part of it", None, inside_77.to_owned(), "10.78.0.0"),
            ("somebody has all that begin alike", None, ten.to_owned(), "100.77.0.0"),
            ("it had some before", Some([10, 3, 0, 0]), default.to_owned(), "10.3.0.0"),
            ("somebody has taken those", Some([10, 77, 0, 0]), ten_77.to_owned(), "10.78.0.0"),
        ] {
            assert_eq!(chosen(before, &routes), expected, "{what}");
        }
    }

    #[test]
    fn every_node_has_a_block_of_its_own() {
        let network = PodNetwork { first: [10, 77, 0, 0].into() };
        let node = ProcessName::Node(3);
        assert_eq!(network.host().to_string(), "10.77.0.254");
        assert_eq!(network.node(node).to_string(), "10.77.0.3");
        assert_eq!(network.pod_range(node).to_string(), "10.77.3.0/24");
        assert_eq!(network.nobody().to_string(), "10.77.255.254");
    }
}
