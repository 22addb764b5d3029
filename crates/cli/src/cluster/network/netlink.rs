//! What the kernel is told of links, addresses and routes, in one network namespace each.
//! Never decides what a network looks like.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Word};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, SocketType};

/// An answer is a copy of the question with a number before it.
const ANSWER_BYTES_MAX: usize = 8 * 1024;
/// The table of what is a namespace's own.
const TABLE_LOCAL: u8 = 255;
/// The loopback of every namespace.
const LOOPBACK: &str = "lo";
/// Nobody's: what is sent there is dropped by whoever gets it.
const NOBODY: [u8; 6] = [0x02, 0, 0, 0, 0, 0];

/// Addresses with the same first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix {
    pub(super) first: Ipv4Addr,
    pub(super) bits: u8,
}

/// A way to the kernel that speaks of the namespace in which it was opened.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    /// For the namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        let kind = (SocketType::RAW, SocketFlags::CLOEXEC);
        let socket = rustix::net::socket_with(rustix::net::AddressFamily::NETLINK, kind.0, kind.1, None)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket })
    }

    /// Whether there is a link of this name.
    pub(super) fn has_link(&self, name: &str) -> bool {
        self.index_of(name).is_ok()
    }

    /// A bridge with an address on the wire that stays, whoever joins it. One that is there already is as good.
    pub(super) fn add_bridge(&self, name: &str, wire: [u8; 6]) -> io::Result<()> {
        let bridge = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(wire.to_vec()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ];
        unless(Errno::EXIST, self.ask(Word::NewLink(link(0, bridge)), NLM_F_CREATE | NLM_F_EXCL))
    }

    /// Two links that are the ends of one wire: `name` here, and `peer` in another namespace.
    pub(super) fn add_wire(&self, name: &str, peer: &str, namespace: BorrowedFd<'_>) -> io::Result<()> {
        let there =
            link(0, vec![LinkAttribute::IfName(peer.to_owned()), LinkAttribute::NetNsFd(namespace.as_raw_fd())]);
        let here = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(there))),
            ]),
        ];
        self.ask(Word::NewLink(link(0, here)), NLM_F_CREATE | NLM_F_EXCL)
    }

    pub(super) fn join(&self, name: &str, bridge: &str) -> io::Result<()> {
        let bridge = self.index_of(bridge)?;
        let joined = link(self.index_of(name)?, vec![LinkAttribute::Controller(bridge)]);
        self.ask(Word::SetLink(joined), 0)
    }

    pub(super) fn set_up(&self, name: &str) -> io::Result<()> {
        let mut up = link(self.index_of(name)?, Vec::new());
        up.header.flags = LinkFlags::Up;
        up.header.change_mask = LinkFlags::Up;
        self.ask(Word::SetLink(up), 0)
    }

    pub(super) fn set_loopback_up(&self) -> io::Result<()> {
        self.set_up(LOOPBACK)
    }

    /// A wire goes with either of its ends.
    pub(super) fn remove_link(&self, name: &str) -> io::Result<()> {
        let Ok(index) = self.index_of(name) else { return Ok(()) };
        unless(Errno::NODEV, self.ask(Word::DelLink(link(index, Vec::new())), 0))
    }

    /// Gives a link its address, and with it the way to all with the same first bits.
    pub(super) fn add_address(&self, name: &str, address: Ipv4Addr, bits: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = bits;
        message.header.index = self.index_of(name)?;
        message.attributes =
            vec![AddressAttribute::Local(IpAddr::V4(address)), AddressAttribute::Address(IpAddr::V4(address))];
        self.ask(Word::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Every address of a range is this namespace's own: processes can use it as it is, and neighbours are answered.
    pub(super) fn own(&self, range: Prefix) -> io::Result<()> {
        let mut message = route(range, self.index_of(LOOPBACK)?);
        message.header.table = TABLE_LOCAL;
        message.header.kind = RouteType::Local;
        message.header.scope = RouteScope::Host;
        self.ask(Word::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// A neighbour who gets everything, says nothing and is never there.
    pub(super) fn add_nobody(&self, name: &str, address: Ipv4Addr) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = self.index_of(name)?;
        message.header.state = NeighbourState::Permanent;
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)),
            NeighbourAttribute::LinkLayerAddress(NOBODY.to_vec()),
        ];
        self.ask(Word::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Sends everything for a range to a neighbour.
    pub(super) fn divert(&self, range: Prefix, name: &str, to: Ipv4Addr) -> io::Result<()> {
        self.ask(Word::NewRoute(self.diversion(range, name, to)?), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Ends that; where there is no such way, nothing is to be done.
    pub(super) fn undivert(&self, range: Prefix, name: &str, to: Ipv4Addr) -> io::Result<()> {
        unless(Errno::SRCH, self.ask(Word::DelRoute(self.diversion(range, name, to)?), 0))
    }

    fn diversion(&self, range: Prefix, name: &str, to: Ipv4Addr) -> io::Result<RouteMessage> {
        let mut message = route(range, self.index_of(name)?);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.kind = RouteType::Unicast;
        message.header.scope = RouteScope::Universe;
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(to)));
        Ok(message)
    }

    fn index_of(&self, name: &str) -> io::Result<u32> {
        Ok(rustix::net::netdevice::name_to_index(&self.socket, name)?)
    }

    fn ask(&self, word: Word, flags: u16) -> io::Result<()> {
        let mut message = NetlinkMessage::from(word);
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        rustix::net::send(&self.socket, &bytes, SendFlags::empty())?;
        let mut answer = vec![0; ANSWER_BYTES_MAX];
        let (length, _) = rustix::net::recv(&self.socket, &mut answer, RecvFlags::empty())?;
        let strange = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let answer = NetlinkMessage::<Word>::deserialize(&answer[..length]).map_err(|e| strange(e.to_string()))?;
        match answer.payload {
            NetlinkPayload::Error(said) if said.code.is_none() => Ok(()),
            NetlinkPayload::Error(said) => Err(said.to_io()),
            other => Err(strange(format!("the kernel answers with {other:?}"))),
        }
    }
}

fn link(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    message
}

fn route(range: Prefix, out_by: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = range.bits;
    message.header.protocol = RouteProtocol::Static;
    message.attributes =
        vec![RouteAttribute::Destination(RouteAddress::Inet(range.first)), RouteAttribute::Oif(out_by)];
    message
}

/// What is so already, or is gone already, is no failure.
fn unless(harmless: Errno, done: io::Result<()>) -> io::Result<()> {
    done.or_else(|error| if error.raw_os_error() == Some(harmless.raw_os_error()) { Ok(()) } else { Err(error) })
}
