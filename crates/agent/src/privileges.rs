//! What the processes of a container may do: from the security contexts of a pod, and taken on by a process itself.
//! Never decides what a pod should ask for; what this node cannot do is refused, by the name of the field.

use std::io;

use domain::security::{ALL_CAPABILITIES, CAPABILITIES};
use domain::spec::{Container, Template};
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use crate::sandbox::SandboxKind;

/// Before the [`Privileges`] that a hidden verb is to take on.
pub(crate) const PRIVILEGES_FLAG: &str = "--privileges";
const ROOT: u32 = 0;

/// As whom a process runs, and what it gives up; the default changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Privileges {
    pub user: Option<u32>,
    pub group: Option<u32>,
    /// All groups beside the first.
    pub groups: Option<Vec<u32>>,
    /// Capabilities that no program has from here on, by their bits.
    pub dropped_capabilities: u64,
    pub has_no_new: bool,
}

/// What the agent of this node can let containers be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Powers {
    is_sandboxed: bool,
    /// `None`: anybody.
    only: Option<(u32, u32)>,
}

impl Powers {
    /// Those of this process, with the sandboxes that it makes.
    pub(crate) fn of_self(sandbox: Option<SandboxKind>) -> Self {
        let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let only = match sandbox {
            // Nobody else is mapped there.
            Some(kind) if kind.has_user_namespace => Some((ROOT, ROOT)),
            _ if user == ROOT => None,
            _ => Some((user, group)),
        };
        Self { is_sandboxed: sandbox.is_some(), only }
    }

    /// What a container is to have, or in a sentence why this node cannot give it that.
    pub(crate) fn privileges(&self, template: &Template, container: &Container) -> Result<Privileges, String> {
        let (pod, own) = (&template.security, &container.security);
        let (user, group) = (own.run_as_user.or(pod.run_as_user), own.run_as_group.or(pod.run_as_group));
        let is_root_refused = own.run_as_non_root.or(pod.run_as_non_root).unwrap_or(false);
        if is_root_refused && user.unwrap_or(self.only.map_or(ROOT, |(user, _)| user)) == ROOT {
            return Err(
                "securityContext.runAsNonRoot: the container would run as root; runAsUser says as whom else".into()
            );
        }
        if own.has_read_only_root == Some(true) && !self.is_sandboxed {
            return Err(
                "securityContext.readOnlyRootFilesystem: containers of this node are plain processes of the host; \
                        a root of their own needs a sandbox"
                    .into(),
            );
        }
        let mut dropped_capabilities = bits(container);
        let has_no_new = own.allows_escalation == Some(false);
        let mut groups = pod.supplemental_groups.clone();
        groups.extend(pod.fs_group.filter(|group| !groups.contains(group)));
        let Some((own_user, own_group)) = self.only else {
            let is_other = user.is_some() || group.is_some() || !groups.is_empty();
            let (group, groups) = (group.or(user.map(|_| ROOT)), is_other.then_some(groups));
            return Ok(Privileges { user, group, groups, dropped_capabilities, has_no_new });
        };
        let asked = [
            ("runAsUser", user.filter(|user| *user != own_user)),
            ("runAsGroup", group.filter(|group| *group != own_group)),
            ("supplementalGroups", pod.supplemental_groups.first().copied()),
            ("fsGroup", pod.fs_group),
        ];
        if let Some((field, id)) = asked.into_iter().find_map(|(field, id)| Some((field, id?))) {
            return Err(format!(
                "securityContext.{field}: {id} cannot be had on this node, whose agent is not root: \
                 all that runs here is user {own_user} of group {own_group}"
            ));
        }
        if dropped_capabilities != 0 && !self.is_sandboxed {
            if !has_no_new {
                return Err(
                    "securityContext.capabilities.drop: the agent of this node is not root and cannot take them \
                            from programs that are set to run as root; allowPrivilegeEscalation: false does"
                        .into(),
                );
            }
            // Who is not root has none, and now cannot come by any.
            dropped_capabilities = 0;
        }
        Ok(Privileges { dropped_capabilities, has_no_new, ..Privileges::default() })
    }
}

fn bits(container: &Container) -> u64 {
    let dropped = |name: &str| container.security.dropped_capabilities.iter().any(|dropped| dropped.as_str() == name);
    if dropped(ALL_CAPABILITIES) {
        // Those, too, that a newer kernel has.
        return u64::MAX;
    }
    CAPABILITIES.iter().enumerate().filter(|(_, name)| dropped(name)).fold(0, |bits, (number, _)| bits | 1 << number)
}

impl Privileges {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The arguments by which a hidden verb takes them on.
    pub(crate) fn arguments(&self) -> Vec<String> {
        if self.is_default() {
            return Vec::new();
        }
        let text = serde_json::to_string(self).expect("invariant: numbers and flags have a JSON form");
        vec![PRIVILEGES_FLAG.to_owned(), text]
    }

    /// Makes the calling process, which has one thread, be so, and all that it starts.
    pub(crate) fn take_on(&self) -> io::Result<()> {
        // The kernel forgets it with the user.
        let tie = rustix::process::parent_process_death_signal()?;
        drop_capabilities(CapabilitySet::from_bits_retain(self.dropped_capabilities))?;
        if let Some(groups) = &self.groups {
            let groups: Vec<_> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
            rustix::thread::set_thread_groups(&groups)?;
        }
        if let Some(group) = self.group {
            rustix::thread::set_thread_gid(Gid::from_raw(group))?;
        }
        if let Some(user) = self.user {
            give_streams(Uid::from_raw(user));
            rustix::thread::set_thread_uid(Uid::from_raw(user))?;
        }
        if self.has_no_new {
            rustix::thread::set_no_new_privs(true)?;
        }
        Ok(rustix::process::set_parent_process_death_signal(tie)?)
    }
}

/// Takes capabilities from all programs that are started from here on.
pub(crate) fn drop_capabilities(dropped: CapabilitySet) -> io::Result<()> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if !dropped.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // The kernel has no more of them.
            Err(Errno::INVAL) => break,
            removed => removed?,
        }
    }
    Ok(())
}

/// Programs open `/dev/stdout` anew, which only the owner of a pipe or a terminal may.
fn give_streams(user: Uid) {
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let is_pipe =
            rustix::fs::fstat(stream).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        if is_pipe || rustix::termios::isatty(stream) {
            // Whoever only writes to what is open already does not miss it.
            let _ = rustix::fs::fchown(stream, Some(user), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::security::{ContainerSecurity, PodSecurity};

    const ROOTS: Powers = Powers { is_sandboxed: true, only: None };
    const ROOTS_ON_HOST: Powers = Powers { is_sandboxed: false, only: None };
    const SOMEBODYS: Powers = Powers { is_sandboxed: false, only: Some((1_000, 100)) };
    const SOMEBODYS_SANDBOX: Powers = Powers { is_sandboxed: true, only: Some((0, 0)) };

    fn privileges(powers: Powers, pod: PodSecurity, own: ContainerSecurity) -> Result<Privileges, String> {
        let template = Template { security: pod, ..Template::default() };
        powers.privileges(&template, &Container { security: own, ..Container::default() })
    }

    fn user(user: u32) -> PodSecurity {
        PodSecurity { run_as_user: Some(user), ..PodSecurity::default() }
    }

    #[test]
    fn a_container_says_otherwise_than_its_pod() {
        let pod = PodSecurity { supplemental_groups: vec![4, 5], fs_group: Some(4), ..user(1_000) };
        let own = ContainerSecurity { run_as_user: Some(7), run_as_group: Some(8), ..ContainerSecurity::default() };
        let groups = Some(vec![4, 5]);
        let expected = Privileges { user: Some(7), group: Some(8), groups: groups.clone(), ..Privileges::default() };
        assert_eq!(privileges(ROOTS, pod.clone(), own), Ok(expected));
        let expected = Privileges { user: Some(1_000), group: Some(0), groups, ..Privileges::default() };
        assert_eq!(privileges(ROOTS, pod, ContainerSecurity::default()), Ok(expected));
        assert!(privileges(ROOTS, PodSecurity::default(), ContainerSecurity::default()).unwrap().is_default());
    }

    #[test]
    fn what_a_node_cannot_do_is_refused_by_the_name_of_the_field() {
        let own = ContainerSecurity::default;
        let non_root = PodSecurity { run_as_non_root: Some(true), ..PodSecurity::default() };
        let read_only = ContainerSecurity { has_read_only_root: Some(true), ..own() };
        let dropping = ContainerSecurity { dropped_capabilities: vec!["ALL".into()], ..own() };
        let group = PodSecurity { run_as_group: Some(9), ..PodSecurity::default() };
        let more = PodSecurity { supplemental_groups: vec![9], ..PodSecurity::default() };
        let volumes = PodSecurity { fs_group: Some(100), ..PodSecurity::default() };
        let nothing = PodSecurity::default;
        let table = [
            (ROOTS, non_root.clone(), own(), "runAsNonRoot"),
            (SOMEBODYS_SANDBOX, non_root.clone(), own(), "runAsNonRoot"),
            (ROOTS, PodSecurity { run_as_user: Some(0), ..non_root.clone() }, own(), "runAsNonRoot"),
            (ROOTS_ON_HOST, nothing(), read_only.clone(), "readOnlyRootFilesystem"),
            (SOMEBODYS, user(0), own(), "runAsUser"),
            (SOMEBODYS_SANDBOX, user(1_000), own(), "runAsUser"),
            (SOMEBODYS, group, own(), "runAsGroup"),
            (SOMEBODYS, more, own(), "supplementalGroups"),
            (SOMEBODYS, volumes, own(), "fsGroup"),
            (SOMEBODYS, nothing(), dropping.clone(), "capabilities.drop"),
        ];
        for (powers, pod, own, field) in table {
            let refusal = privileges(powers, pod, own).expect_err(field);
            assert!(refusal.starts_with(&format!("securityContext.{field}: ")), "{refusal}");
        }
        let harmless = [
            (SOMEBODYS, PodSecurity { run_as_user: Some(1_000), ..non_root.clone() }, own()),
            (SOMEBODYS, non_root, own()),
            (SOMEBODYS, nothing(), ContainerSecurity { allows_escalation: Some(false), ..dropping.clone() }),
            (SOMEBODYS_SANDBOX, user(0), dropping),
            (ROOTS, nothing(), read_only),
        ];
        for (powers, pod, own) in harmless {
            privileges(powers, pod, own).unwrap();
        }
    }

    #[test]
    fn capabilities_have_the_numbers_of_the_kernel() {
        let own = |name: &str| ContainerSecurity { dropped_capabilities: vec![name.into()], ..Default::default() };
        for (name, capability) in [
            ("CHOWN", CapabilitySet::CHOWN),
            ("NET_RAW", CapabilitySet::NET_RAW),
            ("SETFCAP", CapabilitySet::SETFCAP),
            ("CHECKPOINT_RESTORE", CapabilitySet::CHECKPOINT_RESTORE),
        ] {
            let dropped = privileges(ROOTS, PodSecurity::default(), own(name)).unwrap().dropped_capabilities;
            assert_eq!(dropped, capability.bits(), "{name}");
        }
    }
}
