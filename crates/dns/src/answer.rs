//! One question, and the answer to it as far as the cluster knows one. Never touches a socket.

use domain::Names;
use domain::address::{PODS, SERVICES};
use domain::names::{CLUSTER_DOMAIN, Found, Target, Wanted};
use hickory_proto::op::{Message, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, PTR, SOA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use std::net::Ipv4Addr;

/// How long an answer may be kept: it outlives its truth by no more than this.
pub const TTL_SECONDS: u32 = 1;
/// How long it may be kept that there is nothing: not at all. A pod that is not ready yet will be (semantics A12-175).
pub const NEGATIVE_TTL_SECONDS: u32 = 0;
/// More addresses than this are not given for one name: they would not fit a message.
const ADDRESSES_MAX: usize = 1_000;
/// More targets than this are not given for one port.
const TARGETS_MAX: usize = 250;

/// What is to become of a question.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// It is answered with this.
    Answer(Message),
    /// It is not about the cluster.
    Forward,
}

/// Answers a question.
pub(crate) fn answer(names: &Names, question: &Message) -> Reply {
    let [query] = question.queries.as_slice() else {
        return Reply::Answer(failure(question, ResponseCode::FormErr));
    };
    if question.metadata.op_code != OpCode::Query {
        return Reply::Answer(failure(question, ResponseCode::NotImp));
    }
    if query.query_class() != DNSClass::IN {
        return Reply::Answer(failure(question, ResponseCode::Refused));
    }
    let name = query.name().to_lowercase().to_ascii();
    let name = name.trim_end_matches('.');
    if let Some(below) = below_domain(name) {
        return Reply::Answer(in_zone(names, question, below));
    }
    // Addresses of nodes' own ranges are told by their pods: of those that nobody has, others may know more.
    let is_ours = |address: u32| PODS.has(address) || SERVICES.has(address) || names.name_of(address).is_some();
    match reversed(name).filter(|address| is_ours(*address)) {
        Some(address) => Reply::Answer(reverse(names, question, address)),
        None => Reply::Forward,
    }
}

/// The answer to a question that is not answered.
pub(crate) fn failure(question: &Message, code: ResponseCode) -> Message {
    let mut message = begun(question);
    message.metadata.authoritative = false;
    message.metadata.response_code = code;
    message
}

fn begun(question: &Message) -> Message {
    let mut message = Message::response(question.metadata.id, question.metadata.op_code);
    message.metadata = Metadata::response_from_request(&question.metadata);
    message.metadata.authoritative = true;
    message.metadata.recursion_available = true;
    message.queries.clone_from(&question.queries);
    if let Some(asked) = &question.edns {
        let mut edns = hickory_proto::op::Edns::new();
        edns.set_max_payload(asked.max_payload());
        message.set_edns(edns);
    }
    message
}

/// The part of a name before the cluster's domain; empty for the domain itself.
fn below_domain(name: &str) -> Option<&str> {
    let below = name.strip_suffix(CLUSTER_DOMAIN)?;
    if below.is_empty() { Some("") } else { below.strip_suffix('.') }
}

/// The address that a name of `in-addr.arpa` asks for.
fn reversed(name: &str) -> Option<u32> {
    let parts: Vec<&str> = name.strip_suffix(".in-addr.arpa")?.split('.').collect();
    let [d, c, b, a] = parts.as_slice() else { return None };
    let byte = |text: &&str| text.parse::<u8>().ok();
    Some(u32::from_be_bytes([byte(a)?, byte(b)?, byte(c)?, byte(d)?]))
}

fn in_zone(names: &Names, question: &Message, below: &str) -> Message {
    let query = &question.queries[0];
    let mut message = begun(question);
    if below.is_empty() && query.query_type() == RecordType::SOA {
        message.add_answer(start_of_authority(names));
        return message;
    }
    let wanted = match query.query_type() {
        RecordType::A => Wanted::Address,
        RecordType::SRV => Wanted::Service,
        _ => Wanted::Other,
    };
    match names.find(below, wanted) {
        Found::Addresses(mut addresses) => {
            take_turns(&mut addresses, question.metadata.id);
            let records = addresses.iter().take(ADDRESSES_MAX).map(|address| host(query.name().clone(), *address));
            message.add_answers(records.collect::<Vec<_>>());
        }
        Found::Services(mut targets) => {
            take_turns(&mut targets, question.metadata.id);
            add_targets(&mut message, query.name(), &targets);
        }
        Found::NoRecord => {
            message.add_authority(start_of_authority(names));
        }
        Found::NoName => {
            message.metadata.response_code = ResponseCode::NXDomain;
            message.add_authority(start_of_authority(names));
        }
    }
    message
}

/// Clients take the first: each answer begins with another one.
fn take_turns<T>(all: &mut [T], id: u16) {
    if !all.is_empty() {
        let by = usize::from(id) % all.len();
        all.rotate_left(by);
    }
}

fn add_targets(message: &mut Message, name: &Name, targets: &[Target]) {
    for target in targets.iter().take(TARGETS_MAX) {
        let Ok(host_name) = Name::from_ascii(format!("{}.", target.host)) else { continue };
        let port = u16::try_from(target.port).unwrap_or_default();
        let service = RData::SRV(SRV::new(0, 100, port, host_name.clone()));
        message.add_answer(Record::from_rdata(name.clone(), TTL_SECONDS, service));
        message.add_additional(host(host_name, target.address));
    }
}

fn reverse(names: &Names, question: &Message, address: u32) -> Message {
    let query = &question.queries[0];
    let mut message = begun(question);
    let found = names.name_of(address).and_then(|name| Name::from_ascii(format!("{name}.")).ok());
    match found {
        Some(name) if query.query_type() == RecordType::PTR => {
            message.add_answer(Record::from_rdata(query.name().clone(), TTL_SECONDS, RData::PTR(PTR(name))));
        }
        Some(_) => {}
        None => message.metadata.response_code = ResponseCode::NXDomain,
    }
    message
}

fn host(name: Name, address: u32) -> Record {
    Record::from_rdata(name, TTL_SECONDS, RData::A(A(Ipv4Addr::from(address))))
}

/// Says for how long it may be kept that there is nothing.
fn start_of_authority(names: &Names) -> Record {
    let name = |text: &str| Name::from_ascii(text).expect("it is a name");
    let zone = format!("{CLUSTER_DOMAIN}.");
    let (server, contact) = (format!("ns.dns.{zone}"), format!("hostmaster.{zone}"));
    // A serial number wraps around; nobody copies the zone by it.
    let serial = u32::try_from(names.revision.0 & u64::from(u32::MAX)).unwrap_or_default();
    let soa = SOA::new(name(&server), name(&contact), serial, 60, 60, 60, NEGATIVE_TTL_SECONDS);
    Record::from_rdata(name(&zone), NEGATIVE_TTL_SECONDS, RData::SOA(soa))
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::id::Key;
    use domain::names::{Endpoint, NamedService, NamesUpdate};
    use domain::spec::ServicePort;
    use hickory_proto::op::{MessageType, Query};
    use std::sync::Arc;

    fn names() -> Names {
        names_from(0x7f40_0001)
    }

    fn names_from(first: u32) -> Names {
        let endpoint = |ordinal: u32| Endpoint {
            address: first + ordinal,
            is_named: ordinal < 2,
            is_member: true,
            ports: vec![8080],
            ..Endpoint::default()
        };
        let port = ServicePort { name: "http".into(), port: 80, protocol: "TCP".into(), target: None };
        let pods =
            (0..3).map(|ordinal| (domain::id::Name::from(format!("web-{ordinal}")), endpoint(ordinal))).collect();
        let service = Arc::new(NamedService { address: 0, ports: vec![port], pods });
        let mut names = Names::default();
        names.update(NamesUpdate { services: vec![(Key::new("default", "web"), service)], ..NamesUpdate::default() });
        names
    }

    fn ask(name: &str, kind: RecordType) -> Message {
        let mut question = Message::new(7, MessageType::Query, OpCode::Query);
        question.metadata.recursion_desired = true;
        question.add_query(Query::query(Name::from_ascii(name).expect("it is a name"), kind));
        match answer(&names(), &question) {
            Reply::Answer(message) => message,
            Reply::Forward => panic!("{name} is the cluster's"),
        }
    }

    /// The kinds and contents of the records in the answer, in order.
    fn said(message: &Message) -> Vec<String> {
        let mut said: Vec<String> = message.answers.iter().map(|record| record.data.to_string()).collect();
        said.sort();
        said
    }

    #[test]
    fn names_below_the_domain_are_answered_however_they_are_written() {
        for name in ["web-0.web.default.svc.cluster.local.", "WEB-0.Web.default.svc.Cluster.Local."] {
            let message = ask(name, RecordType::A);
            assert_eq!(said(&message), ["127.64.0.1"]);
            assert!(message.metadata.authoritative && message.metadata.recursion_available);
            assert_eq!(message.answers[0].ttl, TTL_SECONDS);
        }
        assert_eq!(said(&ask("web.default.svc.cluster.local.", RecordType::A)), ["127.64.0.1", "127.64.0.2"]);
    }

    #[test]
    fn that_there_is_nothing_may_not_be_kept() {
        let cases = [
            ("web-2.web.default.svc.cluster.local.", RecordType::A, ResponseCode::NXDomain),
            ("web-0.web.default.svc.cluster.local.", RecordType::AAAA, ResponseCode::NoError),
            ("default.svc.cluster.local.", RecordType::A, ResponseCode::NoError),
        ];
        for (name, kind, code) in cases {
            let message = ask(name, kind);
            assert_eq!((message.metadata.response_code, message.answers.len()), (code, 0), "{name}");
            let [soa] = message.authorities.as_slice() else { panic!("{name}: no authority") };
            let RData::SOA(content) = &soa.data else { panic!("{name}: not a SOA") };
            assert_eq!((soa.ttl, content.minimum), (0, 0), "{name}");
        }
    }

    #[test]
    fn ports_lead_to_hosts_and_addresses_back_to_names() {
        let message = ask("_http._tcp.web.default.svc.cluster.local.", RecordType::SRV);
        let host = |ordinal| format!("0 100 8080 web-{ordinal}.web.default.svc.cluster.local.");
        assert_eq!(said(&message), [host(0), host(1)]);
        assert_eq!(message.additionals.len(), 2, "their addresses come along");
        let back = ask("2.0.64.127.in-addr.arpa.", RecordType::PTR);
        assert_eq!(said(&back), ["web-1.web.default.svc.cluster.local."]);
        assert_eq!(ask("3.0.64.127.in-addr.arpa.", RecordType::PTR).metadata.response_code, ResponseCode::NXDomain);
    }

    #[test]
    fn addresses_of_a_nodes_own_range_lead_back_while_somebody_has_them() {
        let asked = |name: &str| {
            let mut question = Message::new(7, MessageType::Query, OpCode::Query);
            question.add_query(Query::query(Name::from_ascii(name).expect("it is a name"), RecordType::PTR));
            answer(&names_from(0x0a4d_0101), &question)
        };
        let Reply::Answer(back) = asked("2.1.77.10.in-addr.arpa.") else { panic!("it is a pod's") };
        assert_eq!(said(&back), ["web-1.web.default.svc.cluster.local."]);
        assert!(matches!(asked("9.1.77.10.in-addr.arpa."), Reply::Forward), "others may know");
    }

    #[test]
    fn everything_else_is_passed_on() {
        for name in ["example.org.", "cluster.local.example.org.", "mycluster.local.", "1.0.0.127.in-addr.arpa."] {
            let mut question = Message::new(7, MessageType::Query, OpCode::Query);
            question.add_query(Query::query(Name::from_ascii(name).expect("it is a name"), RecordType::A));
            assert!(matches!(answer(&names(), &question), Reply::Forward), "{name}");
        }
    }
}
