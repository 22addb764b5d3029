//! What names stand for, row by row of semantics A12.

mod story;

use domain::Command;
use domain::id::Uid;
use domain::names::{Found, Names, Target, Wanted};
use domain::spec::{Labels, Port, ServicePort, ServiceSpec, SetSpec, TargetPort};
use std::sync::Arc;
use story::{Story, key, labels, set};

/// A story whose names are kept up step by step, and compared with those that follow from the state at once.
#[derive(Debug)]
struct Told {
    story: Story,
    names: Names,
    seen: domain::State,
}

impl Told {
    fn new() -> Self {
        Self { story: Story::with_nodes(3), names: Names::default(), seen: domain::State::default() }
    }

    fn look(&mut self) -> &Names {
        let now = self.story.draft.state().clone();
        self.names.follow(&self.seen, &now);
        self.seen = now;
        assert_eq!(self.names, Names::of(&self.seen), "names kept up are those that follow from the state");
        &self.names
    }

    fn find(&mut self, name: &str) -> Found {
        self.look().find(name, Wanted::Address)
    }

    #[track_caller]
    fn serve(&mut self, name: &str, spec: ServiceSpec) {
        self.story.ask(service(name, spec));
        self.look();
    }

    fn addresses(&self, pods: &[&str]) -> Found {
        let address = |pod: &&str| self.story.pod(pod).and_then(|p| p.binding.as_ref()).expect("it is placed").address;
        Found::Addresses(pods.iter().map(address).collect())
    }
}

fn service(name: &str, spec: ServiceSpec) -> Command {
    let (labels, annotations) = (Labels::new(), Labels::new());
    Command::ApplyService { service: key(name), labels, annotations, spec, address: None }
}

fn port(name: &str, port: u32, target: Option<TargetPort>) -> ServicePort {
    ServicePort { name: name.into(), port, protocol: "TCP".into(), target }
}

fn web() -> ServiceSpec {
    let named = Some(TargetPort::Named("http".into()));
    ServiceSpec {
        selector: labels(&[("app", "web")]),
        ports: vec![port("http", 80, named), port("", 81, Some(TargetPort::Number(8081)))],
        ..ServiceSpec::default()
    }
}

fn pods(replicas: u32) -> SetSpec {
    let mut spec = set(replicas);
    let template = Arc::make_mut(&mut spec.template);
    template.containers[0].ports = vec![Port { name: "http".into(), port: 8080, protocol: "TCP".into() }];
    spec.policy = domain::spec::PodManagement::Parallel;
    spec
}

/// Four pods, of which web-3 never gets ready.
fn three_of_four() -> Told {
    let mut told = Told::new();
    told.story.broken.insert("web-3".to_owned());
    told.serve("web", web());
    told.story.apply("web", pods(4));
    told.look();
    told.story.settle();
    told
}

#[test]
fn a12_172_a_headless_service_stands_for_its_ready_pods() {
    let mut told = three_of_four();
    assert_eq!(told.find("web.default.svc"), told.addresses(&["web-0", "web-1", "web-2"]));
    assert_eq!(told.look().find("web.default.svc", Wanted::Other), Found::NoRecord);
    told.story.scale("web", 0);
    told.story.settle();
    assert_eq!(told.find("web.default.svc"), Found::NoName);
    assert_eq!(told.find("other.default.svc"), Found::NoName);
    assert_eq!((told.find("default.svc"), told.find("none.svc")), (Found::NoRecord, Found::NoName));
    assert_eq!((told.find(""), told.find("svc"), told.find("pod")), (Found::NoRecord, Found::NoRecord, Found::NoName));
}

#[test]
fn a12_173_a_pod_that_is_not_ready_has_no_record_unless_its_service_names_all() {
    let mut told = three_of_four();
    assert_eq!(told.find("web-0.web.default.svc"), told.addresses(&["web-0"]));
    assert_eq!(told.find("web-3.web.default.svc"), Found::NoName);
    told.serve("web", ServiceSpec { publish_not_ready: true, ..web() });
    assert_eq!(told.find("web-3.web.default.svc"), told.addresses(&["web-3"]));
    assert_eq!(told.find("web.default.svc"), told.addresses(&["web-0", "web-1", "web-2", "web-3"]));
}

#[test]
fn a12_173_a_pod_that_is_to_go_leaves_the_records_at_once() {
    let mut told = three_of_four();
    told.story.delete_pod("web-1");
    assert_eq!(told.find("web-1.web.default.svc"), Found::NoName);
    assert_eq!(told.find("web.default.svc"), told.addresses(&["web-0", "web-2"]));
}

#[test]
fn a12_174_a_named_port_has_service_records_and_addresses_lead_back_to_names() {
    let mut told = three_of_four();
    let Found::Services(targets) = told.look().find("_http._tcp.web.default.svc", Wanted::Service) else {
        panic!("there are service records");
    };
    let hosts: Vec<_> = targets.iter().map(|target| (target.host.as_str(), target.port)).collect();
    let host = |ordinal| format!("web-{ordinal}.web.default.svc.cluster.local");
    assert_eq!(hosts, [(host(0).as_str(), 8080), (host(1).as_str(), 8080), (host(2).as_str(), 8080)]);
    let Target { host, address, .. } = targets[1].clone();
    assert_eq!(told.look().name_of(address), Some(host));
    for none in ["_http._udp.web.default.svc", "_._tcp.web.default.svc", "_other._tcp.web.default.svc"] {
        assert_eq!(told.look().find(none, Wanted::Service), Found::NoName, "{none}");
    }
    assert_eq!(told.look().find("_tcp.web.default.svc", Wanted::Service), Found::NoRecord);
    assert_eq!(told.look().find("_http._tcp.web.default.svc", Wanted::Address), Found::NoRecord);
    let broken = told.story.pod("web-3").and_then(|pod| pod.binding.as_ref()).expect("it is placed").address;
    assert_eq!(told.look().name_of(broken), None);
}

#[test]
fn a12_175_a_pod_that_is_replaced_has_the_same_name_and_another_address() {
    let mut told = three_of_four();
    let (before, uid) = (told.find("web-1.web.default.svc"), told.story.uid("web-1"));
    told.story.delete_pod("web-1");
    told.story.settle();
    assert_ne!(told.story.uid("web-1"), uid);
    let after = told.find("web-1.web.default.svc");
    assert_eq!(after, told.addresses(&["web-1"]));
    assert_ne!(after, before);
}

#[test]
fn a12_176_only_the_service_that_a_set_names_gives_its_pods_names() {
    let mut told = three_of_four();
    told.serve("other", web());
    assert_eq!(told.find("web-0.other.default.svc"), Found::NoName);
    assert_eq!(told.find("other.default.svc"), told.addresses(&["web-0", "web-1", "web-2"]));
    let Found::Services(targets) = told.look().find("_http._tcp.other.default.svc", Wanted::Service) else {
        panic!("its pods are called by their addresses");
    };
    let by_address = targets[0].host.strip_suffix(".cluster.local").expect("it is in the domain").to_owned();
    assert_eq!(told.find(&by_address), told.addresses(&["web-0"]));
    // With an address of its own, a service is one host.
    told.story.ask(Command::DeleteService { service: key("web") });
    told.serve("web", ServiceSpec { has_address: true, ..web() });
    assert_eq!(told.find("web-0.web.default.svc"), Found::NoName);
    let Found::Addresses(own) = told.find("web.default.svc") else { panic!("it has an address") };
    assert!(own.len() == 1 && domain::address::SERVICES.has(own[0]), "{own:?}");
    assert_eq!(told.look().name_of(own[0]).as_deref(), Some("web.default.svc.cluster.local"));
    let host = "web.default.svc.cluster.local".to_owned();
    let found = told.look().find("_http._tcp.web.default.svc", Wanted::Service);
    assert_eq!(found, Found::Services(vec![Target { host, address: own[0], port: 80 }]));
}

#[test]
fn a12_177_held_pods_leave_the_records() {
    let mut told = three_of_four();
    let node = told.story.node_of("web-1");
    told.story.partition(&node);
    assert_eq!(told.find("web-1.web.default.svc"), Found::NoName);
    let on_node = |pod: &&str| told.story.node_of(pod) != node;
    let others: Vec<&str> = ["web-0", "web-1", "web-2"].into_iter().filter(on_node).collect();
    assert_eq!(told.find("web.default.svc"), told.addresses(&others));
    let running: Vec<Uid> = told.story.draft.state().pods_on(&node.as_str().into()).map(|(_, p)| p.meta.uid).collect();
    told.story.heal(&node, &running);
    assert_eq!(told.find("web-1.web.default.svc"), told.addresses(&["web-1"]));
}

#[test]
fn a12_178_a_service_may_choose_one_pod_by_its_name() {
    let mut told = three_of_four();
    let selector = labels(&[(domain::LABEL_POD_NAME, "web-1")]);
    told.serve("first", ServiceSpec { selector, ..web() });
    assert_eq!(told.find("first.default.svc"), told.addresses(&["web-1"]));
    told.serve("nobody", ServiceSpec { selector: Labels::new(), ..web() });
    assert_eq!(told.find("nobody.default.svc"), Found::NoName);
}

#[test]
fn a_service_keeps_its_address_and_two_never_have_the_same() {
    let mut told = Told::new();
    let spec = ServiceSpec { has_address: true, ..web() };
    told.serve("a", spec.clone());
    told.serve("b", spec.clone());
    let address = |told: &Told, name: &str| told.story.draft.state().services[&key(name)].address;
    let (a, b) = (address(&told, "a"), address(&told, "b"));
    assert_ne!(a, b);
    told.serve("a", ServiceSpec { publish_not_ready: true, ..spec.clone() });
    assert_eq!(address(&told, "a"), a);
    let ask = |name: &str, spec: &ServiceSpec, address| Command::ApplyService {
        service: key(name),
        labels: Labels::new(),
        annotations: Labels::new(),
        spec: spec.clone(),
        address,
    };
    for (name, wanted) in [("a", Some(b)), ("c", Some(b)), ("c", Some(0x7f40_0001)), ("c", Some(0x0a00_0001))] {
        assert!(told.story.submit(ask(name, &spec, wanted)).is_err(), "{name} {wanted:?}");
    }
    assert!(told.story.submit(ask("a", &web(), None)).is_err(), "a service does not become headless");
    told.story.ask(Command::DeleteService { service: key("b") });
    told.story.ask(ask("c", &spec, Some(b)));
    assert_eq!(address(&told, "c"), b);
}

#[test]
fn what_changed_is_told_in_pieces_and_amounts_to_the_whole() {
    let mut told = three_of_four();
    for number in 0..5 {
        told.serve(&format!("s{number}"), web());
    }
    let mut other = Names::default();
    let tell = |other: &mut Names, news: Vec<domain::names::NamesUpdate>| {
        let count = news.len();
        let done: Vec<bool> = news.into_iter().map(|update| other.update(update)).collect();
        assert_eq!(done.iter().filter(|is_done| **is_done).count(), usize::from(0 < count));
        count
    };
    let first = told.look().clone();
    assert_eq!(tell(&mut other, first.news_since(None, 4)), 2);
    assert_eq!(other, first);
    told.story.ask(Command::DeleteService { service: key("s0") });
    told.story.delete_pod("web-0");
    let second = told.look().clone();
    assert_eq!(tell(&mut other, second.news_since(Some(&first), 4)), 2);
    assert_eq!(other, second);
    assert_eq!(second.news_since(Some(&second), 4), []);
    assert_eq!(Names::default().news_since(None, 4).len(), 1, "that there is nothing is news, too");
}

#[test]
fn pods_of_a_node_with_a_range_of_its_own_have_addresses_of_it() {
    let mut story = Story::with_nodes(2);
    let range: domain::address::AddressRange = "10.77.1.0/29".parse().expect("it is one");
    let node = story.draft.state().nodes.get(&domain::id::NodeName::from("n1")).expect("it is there");
    let registration = domain::event::Registration {
        boot_id: node.boot_id.clone(),
        machine_id: node.machine_id.clone(),
        capacity: node.capacity,
        pods_max: 5,
        pod_range: Some(range),
        ..domain::event::Registration::default()
    };
    story.ask(Command::RegisterNode { node: "n1".into(), registration, running: Vec::new() });
    story.apply("web", pods(12));
    story.settle();
    let bindings: Vec<_> = story.draft.state().pods.values().filter_map(|pod| pod.binding.clone()).collect();
    let mut on_n1: Vec<u32> = bindings.iter().filter(|b| b.node.as_str() == "n1").map(|b| b.address).collect();
    on_n1.sort_unstable();
    on_n1.dedup();
    assert_eq!(on_n1.len(), 5, "each has its own: {bindings:?}");
    assert!(on_n1.iter().all(|address| range.has(*address)), "{on_n1:?}");
    let elsewhere: Vec<_> = bindings.iter().filter(|b| b.node.as_str() != "n1").collect();
    assert_eq!(elsewhere.len(), 7);
    assert!(elsewhere.iter().all(|binding| domain::address::PODS.has(binding.address)));
}
