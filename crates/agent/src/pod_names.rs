//! The files of a pod by which its programs look names up: `/etc/hosts` and `/etc/resolv.conf`. They are the pod's, on
//! the host, and appear in its sandboxes; what changes is written in place, since a file that takes another's place is
//! not seen there.
//!
//! `/etc/hosts` needs no privilege and no agent that lives: it has the addresses of the pod's own namespace, then of the
//! others, as far as there is room. What it cannot say (ports, what has no room) the agent's DNS server says, where
//! it may have the port that resolvers ask.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use domain::Names;
use domain::agent::AssignedPod;
use domain::id::{Key, Revision};
use domain::names::{CLUSTER_DOMAIN, pod_host, service_host};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::layout;
use crate::names::Known;

/// More lines than this are left out, those of other namespaces first: every program reads the file from its beginning.
const LINES_MAX: usize = 1_000;
const HOSTS: &str = "hosts";
const RESOLV_CONF: &str = "resolv.conf";
/// What the files depend on besides the names; found again by the next agent.
const POD_FILE: &str = "pod.json";

/// The files of this node's pods.
#[derive(Debug)]
pub(crate) struct PodNames {
    data_dir: PathBuf,
    known: Known,
    /// Where resolvers are sent, if they can be.
    resolver: Option<SocketAddr>,
    /// One writes at a time, and always what is known then.
    turn: Mutex<()>,
}

/// Whose files they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    name: String,
    namespace: String,
    service: String,
    address: u32,
}

impl PodNames {
    pub(crate) const fn new(data_dir: PathBuf, known: Known, resolver: Option<SocketAddr>) -> Self {
        Self { data_dir, known, resolver, turn: Mutex::new(()) }
    }

    /// Makes a pod's files, and says where each appears: path in the sandbox, and on the host.
    pub(crate) fn make(&self, pod_dir: &Path, pod: &AssignedPod) -> io::Result<[(PathBuf, PathBuf); 2]> {
        let dir = layout::names_dir(pod_dir);
        fs::create_dir_all(&dir)?;
        let owner = Owner {
            name: pod.pod.name.to_string(),
            namespace: pod.pod.namespace.to_string(),
            service: pod.service_name.to_string(),
            address: pod.address,
        };
        files::write_json(&dir.join(POD_FILE), &owner)?;
        self.write(&dir, &owner)?;
        Ok([HOSTS, RESOLV_CONF].map(|name| (Path::new("/etc").join(name), dir.join(name))))
    }

    /// Keeps the files of all pods up to date, for as long as it is polled.
    pub(crate) async fn keep_up(self: Arc<Self>) {
        let mut names = self.known.names.clone();
        while names.changed().await.is_ok() {
            names.mark_unchanged();
            let files = Arc::clone(&self);
            if let Err(error) = tokio::task::spawn_blocking(move || files.write_all()).await {
                tracing::warn!(%error, "writing pods' names");
            }
        }
    }

    fn write_all(&self) {
        for uid in layout::pods(&self.data_dir) {
            let dir = layout::names_dir(&layout::pod_dir(&self.data_dir, uid));
            let written = match files::read_json::<Owner>(&dir.join(POD_FILE)) {
                Ok(Some(owner)) => self.write(&dir, &owner),
                // A pod without a sandbox, or one that is being removed.
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = written {
                tracing::warn!(pod = %uid, %error, "writing a pod's names");
            }
        }
    }

    fn write(&self, dir: &Path, owner: &Owner) -> io::Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let hosts_file = dir.join(HOSTS);
        let hosts = {
            let names = self.known.names.borrow();
            // What an earlier agent knew is better than nothing.
            let is_told = names.revision != Revision(0);
            (is_told || !hosts_file.exists()).then(|| hosts(owner, &names))
        };
        if let Some(hosts) = hosts {
            write_in_place(&hosts_file, &hosts)?;
        }
        let of_host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let resolv_conf = match self.resolver {
            Some(resolver) => resolv_conf(resolver, &owner.namespace, &of_host),
            None => of_host,
        };
        write_in_place(&dir.join(RESOLV_CONF), &resolv_conf)
    }
}

/// Whoever reads meanwhile finds the beginning of the new text at once, and at worst an end of the old one after it.
fn write_in_place(path: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

/// What a resolver in a pod is told.
fn resolv_conf(resolver: SocketAddr, namespace: &str, of_host: &str) -> String {
    let of_host = of_host.lines().filter_map(|line| line.strip_prefix("search ")).next_back().unwrap_or_default();
    let search = format!("{namespace}.svc.{CLUSTER_DOMAIN} svc.{CLUSTER_DOMAIN} {CLUSTER_DOMAIN} {of_host}");
    format!("nameserver {}\nsearch {}\noptions ndots:5\n", resolver.ip(), search.trim_end())
}

/// What `/etc/hosts` says in a pod.
fn hosts(owner: &Owner, names: &Names) -> String {
    let mut text = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned();
    let address = if owner.address == 0 { Ipv4Addr::LOCALHOST } else { Ipv4Addr::from(owner.address) };
    let service = Key::new(&owner.namespace, &owner.service);
    let own_name =
        if owner.service.is_empty() { String::new() } else { pod_host(&service, &owner.name.as_str().into()) + " " };
    let _ = writeln!(text, "{address} {own_name}{}", owner.name);
    let (near, far): (Vec<_>, Vec<_>) =
        names.services().partition(|(key, _)| key.namespace.as_str() == owner.namespace);
    let lines = near.into_iter().chain(far).flat_map(|(key, service)| {
        let is_near = key.namespace.as_str() == owner.namespace;
        let of_service = aliases(&service_host(key), is_near);
        if service.address != 0 {
            return vec![(service.address, of_service)];
        }
        let line = |(pod, endpoint): (&domain::id::Name, &domain::names::Endpoint)| {
            let of_pod = if endpoint.is_member { aliases(&pod_host(key, pod), is_near) + " " } else { String::new() };
            (endpoint.address, format!("{of_pod}{of_service}"))
        };
        service.named().map(line).collect()
    });
    for (number, (address, aliases)) in lines.enumerate() {
        if number == LINES_MAX {
            text.push_str("# there are more names than have room here\n");
            break;
        }
        let _ = writeln!(text, "{} {aliases}", Ipv4Addr::from(address));
    }
    text
}

/// A whole name, and the shorter forms by which it is found from a namespace.
fn aliases(host: &str, is_near: bool) -> String {
    let within = host.strip_suffix(CLUSTER_DOMAIN).map_or(host, |within| within.trim_end_matches('.'));
    let with_namespace = within.strip_suffix(".svc").unwrap_or(within);
    let mut aliases = format!("{host} {within} {with_namespace}");
    if is_near && let Some((short, _)) = with_namespace.rsplit_once('.') {
        aliases.push(' ');
        aliases.push_str(short);
    }
    aliases
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    use domain::names::{Endpoint, NamedService, NamesUpdate};

    fn names(count: u32) -> Names {
        let endpoint = |number| Endpoint {
            address: 0x7f40_0001 + number,
            is_named: number != 1,
            is_member: true,
            ..Endpoint::default()
        };
        let pods =
            (0..count).map(|number| (domain::id::Name::from(format!("db-{number}")), endpoint(number))).collect();
        let db = NamedService { pods, ..NamedService::default() };
        let api = NamedService { address: 0x7f70_0001, ..NamedService::default() };
        let services = vec![(Key::new("default", "db"), Arc::new(db)), (Key::new("a", "api"), Arc::new(api))];
        let mut names = Names::default();
        names.update(NamesUpdate { services, ..NamesUpdate::default() });
        names
    }

    fn owner() -> Owner {
        let [name, namespace, service] = ["db-1", "default", "db"].map(str::to_owned);
        Owner { name, namespace, service, address: 0x7f40_0002 }
    }

    #[test]
    fn a_pod_finds_itself_then_its_namespace_then_the_rest() {
        let expected = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n\
            127.64.0.2 db-1.db.default.svc.cluster.local db-1\n\
            127.64.0.1 db-0.db.default.svc.cluster.local db-0.db.default.svc db-0.db.default db-0.db \
            db.default.svc.cluster.local db.default.svc db.default db\n\
            127.112.0.1 api.a.svc.cluster.local api.a.svc api.a\n";
        assert_eq!(hosts(&owner(), &names(2)), expected);
    }

    #[test]
    fn there_is_room_for_so_many() {
        let text = hosts(&owner(), &names(2_000));
        assert_eq!(text.lines().count(), 3 + LINES_MAX + 1);
        assert!(text.ends_with("have room here\n"));
    }

    #[test]
    fn what_changes_is_written_into_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        let mut inodes = Vec::new();
        for text in ["a long text\n", "short\n", "", "again longer\n"] {
            write_in_place(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            inodes.push(fs::metadata(&path).unwrap().ino());
        }
        inodes.dedup();
        assert_eq!(inodes.len(), 1);
    }

    #[test]
    fn resolvers_are_sent_to_the_agent() {
        let resolver = "127.53.0.7:53".parse().unwrap();
        let expected = "nameserver 127.53.0.7\nsearch db.svc.cluster.local svc.cluster.local cluster.local x.org\n\
            options ndots:5\n";
        assert_eq!(resolv_conf(resolver, "db", "nameserver 10.0.0.1\nsearch x.org\n"), expected);
        assert!(resolv_conf(resolver, "db", "").contains("cluster.local\noptions"));
    }
}
