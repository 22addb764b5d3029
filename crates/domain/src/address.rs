//! Addresses of pods and of services. 127.64.0.0/10 binds on every host without configuration; services have the upper
//! quarter of it to themselves. A node that has a range of its own says so, and its pods get their addresses from there.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::id::Uid;
use crate::object::Node;
use crate::state::State;

/// A range of addresses, as numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressRange {
    /// The lowest.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// That a text is no range for pods.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no range such as 10.1.2.0/24: an address that ends where the range begins, and 8 to 30 bits")]
pub struct BadRange {
    text: String,
}

/// Ranges of more addresses than this are too large to search, and of fewer have none to give.
const PREFIX_BITS: std::ops::RangeInclusive<u32> = 8..=30;

/// 127.64.0.0 to 127.111.255.255. When all are taken, pods stay unplaced.
pub const PODS: AddressRange = AddressRange { first: 0x7f40_0000, count: 0x0030_0000 };
/// 127.112.0.0 to 127.127.255.255. When all are taken, services that want one are refused.
pub const SERVICES: AddressRange = AddressRange { first: 0x7f70_0000, count: 0x0010_0000 };

impl AddressRange {
    /// Whether an address may be given: in the range, and none that looks like a network or a broadcast.
    #[must_use]
    pub const fn has(self, address: u32) -> bool {
        self.first <= address && address - self.first < self.count && !matches!(address & 0xff, 0 | 0xff)
    }

    /// How many addresses of it may be given.
    #[must_use]
    pub fn len_max(self) -> u32 {
        let blocks = self.count / 0x100;
        match blocks {
            0 => {
                (0..self.count).filter(|step| self.has(self.first.wrapping_add(*step))).count().try_into().unwrap_or(0)
            }
            blocks => blocks * 0xfe,
        }
    }
}

/// As it is written elsewhere: the first address and how many bits of it all have in common.
impl FromStr for AddressRange {
    type Err = BadRange;

    fn from_str(text: &str) -> Result<Self, BadRange> {
        let bad = || BadRange { text: text.to_owned() };
        let (first, bits) = text.split_once('/').ok_or_else(bad)?;
        let first = u32::from(first.parse::<Ipv4Addr>().map_err(|_| bad())?);
        let bits: u32 = bits.parse().map_err(|_| bad())?;
        if !PREFIX_BITS.contains(&bits) {
            return Err(bad());
        }
        let count = 1 << (u32::BITS - bits);
        if first % count == 0 { Ok(Self { first, count }) } else { Err(bad()) }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u32::BITS - self.count.checked_ilog2().unwrap_or_default();
        write!(f, "{}/{bits}", Ipv4Addr::from(self.first))
    }
}

/// Where the pods of a node get their addresses from.
pub(crate) fn range_of(node: &Node) -> AddressRange {
    node.pod_range.unwrap_or(PODS)
}

/// An address that nobody has. Clusters on one machine share the ranges: each starts at a place of its own, made from
/// its random name.
pub(crate) fn free(state: &State, range: AddressRange, uid: Uid) -> Option<u32> {
    let seed = state
        .cluster
        .as_str()
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let start = u64::from(seed).wrapping_add(uid.0);
    (0..u64::from(range.count))
        .map(|step| {
            let offset = (start + step) % u64::from(range.count);
            range.first.wrapping_add(u32::try_from(offset).expect("an offset below the count fits"))
        })
        .find(|address| range.has(*address) && !state.is_address_taken(*address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_it_is_written() {
        for text in ["10.1.2.0/24", "10.0.0.0/8", "192.168.7.128/25", "10.1.2.4/30"] {
            assert_eq!(text.parse::<AddressRange>().unwrap().to_string(), text);
        }
        for text in
            ["", "10.1.2.0", "10.1.2.0/33", "10.1.2.0/31", "10.1.2.1/24", "10.1.2/24", "0.0.0.0/0", "10.1.2.0/x"]
        {
            assert!(text.parse::<AddressRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_ends_of_a_block_are_nobodys() {
        for (text, len_max) in
            [("10.1.2.0/24", 254), ("10.1.0.0/16", 254 * 256), ("10.1.2.0/30", 3), ("10.1.2.4/30", 4)]
        {
            assert_eq!(text.parse::<AddressRange>().unwrap().len_max(), len_max, "{text}");
        }
    }
}
