//! Services, both ways.

use super::check::{At, FieldError, labels_to_wire, once};
use super::meta::{Marks, marks_from_wire, meta_to_wire};
use super::set::number;
use crate::name::check_label;
use crate::v1;
use domain::State;
use domain::id::{Key, Name};
use domain::object::Service;
use domain::spec::{Labels, Port, ServiceSpec};
use std::collections::BTreeSet;

/// Reads a service.
///
/// # Errors
/// The first field that breaks a rule.
pub fn service_from_wire(wire: &v1::Service) -> Result<(Key, Labels, Labels, ServiceSpec), FieldError> {
    let Marks { key, labels, annotations } = marks_from_wire(wire.metadata.as_ref(), check_label)?;
    let at = At::root("spec");
    let spec = at.required(wire.spec.as_ref())?;
    at.to("type").word(&spec.r#type, &[("ClusterIP", ())])?;
    if spec.cluster_ip != "None" {
        return Err(at.to("clusterIP").refuse("must be \"None\": services are headless, they name pods"));
    }
    let mut seen = BTreeSet::new();
    let mut ports = Vec::with_capacity(spec.ports.len());
    for (index, port) in spec.ports.iter().enumerate() {
        let at = at.item("ports", index);
        once(&mut seen, &port.name, at.to("name"))?;
        ports.push(port_from_wire(port, at)?);
    }
    let selector = at.to("selector").labels(&spec.selector)?;
    let spec = ServiceSpec { selector, ports, publish_not_ready: spec.publish_not_ready_addresses };
    Ok((key, labels, annotations, spec))
}

fn port_from_wire(wire: &v1::ServicePort, at: At<'_>) -> Result<Port, FieldError> {
    let name = match wire.name.as_str() {
        "" => Name::default(),
        name => at.to("name").name(name, check_label)?,
    };
    let port = at.to("port").port(wire.port)?;
    let target = wire.target_port.as_deref().and_then(|target| target.parse::<u32>().ok());
    if target.is_some_and(|target| target != port) {
        return Err(at.to("targetPort").refuse("must be the same as port: a headless service only names pods"));
    }
    Ok(Port { name, port, protocol: at.to("protocol").protocol(&wire.protocol)? })
}

/// Writes a service.
#[must_use]
pub fn service_to_wire(state: &State, key: &Key, service: &Service) -> v1::Service {
    let port = |port: &Port| v1::ServicePort {
        name: port.name.to_string(),
        protocol: port.protocol.to_string(),
        port: number(port.port),
        target_port: None,
    };
    v1::Service {
        api_version: "v1".to_owned(),
        kind: "Service".to_owned(),
        metadata: Some(meta_to_wire(state, key, &service.meta)),
        spec: Some(v1::ServiceSpec {
            cluster_ip: "None".to_owned(),
            ports: service.spec.ports.iter().map(port).collect(),
            selector: labels_to_wire(&service.spec.selector),
            publish_not_ready_addresses: service.spec.publish_not_ready,
            r#type: "ClusterIP".to_owned(),
        }),
    }
}
