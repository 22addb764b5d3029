//! What Kubernetes has and Holdfast does not: kinds, and fields of each message. Only names; never what they mean.

use super::object::KINDS;

/// Kinds of Kubernetes that are refused by name.
const KINDS_ELSEWHERE: &[&str] = &[
    "CronJob",
    "CustomResourceDefinition",
    "DaemonSet",
    "Deployment",
    "Endpoints",
    "EndpointSlice",
    "HorizontalPodAutoscaler",
    "Ingress",
    "IngressClass",
    "Job",
    "Lease",
    "LimitRange",
    "MutatingWebhookConfiguration",
    "Namespace",
    "NetworkPolicy",
    "PodTemplate",
    "PriorityClass",
    "ReplicaSet",
    "ReplicationController",
    "ResourceQuota",
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
    "RuntimeClass",
    "ServiceAccount",
    "CSIDriver",
    "CSINode",
    "CSIStorageCapacity",
    "ValidatingWebhookConfiguration",
    "VolumeAttributesClass",
];

/// Fields of Kubernetes that are refused by name, per message of `objects.proto`.
pub(super) const FIELDS_ELSEWHERE: &[(&str, &[&str])] = &[
    ("ObjectMeta", &["generateName", "managedFields", "selfLink"]),
    ("StatefulSetSelector", &["matchExpressions"]),
    (
        "PodSpec",
        &[
            "activeDeadlineSeconds",
            "automountServiceAccountToken",
            "dnsConfig",
            "dnsPolicy",
            "enableServiceLinks",
            "ephemeralContainers",
            "hostAliases",
            "hostIPC",
            "hostNetwork",
            "hostPID",
            "hostUsers",
            "hostname",
            "hostnameOverride",
            "imagePullSecrets",
            "os",
            "overhead",
            "preemptionPolicy",
            "priority",
            "priorityClassName",
            "readinessGates",
            "resourceClaims",
            "resources",
            "runtimeClassName",
            "schedulerName",
            "schedulingGates",
            "serviceAccount",
            "serviceAccountName",
            "setHostnameAsFQDN",
            "shareProcessNamespace",
            "subdomain",
            "topologySpreadConstraints",
        ],
    ),
    (
        "Container",
        &["resizePolicy", "restartPolicyRules", "terminationMessagePath", "terminationMessagePolicy", "volumeDevices"],
    ),
    (
        "PodSecurityContext",
        &[
            "appArmorProfile",
            "fsGroupChangePolicy",
            "seLinuxChangePolicy",
            "seLinuxOptions",
            "seccompProfile",
            "supplementalGroupsPolicy",
            "sysctls",
            "windowsOptions",
        ],
    ),
    (
        "SecurityContext",
        &["appArmorProfile", "privileged", "procMount", "seLinuxOptions", "seccompProfile", "windowsOptions"],
    ),
    ("Capabilities", &["add"]),
    ("EnvVarSource", &["fileKeyRef"]),
    ("ContainerPort", &["hostIP", "hostPort"]),
    ("ResourceRequirements", &["claims"]),
    ("VolumeMount", &["mountPropagation", "recursiveReadOnly", "subPathExpr"]),
    ("Lifecycle", &["stopSignal"]),
    ("LifecycleHandler", &["tcpSocket"]),
    ("HttpGetAction", &["host", "httpHeaders"]),
    ("TcpSocketAction", &["host"]),
    ("Toleration", &["tolerationSeconds"]),
    ("Affinity", &["nodeAffinity", "podAffinity"]),
    ("PodAffinityTerm", &["matchLabelKeys", "mismatchLabelKeys", "namespaceSelector", "namespaces"]),
    (
        "Volume",
        &[
            "awsElasticBlockStore",
            "azureDisk",
            "azureFile",
            "cephfs",
            "cinder",
            "csi",
            "ephemeral",
            "fc",
            "flexVolume",
            "flocker",
            "gcePersistentDisk",
            "gitRepo",
            "glusterfs",
            "hostPath",
            "image",
            "iscsi",
            "nfs",
            "photonPersistentDisk",
            "portworxVolume",
            "projected",
            "quobyte",
            "rbd",
            "scaleIO",
            "storageos",
            "vsphereVolume",
        ],
    ),
    (
        "PodStatus",
        &[
            "ephemeralContainerStatuses",
            "extendedResourceClaimStatus",
            "hostIPs",
            "nominatedNodeName",
            "observedGeneration",
            "podIPs",
            "qosClass",
            "resize",
            "resourceClaimStatuses",
        ],
    ),
    (
        "ContainerStatus",
        &["allocatedResources", "allocatedResourcesStatus", "resources", "stopSignal", "user", "volumeMounts"],
    ),
    ("ContainerStateTerminated", &["containerID"]),
    ("PersistentVolumeClaimSpec", &["dataSource", "dataSourceRef", "volumeAttributesClassName", "volumeMode"]),
    (
        "PersistentVolumeClaimStatus",
        &["allocatedResourceStatuses", "allocatedResources", "currentVolumeAttributesClassName", "modifyVolumeStatus"],
    ),
    (
        "PersistentVolumeSpec",
        &[
            "awsElasticBlockStore",
            "azureDisk",
            "azureFile",
            "cephfs",
            "cinder",
            "fc",
            "flexVolume",
            "flocker",
            "gcePersistentDisk",
            "glusterfs",
            "hostPath",
            "iscsi",
            "local",
            "mountOptions",
            "nfs",
            "nodeAffinity",
            "photonPersistentDisk",
            "portworxVolume",
            "quobyte",
            "rbd",
            "scaleIO",
            "storageos",
            "volumeAttributesClassName",
            "volumeMode",
            "vsphereVolume",
        ],
    ),
    (
        "CsiPersistentVolumeSource",
        &[
            "controllerExpandSecretRef",
            "controllerPublishSecretRef",
            "fsType",
            "nodeExpandSecretRef",
            "nodePublishSecretRef",
            "nodeStageSecretRef",
            "readOnly",
            "volumeAttributes",
        ],
    ),
    ("PersistentVolumeStatus", &["lastPhaseTransitionTime"]),
    ("ObjectReference", &["fieldPath"]),
    ("StorageClass", &["allowedTopologies", "mountOptions"]),
    ("NodeSpec", &["configSource", "externalID", "podCIDRs", "providerID"]),
    (
        "NodeStatus",
        &[
            "config",
            "daemonEndpoints",
            "declaredFeatures",
            "features",
            "images",
            "phase",
            "runtimeHandlers",
            "volumesAttached",
            "volumesInUse",
        ],
    ),
    ("NodeSystemInfo", &["kubeProxyVersion", "kubeletVersion", "swap", "systemUUID"]),
    ("Service", &["status"]),
    (
        "ServiceSpec",
        &[
            "allocateLoadBalancerNodePorts",
            "clusterIPs",
            "externalIPs",
            "externalName",
            "externalTrafficPolicy",
            "healthCheckNodePort",
            "internalTrafficPolicy",
            "ipFamilies",
            "ipFamilyPolicy",
            "loadBalancerClass",
            "loadBalancerIP",
            "loadBalancerSourceRanges",
            "sessionAffinity",
            "sessionAffinityConfig",
            "trafficDistribution",
        ],
    ),
    ("ServicePort", &["appProtocol", "nodePort"]),
    ("VolumeAttachmentSource", &["inlineVolumeSpec"]),
    ("VolumeAttachmentStatus", &["attachmentMetadata"]),
    ("VolumeError", &["errorCode"]),
    ("ObjectEvent", &["action", "eventTime", "related", "reportingInstance", "series", "source"]),
];

/// Whether Kubernetes has a field that the message lacks.
pub(super) fn has_field_elsewhere(message: &str, field: &str) -> bool {
    let fields = FIELDS_ELSEWHERE.iter().find(|(known, _)| *known == message);
    fields.is_some_and(|(_, fields)| fields.contains(&field))
}

/// Whether Kubernetes has a kind that we lack.
pub(super) fn is_kind_elsewhere(kind: &str) -> bool {
    KINDS_ELSEWHERE.contains(&kind)
}

/// What is wrong with a kind that is not one of ours.
pub(super) fn explain_kind(kind: &str) -> String {
    if is_kind_elsewhere(kind) {
        return format!("kind {kind:?} is known to Kubernetes, not supported here");
    }
    match closest(kind, KINDS.iter().map(|known| known.kind)) {
        Some(meant) => format!("kind {kind:?}: did you mean {meant:?}?"),
        None => {
            let all: Vec<_> = KINDS.iter().map(|known| known.kind).collect();
            format!("kind {kind:?} is unknown: the kinds are {}", all.join(", "))
        }
    }
}

/// The one of `candidates` that was probably meant.
pub(super) fn closest<'a>(given: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let folded = given.to_lowercase().replace(['_', '-'], "");
    candidates
        .map(|candidate| (strsim::osa_distance(&folded, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| distance * 3 <= candidate.len().max(folded.len()))
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspellings_find_their_word() {
        let fields = ["name", "image", "replicas", "volumeClaimTemplates", "serviceName", "env"];
        let table = [
            ("naem", Some("name")),
            ("Name", Some("name")),
            ("replica", Some("replicas")),
            ("volume_claim_templates", Some("volumeClaimTemplates")),
            ("volumeClaimTemplate", Some("volumeClaimTemplates")),
            ("colour", None),
            ("x", None),
        ];
        for (given, meant) in table {
            assert_eq!(closest(given, fields.into_iter()), meant, "{given}");
        }
    }

    #[test]
    fn kinds_are_explained() {
        let table = [
            ("Deployment", "kind \"Deployment\" is known to Kubernetes, not supported here"),
            ("statefulset", "kind \"statefulset\": did you mean \"StatefulSet\"?"),
            ("StatfulSet", "kind \"StatfulSet\": did you mean \"StatefulSet\"?"),
        ];
        for (kind, message) in table {
            assert_eq!(explain_kind(kind), message);
        }
        assert!(explain_kind("Banana").contains("is unknown: the kinds are StatefulSet, "));
    }
}
