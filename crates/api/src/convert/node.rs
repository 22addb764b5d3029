//! How a node is shown.

use super::meta::{cluster_meta_to_wire, condition};
use crate::quantity::{format_bytes, format_cpu_milli};
use crate::time::format_ms;
use crate::v1;
use domain::State;
use domain::id::{Name, NodeName};
use domain::object::Node;
use std::collections::BTreeMap;

/// Writes a node. When a reachable node was last heard is the leader's to fill in.
#[must_use]
pub fn node_to_wire(state: &State, name: &NodeName, node: &Node) -> v1::Node {
    v1::Node {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        metadata: Some(cluster_meta_to_wire(state, name.as_str(), &node.meta)),
        spec: Some(v1::NodeSpec {
            unschedulable: node.is_cordoned,
            taints: taints(node),
            pod_cidr: node.pod_range.map(|range| range.to_string()).unwrap_or_default(),
        }),
        status: Some(status(name, node)),
    }
}

fn taints(node: &Node) -> Vec<v1::Taint> {
    let own = node.taints.iter().map(|taint| v1::Taint {
        key: taint.key.to_string(),
        value: taint.value.to_string(),
        effect: taint.effect.to_string(),
        time_added: String::new(),
    });
    let ours = |key: &str, time_added: String| v1::Taint {
        key: key.to_owned(),
        value: String::new(),
        effect: "NoSchedule".to_owned(),
        time_added,
    };
    let cordon = node.is_cordoned.then(|| ours("node.kubernetes.io/unschedulable", String::new()));
    // Never NoExecute: an unreachable node's pods are held, and no time evicts them.
    let silence =
        node.unreachable.as_ref().map(|silence| ours("node.kubernetes.io/unreachable", format_ms(silence.at_ms)));
    let shutdown =
        node.shutdown.as_ref().map(|shutdown| ours("node.kubernetes.io/not-ready", format_ms(shutdown.at_ms)));
    own.chain(cordon).chain(silence).chain(shutdown).collect()
}

fn status(name: &NodeName, node: &Node) -> v1::NodeStatus {
    let info = |key: &str| node.info.get(&key.into()).map(ToString::to_string).unwrap_or_default();
    let capacity = BTreeMap::from([
        ("cpu".to_owned(), format_cpu_milli(node.capacity.cpu_milli)),
        ("memory".to_owned(), format_bytes(node.capacity.memory_bytes)),
        ("pods".to_owned(), node.pods_max.to_string()),
    ]);
    let address = |kind: &str, address: String| v1::NodeAddress { r#type: kind.to_owned(), address };
    let mut addresses = vec![address("Hostname", name.to_string())];
    if !info("address").is_empty() {
        addresses.insert(0, address("InternalIP", info("address")));
    }
    let heard_at_ms = node.unreachable.as_ref().map(|silence| silence.heard_at_ms);
    v1::NodeStatus {
        allocatable: capacity.clone(),
        capacity,
        conditions: vec![ready_condition(node)],
        addresses,
        node_info: Some(v1::NodeSystemInfo {
            boot_id: node.boot_id.to_string(),
            machine_id: node.machine_id.to_string(),
            kernel_version: info("kernelVersion"),
            agent_version: info("agentVersion"),
            operating_system: info("operatingSystem"),
            architecture: info("architecture"),
            os_image: info("osImage"),
            container_runtime_version: info("runtime"),
            features: features(node),
        }),
        incarnation: node.incarnation.0,
        last_heartbeat_time: heard_at_ms.map(format_ms).unwrap_or_default(),
    }
}

fn features(node: &Node) -> BTreeMap<String, String> {
    let feature = |(key, value): (&Name, &Name)| {
        key.as_str().strip_prefix("feature/").map(|name| (name.to_owned(), value.to_string()))
    };
    node.info.iter().filter_map(feature).collect()
}

fn ready_condition(node: &Node) -> v1::Condition {
    let Some(silence) = &node.unreachable else {
        if let Some(shutdown) = &node.shutdown {
            let message = "node is shutting down: its pods end, and it gets no new ones";
            return condition("Ready", "False", shutdown.at_ms, "NodeShutdown", message);
        }
        let message = match node.leftovers.len() {
            0 => "the agent is heard".to_owned(),
            count => format!("the agent is heard, and ends {count} pods that are not its own any more"),
        };
        return condition("Ready", "True", node.meta.created_at_ms, "AgentReady", &message);
    };
    let message = match &node.shutdown {
        Some(_) => "the node was shut down, and its agent has not been heard since",
        None => "the agent has not been heard for its lease and grace; the node's pods are held",
    };
    let ready = condition("Ready", "Unknown", silence.at_ms, "NodeUnreachable", message);
    v1::Condition { last_heartbeat_time: format_ms(silence.heard_at_ms), ..ready }
}
