//! Services, both ways, and the pods behind them, one way.

use super::check::{At, FieldError, labels_to_wire, once};
use super::meta::{Marks, marks_from_wire, meta_to_wire};
use super::pod::address_text;
use super::set::number;
use crate::name::check_label;
use crate::v1;
use domain::State;
use domain::id::{Key, Name, uid_text};
use domain::names::{Endpoint, NamedService};
use domain::object::Service;
use domain::spec::{Labels, ServicePort, ServiceSpec, TargetPort};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// What a service is asked to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedService {
    /// Its name.
    pub key: Key,
    /// Its labels.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
    /// What is wanted.
    pub spec: ServiceSpec,
    /// The one address that it is to have, if any.
    pub address: Option<u32>,
}

/// Reads a service.
///
/// # Errors
/// The first field that breaks a rule.
pub fn service_from_wire(wire: &v1::Service) -> Result<WantedService, FieldError> {
    let Marks { key, labels, annotations } = marks_from_wire(wire.metadata.as_ref(), check_label)?;
    let at = At::root("spec");
    let spec = at.required(wire.spec.as_ref())?;
    at.to("type").word(&spec.r#type, &[("ClusterIP", ())])?;
    let address = match spec.cluster_ip.as_str() {
        "" | "None" => None,
        text => {
            Some(text.parse::<Ipv4Addr>().map_err(|_| at.to("clusterIP").refuse("must be \"None\" or an address"))?)
        }
    };
    let mut seen = BTreeSet::new();
    let mut ports = Vec::with_capacity(spec.ports.len());
    for (index, port) in spec.ports.iter().enumerate() {
        let at = at.item("ports", index);
        once(&mut seen, &port.name, at.to("name"))?;
        ports.push(port_from_wire(port, at)?);
    }
    let has_address = spec.cluster_ip != "None";
    if has_address && ports.is_empty() {
        return Err(at
            .to("ports")
            .refuse("must not be empty: a service with an address of its own passes on its ports"));
    }
    let selector = at.to("selector").labels(&spec.selector)?;
    let spec = ServiceSpec { selector, ports, publish_not_ready: spec.publish_not_ready_addresses, has_address };
    Ok(WantedService { key, labels, annotations, spec, address: address.map(u32::from) })
}

fn port_from_wire(wire: &v1::ServicePort, at: At<'_>) -> Result<ServicePort, FieldError> {
    let name = match wire.name.as_str() {
        "" => Name::default(),
        name => at.to("name").name(name, check_label)?,
    };
    let port = at.to("port").port(wire.port)?;
    let target = match wire.target_port.as_deref() {
        None | Some("") => None,
        Some(target) => Some(target_from_wire(target, at.to("targetPort"))?),
    };
    // The same number is what it means anyway.
    let target = target.filter(|target| *target != TargetPort::Number(port));
    Ok(ServicePort { name, port, protocol: at.to("protocol").protocol(&wire.protocol)?, target })
}

fn target_from_wire(target: &str, at: At<'_>) -> Result<TargetPort, FieldError> {
    match target.parse::<i32>() {
        Ok(number) => at.port(number).map(TargetPort::Number),
        Err(_) => at.name(target, check_label).map(TargetPort::Named),
    }
}

/// Writes a service.
#[must_use]
pub fn service_to_wire(state: &State, key: &Key, service: &Service) -> v1::Service {
    let port = |port: &ServicePort| v1::ServicePort {
        name: port.name.to_string(),
        protocol: port.protocol.to_string(),
        port: number(port.port),
        target_port: Some(match &port.target {
            None => port.port.to_string(),
            Some(TargetPort::Number(number)) => number.to_string(),
            Some(TargetPort::Named(name)) => name.to_string(),
        }),
    };
    let cluster_ip = if service.address == 0 { "None".to_owned() } else { address_text(service.address) };
    v1::Service {
        api_version: "v1".to_owned(),
        kind: "Service".to_owned(),
        metadata: Some(meta_to_wire(state, key, &service.meta)),
        spec: Some(v1::ServiceSpec {
            cluster_ip,
            ports: service.spec.ports.iter().map(port).collect(),
            selector: labels_to_wire(&service.spec.selector),
            publish_not_ready_addresses: service.spec.publish_not_ready,
            r#type: "ClusterIP".to_owned(),
        }),
    }
}

/// Writes the pods behind a service.
#[must_use]
pub fn endpoints_to_wire(state: &State, key: &Key, service: &Service, named: &NamedService) -> v1::Endpoints {
    let mut by_ports: BTreeMap<&[u32], v1::EndpointSubset> = BTreeMap::new();
    for (pod, endpoint) in &named.pods {
        let subset = by_ports.entry(&endpoint.ports).or_insert_with(|| subset_of(&named.ports, endpoint));
        let address = endpoint_address(state, key, pod, endpoint);
        if endpoint.is_named { &mut subset.addresses } else { &mut subset.not_ready_addresses }.push(address);
    }
    v1::Endpoints {
        api_version: "v1".to_owned(),
        kind: "Endpoints".to_owned(),
        metadata: Some(meta_to_wire(state, key, &service.meta)),
        subsets: by_ports.into_values().collect(),
    }
}

fn subset_of(ports: &[ServicePort], endpoint: &Endpoint) -> v1::EndpointSubset {
    let named = ports.iter().zip(&endpoint.ports).filter(|(_, target)| **target != 0);
    let port = |(port, target): (&ServicePort, &u32)| v1::EndpointPort {
        name: port.name.to_string(),
        port: number(*target),
        protocol: port.protocol.to_string(),
    };
    v1::EndpointSubset { ports: named.map(port).collect(), ..v1::EndpointSubset::default() }
}

fn endpoint_address(state: &State, service: &Key, pod: &Name, endpoint: &Endpoint) -> v1::EndpointAddress {
    v1::EndpointAddress {
        ip: address_text(endpoint.address),
        hostname: if endpoint.is_member { pod.to_string() } else { String::new() },
        node_name: endpoint.node.to_string(),
        target_ref: Some(v1::ObjectReference {
            kind: "Pod".to_owned(),
            namespace: service.namespace.to_string(),
            name: pod.to_string(),
            uid: uid_text(&state.cluster, endpoint.uid),
            ..v1::ObjectReference::default()
        }),
    }
}
