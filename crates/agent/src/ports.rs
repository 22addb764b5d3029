//! Which port a workload can really listen on: without privilege, ports below 1024 are moved up by 8000.
//! Never binds anything.

use std::fs;

/// The first port that any user may bind, unless the kernel says otherwise.
const UNPRIVILEGED_PORT_START: u16 = 1024;
/// Where a privileged port goes when it is not permitted: 80 becomes 8080, 443 becomes 8443.
const UNPRIVILEGED_OFFSET: u16 = 8000;

/// The port that takes the place of `port` for processes of this user.
pub fn effective(port: u16) -> u16 {
    effective_from(port, first_permitted())
}

fn effective_from(port: u16, first_permitted: u16) -> u16 {
    if first_permitted <= port {
        return port;
    }
    port.saturating_add(UNPRIVILEGED_OFFSET)
}

/// The lowest port that processes of this user may bind.
pub(crate) fn first_permitted() -> u16 {
    if rustix::process::geteuid().is_root() {
        return 0;
    }
    fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(UNPRIVILEGED_PORT_START)
}

#[cfg(test)]
mod tests {
    use super::effective_from;

    #[test]
    fn privileged_ports_move_up_only_when_they_are_not_permitted() {
        assert_eq!(effective_from(80, 1024), 8080);
        assert_eq!(effective_from(443, 1024), 8443);
        assert_eq!(effective_from(80, 80), 80);
        assert_eq!(effective_from(6379, 1024), 6379);
    }
}
