//! What a container finds in its environment: who it is, where its volumes are, and what its spec sets.
//! Never reads the agent's own environment; the caller hands over what may pass.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};

/// Who and where a pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub ordinal: Option<u32>,
    pub ip: IpAddr,
    pub node: String,
    /// Where the node answers names over DNS, if it does.
    pub dns: Option<SocketAddr>,
    /// The directory under which the mount paths are mirrored.
    pub root: PathBuf,
    /// The node's own directory.
    pub node_dir: PathBuf,
    /// Volume mounts: name and the path on the host where it is found.
    pub mounts: Vec<(String, PathBuf)>,
    /// PATH and HOME of the host.
    pub path: String,
    pub home: String,
}

/// The environment of a container: the pod's facts, then its own variables in their order.
///
/// `$(NAME)` in a value stands for a variable set before it, `$$` for a dollar; an unknown name is left as written.
pub fn environment(facts: &PodFacts, own: &[(String, String)]) -> BTreeMap<String, String> {
    let mut env: BTreeMap<String, String> = [
        ("PATH", facts.path.clone()),
        ("HOME", facts.home.clone()),
        ("POD_NAME", facts.name.clone()),
        ("POD_NAMESPACE", facts.namespace.clone()),
        ("POD_UID", facts.uid.clone()),
        ("POD_IP", facts.ip.to_string()),
        ("HOSTNAME", facts.name.clone()),
        ("NODE_NAME", facts.node.clone()),
        ("HOLDFAST_ROOT", facts.root.display().to_string()),
        ("HOLDFAST_NODE_DIR", facts.node_dir.display().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    if let Some(ordinal) = facts.ordinal {
        env.insert("POD_ORDINAL".to_owned(), ordinal.to_string());
    }
    if let Some(dns) = facts.dns {
        env.insert("HOLDFAST_DNS".to_owned(), dns.to_string());
    }
    for (name, path) in &facts.mounts {
        env.insert(mount_variable(name), path.display().to_string());
    }
    for (name, value) in own {
        let value = expand(value, &env);
        env.insert(name.clone(), value);
    }
    env
}

/// The variable that says where a volume mount is found on the host.
pub fn mount_variable(mount: &str) -> String {
    format!("HOLDFAST_MOUNT_{}", mount.to_ascii_uppercase().replace(['-', '.'], "_"))
}

/// Expands `$(NAME)` as Kubernetes does in `env`, `command` and `args`.
pub fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        expanded.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
            continue;
        }
        let reference = rest.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        match reference.and_then(|(name, after)| Some((env.get(name)?, after))) {
            Some((value, after)) => {
                expanded.push_str(value);
                rest = after;
            }
            None => expanded.push('$'),
        }
    }
    expanded.push_str(rest);
    expanded
}

/// Where `path`, as the container's spec writes it, is found under the pod's root.
///
/// `None` for a path that would lead out of it.
pub fn mirrored(root: &Path, path: &str) -> Option<PathBuf> {
    let mut mirrored = root.to_owned();
    for component in Path::new(path).components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => mirrored.push(name),
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(mirrored)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> PodFacts {
        PodFacts {
            name: "web-1".to_owned(),
            namespace: "default".to_owned(),
            uid: "u-7".to_owned(),
            ordinal: Some(1),
            ip: "127.64.0.9".parse().unwrap(),
            node: "n2".to_owned(),
            dns: Some("127.53.0.1:1053".parse().unwrap()),
            root: "/pods/u-7/root".into(),
            node_dir: "/nodes/n2".into(),
            mounts: vec![("www-data".to_owned(), "/pods/u-7/root/srv".into())],
            path: "/usr/bin:/bin".to_owned(),
            home: "/root".to_owned(),
        }
    }

    #[test]
    fn a_container_knows_who_it_is() {
        let env = environment(&facts(), &[]);
        assert_eq!(env["POD_NAME"], "web-1");
        assert_eq!(env["POD_ORDINAL"], "1");
        assert_eq!(env["HOSTNAME"], "web-1");
        assert_eq!(env["HOLDFAST_DNS"], "127.53.0.1:1053");
        assert_eq!(env["HOLDFAST_MOUNT_WWW_DATA"], "/pods/u-7/root/srv");
    }

    #[test]
    fn variables_refer_to_earlier_ones_only() {
        let own = [("A", "$(POD_NAME).svc"), ("B", "$(A)/$(C)"), ("C", "$$(A) $x $("), ("D", "€$")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let env = environment(&facts(), &own);
        assert_eq!(env["A"], "web-1.svc");
        assert_eq!(env["B"], "web-1.svc/$(C)");
        assert_eq!(env["C"], "$(A) $x $(");
        assert_eq!(env["D"], "€$");
    }

    #[test]
    fn mount_paths_stay_under_the_root() {
        assert_eq!(mirrored(Path::new("/r"), "/data/db"), Some("/r/data/db".into()));
        assert_eq!(mirrored(Path::new("/r"), "/data/../../etc"), None);
    }
}
