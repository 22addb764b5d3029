//! The fold, for what belongs to the cluster rather than to a set: classes, services, budgets,
//! configuration, nodes, servers.

use crate::config::Config;
use crate::event::{Event, Registration};
use crate::id::{Incarnation, NodeName, ServerId};
use crate::object::{Budget, Class, Node, Server, Service, Shutdown, Unreachable};
use crate::spec::Labels;
use crate::state::{State, load};
use std::sync::Arc;

impl State {
    pub(super) fn apply_config(&mut self, event: &Event) {
        match event {
            Event::ClassApplied { class, spec, labels, annotations } => {
                let mut meta = self.new_meta(labels, annotations);
                if let Some(old) = self.classes.get(class) {
                    meta.inherit(&old.meta);
                }
                self.classes.insert(class.clone(), Arc::new(Class { meta, spec: spec.clone() }));
            }
            Event::ClassRemoved { class } => {
                self.classes.remove(class);
            }
            Event::ServiceApplied { service, labels, annotations, spec, address } => {
                let meta = self.new_meta(labels, annotations);
                let mut record = Service { meta, spec: spec.clone(), address: *address };
                match self.services.get_mut(service) {
                    Some(old) => {
                        record.meta.inherit(&old.meta);
                        self.index.addresses.remove(&old.address);
                        *old = Arc::new(record);
                    }
                    None => {
                        self.services.insert(service.clone(), Arc::new(record));
                    }
                }
                if *address != 0 {
                    self.index.addresses.insert(*address);
                }
            }
            Event::ServiceRemoved { service } => {
                if let Some(removed) = self.services.remove(service) {
                    self.index.addresses.remove(&removed.address);
                }
            }
            Event::BudgetApplied { budget, labels, annotations, spec } => {
                let mut meta = self.new_meta(labels, annotations);
                if let Some(old) = self.budgets.get(budget) {
                    meta.inherit(&old.meta);
                }
                self.budgets.insert(budget.clone(), Arc::new(Budget { meta, spec: spec.clone() }));
            }
            Event::BudgetRemoved { budget } => {
                self.budgets.remove(budget);
            }
            Event::ConfigApplied { kind, config, labels, annotations, spec } => {
                let key = (*kind, config.clone());
                let mut meta = self.new_meta(labels, annotations);
                if let Some(old) = self.configs.get(&key) {
                    meta.inherit(&old.meta);
                }
                self.configs.insert(key, Arc::new(Config { meta, spec: Arc::clone(spec) }));
            }
            Event::ConfigRemoved { kind, config } => {
                self.configs.remove(&(*kind, config.clone()));
            }
            _ => unreachable!("apply sends only events of classes, services, budgets and configuration here"),
        }
    }

    pub(super) fn apply_node(&mut self, event: &Event) {
        match event {
            Event::NodeRegistered { node, incarnation, registration } => {
                self.register(node, *incarnation, registration);
            }
            Event::NodeUpdated { node, registration } => self.node_mut(node, |n| n.describe(registration)),
            Event::NodeUnreachable { node, heard_at_ms } => {
                let (since, at_ms) = (self.revision, self.at_ms);
                self.node_mut(node, |n| {
                    n.unreachable = Some(Unreachable { since, at_ms, heard_at_ms: *heard_at_ms });
                });
            }
            Event::NodeReturned { node, leftovers } => self.node_mut(node, |n| {
                n.unreachable = None;
                n.leftovers.clone_from(leftovers);
            }),
            Event::LeftoversEnded { node, ended } => {
                self.node_mut(node, |n| n.leftovers.retain(|uid| !ended.contains(uid)));
            }
            Event::NodeCordoned { node } => self.node_mut(node, |n| n.is_cordoned = true),
            Event::NodeUncordoned { node } => self.node_mut(node, |n| n.is_cordoned = false),
            Event::NodeShutdownBegan { node, grace_ms } => {
                let (since, at_ms) = (self.revision, self.at_ms);
                self.node_mut(node, |n| n.shutdown = Some(Shutdown { since, at_ms, grace_ms: *grace_ms }));
            }
            Event::NodeShutdownEnded { node } => self.node_mut(node, |n| n.shutdown = None),
            Event::NodeMarked { node, labels, annotations } => self.node_mut(node, |n| {
                n.meta.labels.retain(|label, _| !n.own_labels.contains_key(label));
                n.meta.labels.extend(labels.clone());
                n.own_labels.clone_from(labels);
                n.meta.annotations.clone_from(annotations);
            }),
            Event::NodeRemoved { node } => {
                if let Some(removed) = self.nodes.remove(node) {
                    self.index.move_node(node, Some(load(&removed)), None);
                }
            }
            _ => unreachable!("apply sends only events of nodes here"),
        }
    }

    pub(super) fn apply_server(&mut self, event: &Event) {
        match event {
            Event::ServersFounded { servers } => {
                self.founders.clone_from(servers);
                servers
                    .iter()
                    .for_each(|server| self.insert_server(*server, Server { is_voter: true, ..Server::default() }));
            }
            Event::ServerAdded { server, address } => {
                self.insert_server(*server, Server { address: address.clone(), is_voter: false });
            }
            Event::ServerPromoted { server } => {
                if let Some(record) = self.servers.get_mut(server) {
                    record.is_voter = true;
                }
            }
            Event::ServerAddressed { server, address } => {
                if let Some(record) = self.servers.get_mut(server) {
                    record.address = address.clone();
                }
            }
            Event::ServerRemoved { server } => {
                self.servers.remove(server);
            }
            _ => unreachable!("apply sends only events of servers here"),
        }
    }

    fn insert_server(&mut self, server: ServerId, record: Server) {
        self.servers.insert(server, record);
        self.last_server = self.last_server.max(server);
    }

    fn register(&mut self, name: &NodeName, incarnation: Incarnation, registration: &Registration) {
        let mut node = Node { meta: self.new_meta(&Labels::new(), &Labels::new()), ..Node::default() };
        if let Some(old) = self.nodes.get(name) {
            node.meta.inherit(&old.meta);
            node.is_cordoned = old.is_cordoned;
            node.own_labels.clone_from(&old.own_labels);
            node.meta.annotations.clone_from(&old.meta.annotations);
        }
        node.describe(registration);
        node.incarnation = incarnation;
        node.boot_id = registration.boot_id.clone();
        node.machine_id = registration.machine_id.clone();
        node.leftovers.clone_from(&registration.leftovers);
        self.node_incarnations.insert(name.clone(), incarnation);
        let after = load(&node);
        let former = self.nodes.insert(name.clone(), Arc::new(node));
        self.index.move_node(name, former.map(|former| load(&former)), Some(after));
    }

    pub(super) fn node_mut(&mut self, name: &NodeName, change: impl FnOnce(&mut Node)) {
        let revision = self.revision;
        if let Some(node) = self.nodes.get_mut(name) {
            let node = Arc::make_mut(node);
            let before = load(node);
            change(node);
            node.meta.modified = revision;
            self.index.move_node(name, Some(before), Some(load(node)));
        }
    }
}

impl Node {
    fn describe(&mut self, registration: &Registration) {
        self.capacity = registration.capacity;
        self.pods_max = registration.pods_max;
        self.meta.labels.clone_from(&registration.labels);
        self.meta.labels.extend(self.own_labels.clone());
        self.taints.clone_from(&registration.taints);
        self.info.clone_from(&registration.info);
        self.pod_range = registration.pod_range;
    }
}
