//! What server reflection publishes: every service with its calls.

use prost::Message as _;
use prost_types::FileDescriptorSet;

#[test]
fn every_service_is_published() {
    let files = FileDescriptorSet::decode(api::FILE_DESCRIPTOR_SET).unwrap();
    let mut services: Vec<_> = files
        .file
        .iter()
        .flat_map(|file| {
            let calls = |service: &prost_types::ServiceDescriptorProto| {
                service.method.iter().map(|m| m.name().to_owned()).collect::<Vec<_>>().join(" ")
            };
            file.service.iter().map(move |service| format!("{}.{}: {}", file.package(), service.name(), calls(service)))
        })
        .collect();
    services.sort();
    assert_eq!(
        services,
        [
            "holdfast.internal.v1.Agents: Connect Tunnel Names",
            "holdfast.internal.v1.Peer: Raft Snapshot Propose Tunnel",
            "holdfast.v1.Cluster: Status Commit CommitMany ListMembers AddMember RemoveMember TransferLeader",
            "holdfast.v1.Configs: ApplyConfigMap GetConfigMap ListConfigMaps DeleteConfigMap ApplySecret GetSecret \
             ListSecrets DeleteSecret",
            "holdfast.v1.Disruptions: Apply Get List Delete",
            "holdfast.v1.History: Watch Why",
            "holdfast.v1.Nodes: Get List Cordon Uncordon Mark Remove",
            "holdfast.v1.Pods: Get List Delete Evict Mark Logs Exec Attach Copy PortForward",
            "holdfast.v1.Services: Apply Get List Delete GetEndpoints ListEndpoints",
            "holdfast.v1.StatefulSets: Apply Get List Scale Delete RolloutStatus RolloutHistory RolloutUndo Restart Pause \
             Resume GetRevision ListRevisions",
            "holdfast.v1.Storage: ApplyClaim GetClaim ListClaims DeleteClaim ApplyVolume GetVolume ListVolumes DeleteVolume \
             ApplyClass GetClass ListClasses DeleteClass GetAttachment ListAttachments GetClaimUsage",
        ]
    );
}
