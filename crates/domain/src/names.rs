//! What names stand for: the pods behind each service, and the records that follow from them (semantics A12).
//! A view of the state, kept up with it step by step; never stored, and never asked by a planner.

use crate::id::{Key, Name, NodeName, Revision, Uid};
use crate::object::{Phase, Pod, Service};
use crate::spec::{ServicePort, ServiceSpec, TargetPort};
use crate::state::State;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The domain below which everything of a cluster has its name.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// A pod behind a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Which pod of its name.
    pub uid: Uid,
    /// Its address, as a number.
    pub address: u32,
    /// Where it runs.
    pub node: NodeName,
    /// Whether names lead to it: it is ready and is not to go, or the service names all of its pods.
    pub is_named: bool,
    /// Whether it has a name of its own below the service's: the service is the one that its set names.
    pub is_member: bool,
    /// Its port behind each of the service's, in their order; 0 where it has none of that name.
    pub ports: Vec<u32>,
}

/// A service, as those who look names up see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedService {
    /// Its own address, as a number; 0 for a headless one.
    pub address: u32,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// The pods behind it that have an address, named or not, by their names.
    pub pods: OrdMap<Name, Endpoint>,
}

impl NamedService {
    /// A service with the pods that are behind it in a state.
    #[must_use]
    pub fn of(state: &State, key: &Key, service: &Service) -> Self {
        let first = Key { namespace: key.namespace.clone(), name: Name::default() };
        let pods = state.pods.range(first..).take_while(|(pod, _)| pod.namespace == key.namespace);
        let pods = pods.filter_map(|(pod_key, pod)| Some((pod_key.name.clone(), endpoint(key, &service.spec, pod)?)));
        Self { address: service.address, ports: service.spec.ports.clone(), pods: pods.collect() }
    }

    /// The pods that names lead to.
    pub fn named(&self) -> impl Iterator<Item = (&Name, &Endpoint)> {
        self.pods.iter().filter(|(_, endpoint)| endpoint.is_named)
    }
}

/// What one change of names amounts to. Level-triggered: a service is given as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamesUpdate {
    /// The revision of the state that they are true at.
    pub revision: Revision,
    /// Whether what was known before is to be forgotten.
    pub is_whole: bool,
    /// Services that are new or different.
    pub services: Vec<(Key, Arc<NamedService>)>,
    /// Services that are gone.
    pub removed: Vec<Key>,
    /// Whether more of the same change follows, before which nothing of it counts.
    pub has_more: bool,
}

/// All names of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The revision of the state that they are true at.
    pub revision: Revision,
    services: OrdMap<Key, Arc<NamedService>>,
    /// Whose each address is: a pod's name below the service that gives it one, or no pod's but the service's own.
    addresses: OrdMap<u32, (Key, Name)>,
}

/// A kind of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Addresses.
    Address,
    /// Who serves a port.
    Service,
    /// Any other kind; no name has one.
    Other,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// These addresses.
    Addresses(Vec<u32>),
    /// These hosts, each with a port and its address.
    Services(Vec<Target>),
    /// There is such a name, and no record of the kind.
    NoRecord,
    /// There is no such name now.
    NoName,
}

/// A host that serves a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its whole name.
    pub host: String,
    /// Its address, as a number.
    pub address: u32,
    /// The port.
    pub port: u32,
}

impl Names {
    /// The names that follow from a state.
    #[must_use]
    pub fn of(state: &State) -> Self {
        let mut names = Self::default();
        names.follow(&State::default(), state);
        names
    }

    /// Goes on from one state to a later one, and says whether names differ: looks only at what differs between both.
    pub fn follow(&mut self, before: &State, after: &State) -> bool {
        let mut has_changed = false;
        for change in before.services.diff(&after.services) {
            has_changed |= match change {
                DiffItem::Add(key, service) | DiffItem::Update { new: (key, service), .. } => {
                    self.put(key, NamedService::of(after, key, service))
                }
                DiffItem::Remove(key, _) => self.remove(key),
            };
        }
        for change in before.pods.diff(&after.pods) {
            has_changed |= match change {
                DiffItem::Add(key, pod) | DiffItem::Update { new: (key, pod), .. } => {
                    self.put_pod(after, key, Some(pod))
                }
                DiffItem::Remove(key, _) => self.put_pod(after, key, None),
            };
        }
        self.revision = after.revision;
        has_changed
    }

    /// Takes over what another has of a change; true unless more of it follows.
    pub fn update(&mut self, update: NamesUpdate) -> bool {
        if update.is_whole {
            *self = Self::default();
        }
        for key in &update.removed {
            self.remove(key);
        }
        for (key, service) in update.services {
            self.put(&key, Arc::unwrap_or_clone(service));
        }
        self.revision = update.revision;
        !update.has_more
    }

    /// What somebody who knows `known` has to be told, in pieces of at most `services_max` services.
    #[must_use]
    pub fn news_since(&self, known: Option<&Self>, services_max: usize) -> Vec<NamesUpdate> {
        let nothing = OrdMap::new();
        let before = known.map_or(&nothing, |known| &known.services);
        let (mut services, mut removed) = (Vec::new(), Vec::new());
        for change in before.diff(&self.services) {
            match change {
                DiffItem::Add(key, service) | DiffItem::Update { new: (key, service), .. } => {
                    services.push((key.clone(), Arc::clone(service)));
                }
                DiffItem::Remove(key, _) => removed.push(key.clone()),
            }
        }
        let revision = self.revision;
        let mut news: Vec<NamesUpdate> = services
            .chunks(services_max.max(1))
            .map(|chunk| NamesUpdate { revision, has_more: true, services: chunk.to_vec(), ..NamesUpdate::default() })
            .collect();
        if news.is_empty() && (known.is_none() || !removed.is_empty()) {
            news.push(NamesUpdate { revision, ..NamesUpdate::default() });
        }
        if let Some(first) = news.first_mut() {
            first.is_whole = known.is_none();
            first.removed = removed;
        }
        if let Some(last) = news.last_mut() {
            last.has_more = false;
        }
        news
    }

    /// A service.
    #[must_use]
    pub fn service(&self, key: &Key) -> Option<&NamedService> {
        self.services.get(key).map(|service| &**service)
    }

    /// All services, in key order.
    pub fn services(&self) -> impl Iterator<Item = (&Key, &NamedService)> {
        self.services.iter().map(|(key, service)| (key, &**service))
    }

    fn services_of<'a>(&'a self, namespace: &'a Name) -> impl Iterator<Item = (&'a Key, &'a Arc<NamedService>)> {
        let first = Key { namespace: namespace.clone(), name: Name::default() };
        self.services.range(first..).take_while(move |(key, _)| key.namespace == *namespace)
    }

    fn put(&mut self, key: &Key, service: NamedService) -> bool {
        if self.service(key) == Some(&service) {
            return false;
        }
        self.remove(key);
        if service.address != 0 {
            self.addresses.insert(service.address, (key.clone(), Name::default()));
        }
        for (pod, endpoint) in service.pods.iter().filter(|(_, endpoint)| endpoint.is_named && endpoint.is_member) {
            self.addresses.insert(endpoint.address, (key.clone(), pod.clone()));
        }
        self.services.insert(key.clone(), Arc::new(service));
        true
    }

    fn remove(&mut self, key: &Key) -> bool {
        let Some(former) = self.services.remove(key) else { return false };
        self.addresses.remove(&former.address);
        for endpoint in former.pods.values().filter(|endpoint| endpoint.is_member) {
            self.addresses.remove(&endpoint.address);
        }
        true
    }

    fn put_pod(&mut self, state: &State, key: &Key, pod: Option<&Arc<Pod>>) -> bool {
        let mut changes = Vec::new();
        for (service_key, known) in self.services_of(&key.namespace) {
            let spec = state.services.get(service_key).map(|service| &service.spec);
            let now = pod.zip(spec).and_then(|(pod, spec)| endpoint(service_key, spec, pod));
            if known.pods.get(&key.name) != now.as_ref() {
                changes.push((service_key.clone(), now));
            }
        }
        let has_changed = !changes.is_empty();
        for (service_key, now) in changes {
            let Some(service) = self.services.get_mut(&service_key) else { continue };
            let service = Arc::make_mut(service);
            if let Some(former) = service.pods.remove(&key.name).filter(|former| former.is_member) {
                self.addresses.remove(&former.address);
            }
            let Some(now) = now else { continue };
            if now.is_named && now.is_member {
                self.addresses.insert(now.address, (service_key, key.name.clone()));
            }
            service.pods.insert(key.name.clone(), now);
        }
        has_changed
    }

    /// What a name below [`CLUSTER_DOMAIN`] stands for. `name` is in lower case, without the domain and the last dot.
    #[must_use]
    pub fn find(&self, name: &str, wanted: Wanted) -> Found {
        let labels: Vec<&str> = name.rsplit('.').filter(|label| !label.is_empty()).collect();
        match labels.as_slice() {
            [] | ["svc"] => Found::NoRecord,
            ["svc", namespace] => match self.services_of(&Name::new(namespace)).next() {
                Some(_) => Found::NoRecord,
                None => Found::NoName,
            },
            ["svc", namespace, service, rest @ ..] => {
                let key = Key::new(namespace, service);
                self.services.get(&key).map_or(Found::NoName, |found| found.find(&key, rest, wanted))
            }
            _ => Found::NoName,
        }
    }

    /// The whole name of whoever has an address.
    #[must_use]
    pub fn name_of(&self, address: u32) -> Option<String> {
        let (service, pod) = self.addresses.get(&address)?;
        Some(if pod.as_str().is_empty() { service_host(service) } else { pod_host(service, pod) })
    }
}

impl NamedService {
    /// What stands below the service's name; `rest` from the right.
    fn find(&self, key: &Key, rest: &[&str], wanted: Wanted) -> Found {
        match rest {
            [] => self.record(wanted, Wanted::Address, || {
                if self.address != 0 {
                    return Found::Addresses(vec![self.address]);
                }
                Found::Addresses(self.named().map(|(_, endpoint)| endpoint.address).collect())
            }),
            [protocol @ ("_tcp" | "_udp")] => {
                let is_spoken = |port: &ServicePort| is_protocol(port, protocol) && !port.name.as_str().is_empty();
                let is_empty = self.address == 0 && self.named().next().is_none();
                if is_empty || !self.ports.iter().any(is_spoken) { Found::NoName } else { Found::NoRecord }
            }
            [protocol @ ("_tcp" | "_udp"), name] => {
                let named = |port: &ServicePort| {
                    is_protocol(port, protocol) && name.strip_prefix('_') == Some(port.name.as_str())
                };
                let Some(index) = self.ports.iter().position(|port| !port.name.as_str().is_empty() && named(port))
                else {
                    return Found::NoName;
                };
                self.record(wanted, Wanted::Service, || Found::Services(self.targets(key, index)))
            }
            [host] => {
                let address = self.named().find(|(pod, endpoint)| own_label(pod, endpoint) == **host);
                match address {
                    // Pods of a service with an address of its own have no names below it (A12-176).
                    Some((_, endpoint)) if self.address == 0 => {
                        self.record(wanted, Wanted::Address, || Found::Addresses(vec![endpoint.address]))
                    }
                    _ => Found::NoName,
                }
            }
            _ => Found::NoName,
        }
    }

    /// A record of one kind, where there is anything to be said.
    fn record(&self, wanted: Wanted, kind: Wanted, found: impl FnOnce() -> Found) -> Found {
        match found() {
            Found::Addresses(all) if all.is_empty() => Found::NoName,
            Found::Services(all) if all.is_empty() => Found::NoName,
            _ if wanted != kind => Found::NoRecord,
            found => found,
        }
    }

    fn targets(&self, key: &Key, index: usize) -> Vec<Target> {
        if self.address != 0 {
            let port = self.ports[index].port;
            return vec![Target { host: service_host(key), address: self.address, port }];
        }
        let target = |(pod, endpoint): (&Name, &Endpoint)| {
            let port = endpoint.ports.get(index).copied().filter(|port| *port != 0)?;
            let host = format!("{}.{}", own_label(pod, endpoint), service_host(key));
            Some(Target { host, address: endpoint.address, port })
        };
        self.named().filter_map(target).collect()
    }
}

fn is_protocol(port: &ServicePort, label: &str) -> bool {
    label.strip_prefix('_').is_some_and(|name| name.eq_ignore_ascii_case(port.protocol.as_str()))
}

/// What a pod is called below a service: its own name, or its address where it belongs to another one.
fn own_label(pod: &Name, endpoint: &Endpoint) -> String {
    if endpoint.is_member {
        return pod.to_string();
    }
    Ipv4Addr::from(endpoint.address).to_string().replace('.', "-")
}

/// The whole name of a service.
#[must_use]
pub fn service_host(service: &Key) -> String {
    format!("{}.{}.svc.{CLUSTER_DOMAIN}", service.name, service.namespace)
}

/// The whole name of a pod below its service.
#[must_use]
pub fn pod_host(service: &Key, pod: &Name) -> String {
    format!("{pod}.{}", service_host(service))
}

/// A pod as one of a service's, if it is one and can be reached at all.
fn endpoint(service: &Key, spec: &ServiceSpec, pod: &Pod) -> Option<Endpoint> {
    let binding = pod.binding.as_ref()?;
    let is_over = matches!(pod.status.phase, Phase::Failed | Phase::Succeeded);
    // A service without a selector has no pods.
    let is_chosen = !spec.selector.is_empty()
        && spec.selector.iter().all(|(label, value)| pod.meta.labels.get(label) == Some(value));
    if is_over || !is_chosen {
        return None;
    }
    Some(Endpoint {
        uid: pod.meta.uid,
        address: binding.address,
        node: binding.node.clone(),
        is_named: spec.publish_not_ready || (pod.is_ready() && pod.deletion.is_none()),
        is_member: !spec.has_address && pod.service_name == service.name,
        ports: spec.ports.iter().map(|port| target_port(port, pod)).collect(),
    })
}

fn target_port(port: &ServicePort, pod: &Pod) -> u32 {
    match &port.target {
        None => port.port,
        Some(TargetPort::Number(number)) => *number,
        Some(TargetPort::Named(name)) => {
            let mut ports = pod.template.containers.iter().flat_map(|container| &container.ports);
            ports.find(|own| own.name == *name && own.protocol == port.protocol).map_or(0, |own| own.port)
        }
    }
}
