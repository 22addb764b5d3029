//! Security contexts: as whom processes run, and what they give up. Never decides which node can do that.

use super::check::{At, FieldError};
use crate::v1;
use domain::id::Name;
use domain::security::{ALL_CAPABILITIES, CAPABILITIES, ContainerSecurity, PodSecurity};

/// As Kubernetes has it.
const ID_MAX: i64 = i32::MAX as i64;

pub(super) fn pod_security_from_wire(
    wire: Option<&v1::PodSecurityContext>,
    at: At<'_>,
) -> Result<PodSecurity, FieldError> {
    let Some(wire) = wire else { return Ok(PodSecurity::default()) };
    let groups = wire.supplemental_groups.iter().enumerate();
    Ok(PodSecurity {
        run_as_user: id(wire.run_as_user, at.to("runAsUser"))?,
        run_as_group: id(wire.run_as_group, at.to("runAsGroup"))?,
        run_as_non_root: wire.run_as_non_root,
        supplemental_groups: groups
            .map(|(index, group)| number(*group, at.item("supplementalGroups", index)))
            .collect::<Result<_, _>>()?,
        fs_group: id(wire.fs_group, at.to("fsGroup"))?,
    })
}

pub(super) fn container_security_from_wire(
    wire: Option<&v1::SecurityContext>,
    at: At<'_>,
) -> Result<ContainerSecurity, FieldError> {
    let Some(wire) = wire else { return Ok(ContainerSecurity::default()) };
    let capabilities_at = at.to("capabilities");
    let dropped = wire.capabilities.iter().flat_map(|capabilities| &capabilities.drop).enumerate();
    Ok(ContainerSecurity {
        run_as_user: id(wire.run_as_user, at.to("runAsUser"))?,
        run_as_group: id(wire.run_as_group, at.to("runAsGroup"))?,
        run_as_non_root: wire.run_as_non_root,
        has_read_only_root: wire.read_only_root_filesystem,
        allows_escalation: wire.allow_privilege_escalation,
        dropped_capabilities: dropped
            .map(|(index, name)| capability(name, capabilities_at.item("drop", index)))
            .collect::<Result<_, _>>()?,
    })
}

fn id(wire: Option<i64>, at: At<'_>) -> Result<Option<u32>, FieldError> {
    wire.map(|id| number(id, at)).transpose()
}

fn number(id: i64, at: At<'_>) -> Result<u32, FieldError> {
    let refused = || at.refuse(format_args!("must be 0 to {ID_MAX}, and is {id}"));
    if id <= ID_MAX { u32::try_from(id).map_err(|_| refused()) } else { Err(refused()) }
}

fn capability(name: &str, at: At<'_>) -> Result<Name, FieldError> {
    if name == ALL_CAPABILITIES || CAPABILITIES.contains(&name) {
        return Ok(name.into());
    }
    let rule = format_args!("must be a capability of Linux such as \"NET_RAW\", or \"ALL\", and is {name:?}");
    Err(at.refuse(rule))
}

pub(super) fn pod_security_to_wire(security: &PodSecurity) -> Option<v1::PodSecurityContext> {
    let wire = v1::PodSecurityContext {
        run_as_user: security.run_as_user.map(i64::from),
        run_as_group: security.run_as_group.map(i64::from),
        run_as_non_root: security.run_as_non_root,
        supplemental_groups: security.supplemental_groups.iter().copied().map(i64::from).collect(),
        fs_group: security.fs_group.map(i64::from),
    };
    (wire != v1::PodSecurityContext::default()).then_some(wire)
}

pub(super) fn container_security_to_wire(security: &ContainerSecurity) -> Option<v1::SecurityContext> {
    let drop: Vec<_> = security.dropped_capabilities.iter().map(Name::to_string).collect();
    let wire = v1::SecurityContext {
        run_as_user: security.run_as_user.map(i64::from),
        run_as_group: security.run_as_group.map(i64::from),
        run_as_non_root: security.run_as_non_root,
        read_only_root_filesystem: security.has_read_only_root,
        allow_privilege_escalation: security.allows_escalation,
        capabilities: (!drop.is_empty()).then_some(v1::Capabilities { drop }),
    };
    (wire != v1::SecurityContext::default()).then_some(wire)
}
