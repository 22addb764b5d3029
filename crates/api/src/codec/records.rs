//! The numbers of all stored fields. Adding a number is allowed; giving one another meaning never is.

use super::table::{record, shared, variants, words};
use super::wire::{Decoder, Encoder, Field, Value};
use super::{CodecError, Record, Variants};
use domain::address::AddressRange;
use domain::agent::{AssignedConfig, AssignedPod, AssignedVolume, Assignment, FromAgent, ToAgent, VolumeRemoval};
use domain::command::{Command, PodReport, Request, VolumeSize};
use domain::config::{Config, ConfigKind, ConfigRef, ConfigSpec};
use domain::event::{Batch, Event, Registration, RemovalCause};
use domain::id::Key;
use domain::names::{Endpoint, NamedService, NamesUpdate};
use domain::object::{
    Attachment, Binding, Budget, Claim, Class, ContainerStatus, Deletion, Growth, Hold, Meta, Node, Phase, Pod,
    PodClaim, PodEnd, PodStatus, Server, Service, Set, Shutdown, TemplateRevision, Unplaced, Unreachable, Volume,
    VolumePhase,
};
use domain::security::{ContainerSecurity, PodSecurity};
use domain::spec::{
    AccessModes, Amount, AntiAffinity, BudgetBound, BudgetSpec, ClaimRetention, ClaimSpec, ClaimTemplate, ClassSpec,
    Container, EnvFrom, EnvValue, EnvVar, FieldFile, Hook, KeyFile, LocalSource, LocalVolume, Mount, NamedClaim,
    PodManagement, Port, Probe, ProbeAction, Reclaim, Resources, Retention, ServicePort, ServiceSpec, SetSpec, Taint,
    TargetPort, Template, Toleration, UpdateStrategy, VolumeSpec,
};
use prost::encoding::WireType;

record! {
    Key { 1: namespace, 2: name }
    Batch { 1: base, 2: at_ms, 3: actor, 4: request, 5: events, 6: planned }
    Request { 1: actor, 2: id, 3: expected, 4: command }
    Registration {
        1: boot_id, 2: machine_id, 3: capacity, 4: pods_max, 5: labels, 6: taints, 7: info, 8: leftovers,
        // 9 was a list, oldest first, of the boots that had ended: of one that was written, the last is read.
        9: former_boot, 10: pod_range,
    }
    PodReport { 1: pod, 2: uid, 3: status, 4: has_volumes, 5: is_gone, 6: grown }
    VolumeSize { 1: volume, 2: size_bytes }
}

variants! {
    Event {
        1: ClusterFormed { 1: cluster },

        10: SetCreated { 1: set, 2: labels, 3: annotations, 4: spec },
        11: SetUpdated { 1: set, 2: labels, 3: annotations, 4: spec },
        12: SetScaled { 1: set, 2: replicas },
        13: SetRemoved { 1: set },
        14: RevisionTargeted { 1: set, 2: revision, 3: number, 4: is_collision },
        15: RolloutCompleted { 1: set, 2: revision },
        16: RevisionForgotten { 1: set, 2: revision },

        30: PodCreated { 1: set, 2: ordinal, 3: revision, 4: claims },
        31: PodBound { 1: pod, 2: node, 3: address },
        32: PodUnplaced { 1: pod, 2: why },
        33: PodReported { 1: pod, 2: uid, 3: status },
        34: PodBecameAvailable { 1: pod, 2: uid },
        35: PodDeletionRequested { 1: pod, 2: uid, 3: grace_ms, 4: is_forced },
        36: PodRemoved { 1: pod, 2: uid, 3: cause },
        37: PodHeld { 1: pod, 2: uid, 3: node, 4: heard_at_ms },
        38: PodResumed { 1: pod, 2: uid },
        39: PodOrphaned { 1: pod, 2: uid },
        40: PodAdopted { 1: pod, 2: uid, 3: owner, 4: revision },
        41: PodBecameUnavailable { 1: pod, 2: uid },
        42: PodMarked { 1: pod, 2: uid, 3: labels, 4: annotations },
        43: PodFinalizersChanged { 1: pod, 2: uid, 3: finalizers },
        44: PodEnded { 1: pod, 2: uid, 3: cause },

        60: ClaimCreated { 1: claim, 2: labels, 3: spec, 4: annotations },
        61: ClaimBound { 1: claim, 2: volume },
        62: ClaimDeletionRequested { 1: claim },
        63: ClaimRemoved { 1: claim },
        64: ClaimLost { 1: claim },
        65: ClaimUpdated { 1: claim, 2: labels, 3: annotations, 4: spec },
        66: ClaimFinalizersChanged { 1: claim, 2: finalizers },

        70: VolumeCreated { 1: volume, 2: labels, 3: spec, 4: annotations },
        71: VolumeReleased { 1: volume },
        72: VolumeDeletionRequested { 1: volume },
        73: VolumeRemoved { 1: volume },
        74: AttachmentRequested { 1: volume, 2: node, 3: fence },
        75: VolumeAttached { 1: volume, 2: node, 3: fence },
        76: AttachmentReleased { 1: volume, 2: node, 3: fence, 4: cause },
        77: VolumeUpdated { 1: volume, 2: labels, 3: annotations, 4: spec },
        78: VolumeGrowthBegan { 1: volume, 2: from_bytes },
        79: VolumeGrown { 1: volume },

        90: ClassApplied { 1: class, 2: spec, 3: labels, 4: annotations },
        91: ClassRemoved { 1: class },
        92: ServiceApplied { 1: service, 2: labels, 3: annotations, 4: spec, 5: address },
        93: ServiceRemoved { 1: service },
        94: BudgetApplied { 1: budget, 2: labels, 3: annotations, 4: spec },
        95: BudgetRemoved { 1: budget },
        96: ConfigApplied { 1: kind, 2: config, 3: labels, 4: annotations, 5: spec },
        97: ConfigRemoved { 1: kind, 2: config },

        100: NodeRegistered { 1: node, 2: incarnation, 3: registration },
        101: NodeUpdated { 1: node, 2: registration },
        102: NodeUnreachable { 1: node, 2: heard_at_ms },
        103: NodeReturned { 1: node, 2: leftovers },
        104: LeftoversEnded { 1: node, 2: ended },
        105: NodeCordoned { 1: node },
        106: NodeUncordoned { 1: node },
        107: NodeRemoved { 1: node },
        108: NodeMarked { 1: node, 2: labels, 3: annotations },
        109: NodeShutdownBegan { 1: node, 2: grace_ms },
        110: NodeShutdownEnded { 1: node },

        120: ServersFounded { 1: servers },
        121: ServerAdded { 1: server, 2: address },
        122: ServerPromoted { 1: server },
        123: ServerAddressed { 1: server, 2: address },
        124: ServerRemoved { 1: server },
    }

    RemovalCause {
        1: Stopped,
        2: NeverPlaced,
        3: ForceDeleted,
        4: NodeRemoved,
        5: NodeRestarted { 1: old, 2: new },
    }

    Command {
        1: FormCluster { 1: cluster },

        10: ApplySet { 1: set, 2: labels, 3: annotations, 4: spec },
        11: ScaleSet { 1: set, 2: replicas, 3: current, 4: force_unready },
        12: DeleteSet { 1: set, 2: orphan },
        13: UndoRollout { 1: set, 2: to },
        14: PauseRollout { 1: set, 2: is_paused },
        20: DeletePod { 1: pod, 2: grace_ms, 3: force, 4: uid },
        21: EvictPod { 1: pod, 2: grace_ms, 3: uid },
        22: MarkPod { 1: pod, 2: labels, 3: annotations, 4: finalizers },

        30: ApplyClaim { 1: claim, 2: labels, 3: spec, 4: annotations, 5: finalizers },
        31: DeleteClaim { 1: claim },
        32: ApplyVolume { 1: volume, 2: labels, 3: spec, 4: annotations },
        33: DeleteVolume { 1: volume },
        34: ApplyClass { 1: class, 2: spec, 3: labels, 4: annotations },
        35: DeleteClass { 1: class },
        40: ApplyService { 1: service, 2: labels, 3: annotations, 4: spec, 5: address },
        41: DeleteService { 1: service },
        42: ApplyBudget { 1: budget, 2: labels, 3: annotations, 4: spec },
        43: DeleteBudget { 1: budget },
        44: ApplyConfig { 1: kind, 2: config, 3: labels, 4: annotations, 5: spec },
        45: DeleteConfig { 1: kind, 2: config },

        50: CordonNode { 1: node },
        51: UncordonNode { 1: node },
        52: RemoveNode { 1: node },
        53: MarkNode { 1: node, 2: labels, 3: annotations },
        60: RegisterNode { 1: node, 2: registration, 3: running },
        61: Report { 1: node, 2: incarnation, 3: reports, 4: ended, 5: removed_volumes },
        62: NoteSilence { 1: node, 2: incarnation, 3: heard_at_ms },
        63: PassTime,
        64: NoteShutdown { 1: node, 2: incarnation, 3: grace_ms },

        70: FoundServers { 1: servers },
        71: AddServer { 1: server, 2: address },
        72: PromoteServer { 1: server },
        73: AddressServer { 1: server, 2: address },
        74: RemoveServer { 1: server },
    }

    FromAgent {
        1: Register { 1: node, 2: registration, 3: running },
        2: Heartbeat { 1: sent_at_ms, 2: shutdown_within_ms },
        3: Report { 1: number, 2: incarnation, 3: pods, 4: ended, 5: removed_volumes },
    }

    ToAgent {
        1: Registered { 1: incarnation },
        2: HeartbeatAcked { 1: sent_at_ms },
        3: ReportAcked { 1: number },
        4: Assign(1: assignment),
        5: Redirect { 1: leader },
        6: Refused { 1: reason },
        7: KnownIn { 1: boot_id },
    }

    UpdateStrategy { 1: RollingUpdate { 1: partition, 2: max_unavailable }, 2: OnDelete }
    Amount { 1: Count(1: count), 2: Percent(1: percent) }
    BudgetBound { 1: MinAvailable(1: amount), 2: MaxUnavailable(1: amount) }
    TargetPort { 1: Number(1: number), 2: Named(1: name) }
    EnvValue {
        1: Text(1: text),
        2: Field(1: path),
        3: Key { 1: config, 2: key },
        4: Resource { 1: container, 2: resource, 3: divisor },
    }
    LocalSource {
        1: EmptyDir { 1: in_memory, 2: size_max_bytes },
        2: Config { 1: config, 2: items, 3: mode },
        3: Fields { 1: items, 2: mode },
    }
    ProbeAction { 1: Exec(1: command), 2: HttpGet { 1: path, 2: port, 3: host }, 3: TcpSocket { 1: port }, 4: Grpc { 1: port, 2: service } }
    Hook { 1: Exec(1: command), 2: HttpGet { 1: path, 2: port, 3: host }, 3: Sleep { 1: ms } }
}

words! {
    ConfigKind { 0: ConfigMap, 1: Secret }
    PodManagement { 0: OrderedReady, 1: Parallel }
    Reclaim { 0: Delete, 1: Retain }
    Retention { 0: Retain, 1: Delete }
    Phase { 0: Pending, 1: Running, 2: Succeeded, 3: Failed }
    VolumePhase { 0: Available, 1: Bound, 2: Released, 3: Deleting }
}

// What people ask for.
record! {
    SetSpec {
        1: replicas, 2: start, 3: selector, 4: service_name, 5: policy, 6: update, 7: template, 8: claim_templates,
        9: min_ready_ms, 10: revision_history_max, 11: retention, 12: is_paused,
    }
    ClaimRetention { 1: when_deleted, 2: when_scaled }
    Template {
        1: hash, 2: labels, 3: annotations, 4: containers, 5: node_selector, 6: tolerations, 7: anti_affinity,
        8: grace_ms, 9: volumes, 10: local_volumes, 11: init_containers, 12: security, 13: finalizers,
    }
    NamedClaim { 1: volume, 2: claim }
    Container {
        1: name, 2: image, 3: command, 4: args, 5: working_dir, 6: env, 7: ports, 8: requests, 9: limits, 10: mounts,
        11: readiness, 12: liveness, 13: env_from, 14: startup, 15: post_start, 16: pre_stop, 17: is_sidecar,
        20: has_stdin, 21: is_stdin_once, 22: has_terminal, 23: security,
    }
    PodSecurity { 1: run_as_user, 2: run_as_group, 3: run_as_non_root, 4: supplemental_groups, 5: fs_group }
    ContainerSecurity {
        1: run_as_user, 2: run_as_group, 3: run_as_non_root, 4: has_read_only_root, 5: allows_escalation,
        6: dropped_capabilities,
    }
    LocalVolume { 1: name, 2: source }
    KeyFile { 1: key, 2: path, 3: mode }
    FieldFile { 1: path, 2: value, 3: mode }
    ConfigRef { 1: kind, 2: name, 3: is_optional }
    EnvFrom { 1: prefix, 2: config }
    EnvVar { 1: name, 2: value }
    Port { 1: name, 2: port, 3: protocol }
    Mount { 1: volume, 2: path, 3: read_only, 4: sub_path }
    Resources { 1: cpu_milli, 2: memory_bytes }
    Probe {
        1: action, 2: initial_delay_ms, 3: period_ms, 4: timeout_ms, 5: success_threshold, 6: failure_threshold,
        7: grace_ms,
    }
    Toleration { 1: key, 2: value, 3: effect }
    Taint { 1: key, 2: value, 3: effect }
    AntiAffinity { 1: labels, 2: weight }
    ClaimTemplate { 1: name, 2: labels, 3: spec, 4: annotations }
    ClaimSpec { 1: access, 2: class, 3: request_bytes, 4: volume, 5: selector }
    AccessModes { 1: read_write_once, 2: read_write_once_pod, 3: read_only_many, 4: read_write_many }
    VolumeSpec {
        1: capacity_bytes, 2: access, 3: class, 4: driver, 5: handle, 6: reclaim, 7: nodes, 8: claim,
    }
    ClassSpec {
        1: provisioner, 2: reclaim, 3: waits_for_consumer, 4: may_expand, 5: is_default, 6: parameters,
    }
    ServiceSpec { 1: selector, 2: ports, 3: publish_not_ready, 4: has_address }
    ServicePort { 1: name, 2: port, 3: protocol, 4: target }
    BudgetSpec { 1: selector, 2: bound, 3: evicts_unready }
}

// What is.
record! {
    Meta { 1: uid, 2: generation, 3: modified, 4: created_at_ms, 5: labels, 6: annotations }
    Set {
        1: meta, 2: spec, 3: revisions, 4: current_revision, 5: update_revision, 6: incarnations, 7: collision_count,
    }
    TemplateRevision { 1: name, 2: number, 3: template, 4: uid, 5: created_at_ms, 6: cause }
    Pod {
        1: meta, 2: set, 3: owner, 4: ordinal, 5: incarnation, 6: template, 7: revision, 8: service_name, 9: claims,
        10: binding, 11: status, 12: ready_at_ms, 13: is_available, 14: deletion, 15: hold, 16: unplaced,
        17: finalizers, 18: end,
    }
    PodEnd { 1: cause, 2: at_ms, 3: node }
    PodClaim { 1: volume, 2: claim }
    Binding { 1: node, 2: incarnation, 3: at_ms, 4: address }
    PodStatus { 1: phase, 2: is_ready, 3: reason, 4: message, 5: started_at_ms, 6: containers, 7: init_containers }
    ContainerStatus {
        1: name, 2: is_running, 3: is_ready, 4: restart_count, 5: pid, 6: runs, 7: last_exit, 8: reason, 9: is_starting,
        10: was_out_of_memory,
    }
    Deletion { 1: at_ms, 2: grace_ms, 3: is_forced }
    Hold { 1: since, 2: at_ms, 3: node, 4: heard_at_ms }
    Unplaced { 1: node_count, 2: reasons }
    Claim { 1: meta, 2: spec, 3: volume, 4: is_lost, 5: deleting_at_ms, 6: finalizers }
    Volume { 1: meta, 2: spec, 3: claim, 4: phase, 5: fence, 6: attachments, 7: growth }
    Growth { 1: from_bytes, 2: at_ms }
    Attachment { 1: incarnation, 2: fence, 3: is_attached, 4: at_ms }
    Class { 1: meta, 2: spec }
    Service { 1: meta, 2: spec, 3: address }
    Budget { 1: meta, 2: spec }
    Server { 1: address, 2: is_voter }
    Config { 1: meta, 2: spec }
    ConfigSpec { 1: data, 2: binary_data, 3: type_name, 4: is_immutable }
    Node {
        1: meta, 2: incarnation, 3: boot_id, 4: machine_id, 5: capacity, 6: reserved, 7: pod_count, 8: pods_max,
        9: taints, 10: is_cordoned, 11: unreachable, 12: leftovers, 13: info, 14: own_labels,
        // 15 was the boots that had ended.
        16: shutdown, 17: pod_range,
    }
    AddressRange { 1: first, 2: count }
    Unreachable { 1: since, 2: at_ms, 3: heard_at_ms }
    Shutdown { 1: since, 2: at_ms, 3: grace_ms }
}

// What agents are told.
record! {
    Assignment { 1: revision, 2: incarnation, 3: pods, 4: removals, 5: configs, 6: is_shutting_down }
    AssignedConfig { 1: kind, 2: config, 3: spec }
    AssignedPod {
        1: pod, 2: uid, 3: uid_text, 4: ordinal, 5: set, 6: address, 7: service_name, 8: labels, 9: template,
        10: volumes, 11: stop_within_ms, 12: annotations,
    }
    AssignedVolume { 1: name, 2: volume, 3: driver, 4: handle, 5: fence, 6: capacity_bytes, 7: is_growing }
    VolumeRemoval { 1: volume, 2: driver, 3: handle }
    NamesUpdate { 1: revision, 2: is_whole, 3: services, 4: removed, 5: has_more }
    NamedService { 1: address, 2: ports, 3: pods }
    Endpoint { 1: uid, 2: address, 3: node, 4: is_named, 5: is_member, 6: ports }
}

shared! { AssignedPod, TemplateRevision, Set, Pod, PodEnd, Claim, Volume, Class, Service, Budget, Config, ConfigSpec, Node, NamedService }
