//! Addresses of pods and of services. 127.64.0.0/10 binds on every host without configuration; services have the upper
//! quarter of it to themselves.

use crate::id::Uid;
use crate::state::State;

/// A range of addresses, as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    first: u32,
    count: u32,
}

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
            range.first + u32::try_from(offset).expect("an offset below the count fits")
        })
        .find(|address| range.has(*address) && !state.is_address_taken(*address))
}
