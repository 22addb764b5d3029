//! The gRPC face of a running cluster: every server takes every call, says whether it is well, and publishes its types.

use crate::harness::{Cluster, SERVERS};
use crate::sets::{brought, unplaceable};
use api::manifest::{self, Object};
use api::v1::stateful_sets_client::StatefulSetsClient;
use api::v1::{ApplyStatefulSetRequest, GetRequest, ScaleStatefulSetRequest, StatefulSet};
use std::collections::BTreeSet;
use std::future::Future;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

fn wait_for<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(work)
}

fn channel(cluster: &Cluster, server: &str) -> Channel {
    let address = format!("http://{}", cluster.address(server));
    Endpoint::from_shared(address).expect("an address").connect_lazy()
}

fn set_of(text: &str) -> StatefulSet {
    let documents = manifest::parse("set.yaml", text).expect("it is well spelled");
    match documents.into_iter().next().expect("there is one").object {
        Object::StatefulSet(set) => *set,
        other => panic!("not a set: {other:?}"),
    }
}

async fn apply(channel: Channel, text: &str) -> Result<u64, Status> {
    let request = ApplyStatefulSetRequest { object: Some(set_of(text)), ..ApplyStatefulSetRequest::default() };
    Ok(StatefulSetsClient::new(channel).apply(request).await?.into_inner().revision)
}

async fn services_of(channel: Channel) -> BTreeSet<String> {
    let ask = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { message_request: Some(ask), ..ServerReflectionRequest::default() };
    let answer = ServerReflectionClient::new(channel).server_reflection_info(tokio_stream::once(request)).await;
    let mut answers = answer.expect("reflection answers").into_inner();
    let answer = answers.message().await.expect("reflection answers").expect("an answer").message_response;
    match answer {
        Some(MessageResponse::ListServicesResponse(list)) => list.service.into_iter().map(|one| one.name).collect(),
        other => panic!("not a list of services: {other:?}"),
    }
}

#[test]
fn every_server_is_healthy_reflects_its_services_and_takes_any_call() {
    let cluster = Cluster::up();
    let (leader, _) = cluster.leader();
    wait_for(async {
        let mut last = 0;
        for server in SERVERS {
            let channel = || channel(&cluster, server);
            let health = HealthClient::new(channel()).check(HealthCheckRequest { service: String::new() }).await;
            assert_eq!(health.expect("it answers").into_inner().status(), ServingStatus::Serving, "{server}");
            let services = services_of(channel()).await;
            for name in ["StatefulSets", "Pods", "Storage", "Nodes", "Services", "Cluster", "History"] {
                assert!(
                    services.contains(&format!("holdfast.v1.{name}")),
                    "{name} is missing at {server}: {services:?}"
                );
            }
            assert!(services.contains("grpc.health.v1.Health"), "{services:?}");
            // A change through any server, which is read through any other at once.
            let revision = apply(channel(), &unplaceable(&format!("by-{server}"))).await.expect("any server takes it");
            assert!(last < revision);
            last = revision;
            for other in SERVERS {
                let get = GetRequest { name: format!("by-{server}"), ..GetRequest::default() };
                let read = StatefulSetsClient::new(self::channel(&cluster, other)).get(get).await;
                assert!(
                    revision <= read.expect("it is there").into_inner().revision,
                    "made by {server}, read by {other}"
                );
            }
        }
    });
    // A server without its peers says that it is not well, rather than that it is.
    cluster.ok(&["fault", "partition", leader]);
    cluster.wait("the cut off server is not well", || {
        let health = wait_for(async {
            let request = HealthCheckRequest { service: String::new() };
            HealthClient::new(channel(&cluster, leader)).check(request).await
        });
        health.is_ok_and(|reply| reply.into_inner().status() == ServingStatus::NotServing)
    });
    cluster.ok(&["fault", "heal"]);
}

/// What is replaced by what in the first of the brought manifests, and the field that is then told.
const MISTAKES: [(&str, &str, &str); 9] = [
    ("name: sample-statefulset\n", "name: Sample_Set\n", "metadata.name"),
    ("replicas: 3", "replicas: -1", "spec.replicas"),
    ("replicas: 3", "podManagementPolicy: parallel", "spec.podManagementPolicy"),
    ("replicas: 3", "updateStrategy: {type: Sometimes}", "spec.updateStrategy.type"),
    ("labels:\n        app: sample-app", "labels:\n        app: other", "spec.template.metadata.labels"),
    (
        "- name: www\n          mount",
        "- name: wwww\n          mount",
        "spec.template.spec.containers[0].volumeMounts[0].name",
    ),
    ("- ReadWriteOncePod", "- ReadWriteSometimes", "spec.volumeClaimTemplates[0].spec.accessModes"),
    ("storage: 1Gi", "storage: 1Giga", "spec.volumeClaimTemplates[0].spec.resources.requests.storage"),
    ("image: nginx:1.16", "image: \"\"", "spec.template.spec.containers[0].image"),
];

#[test]
fn bad_input_is_refused_by_the_service_as_by_the_command_line() {
    let cluster = Cluster::up();
    let before = cluster.revision();
    for (right, wrong, field) in MISTAKES {
        assert!(brought::WEB.contains(right), "{right}");
        let text = brought::WEB.replacen(right, wrong, 1);
        let file = cluster.file("wrong.yaml", &text);
        let said = cluster.refused(&["apply", "-f", &file.display().to_string()]);
        assert!(said.contains("wrong.yaml:") && said.contains(field), "{field}: {said}");
        for server in SERVERS {
            let refusal = wait_for(async { apply(channel(&cluster, server), &text).await }).expect_err(field);
            assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal:?}");
            assert!(refusal.message().starts_with(field), "{refusal:?}");
            assert!(
                said.contains(refusal.message()),
                "{:?} is not what the command line says:\n{said}",
                refusal.message()
            );
            assert!(!refusal.details().is_empty(), "the field stands in the details");
        }
    }
    let scale = ScaleStatefulSetRequest { name: "web".to_owned(), replicas: -1, ..ScaleStatefulSetRequest::default() };
    let refusal = wait_for(async { StatefulSetsClient::new(channel(&cluster, "s2")).scale(scale).await })
        .expect_err("it is negative");
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert_eq!(cluster.revision(), before, "nothing was applied");
}
