//! What the processes of a pod may do: as whom they run, and what they give up. Plain data, valid once it exists;
//! the edge has parsed and checked it.

use crate::id::Name;

/// Every capability of Linux as manifests name it, in the order of their numbers.
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
/// What stands for all of them.
pub const ALL_CAPABILITIES: &str = "ALL";

/// What holds for every container of a pod, unless it says otherwise itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSecurity {
    /// The user; the agent's own, or root in a sandbox, if absent.
    pub run_as_user: Option<u32>,
    /// The group.
    pub run_as_group: Option<u32>,
    /// Whether running as root is refused.
    pub run_as_non_root: Option<bool>,
    /// Further groups of every process.
    pub supplemental_groups: Vec<u32>,
    /// The group that owns the pod's volumes, and is one of every process.
    pub fs_group: Option<u32>,
}

/// What holds for one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerSecurity {
    /// The user, instead of the pod's.
    pub run_as_user: Option<u32>,
    /// The group, instead of the pod's.
    pub run_as_group: Option<u32>,
    /// Whether running as root is refused, instead of what the pod says.
    pub run_as_non_root: Option<bool>,
    /// Whether only volumes can be written.
    pub has_read_only_root: Option<bool>,
    /// Whether a program may give more privileges than whoever starts it has; it may if absent.
    pub allows_escalation: Option<bool>,
    /// Capabilities that even root does not have: some of [`CAPABILITIES`], or [`ALL_CAPABILITIES`].
    pub dropped_capabilities: Vec<Name>,
}
