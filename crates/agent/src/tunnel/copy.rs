//! Files to and from a container, through a tunnel: our own program, run beside it, packs and unpacks them there.
//! Never sees more of the node than a command beside the container would.

use std::path::{Path, PathBuf};

use api::internal::{CopyWish, ExecWish, TunnelFrame};
use domain::id::Uid;
use tokio::sync::mpsc;
use tonic::Streaming;

use super::{End, exec};
use crate::archive;
use crate::environment::mirrored;
use crate::layout;
use crate::pods::Site;
use crate::sandbox::OWN_PROGRAM;

/// Copies until all is there, or the other side of the tunnel has left.
pub(crate) async fn copy(
    site: &Site,
    pod: u64,
    container: &str,
    wish: &CopyWish,
    outgoing: &mpsc::Sender<TunnelFrame>,
    incoming: &mut Streaming<TunnelFrame>,
) -> Option<End> {
    let program = if site.sandbox.is_some() { OWN_PROGRAM.to_owned() } else { site.exe.display().to_string() };
    let path = match site.sandbox {
        Some(_) => PathBuf::from(&wish.path),
        None => host_path(&layout::root_dir(&layout::pod_dir(&site.data_dir, Uid(pod))), &wish.path),
    };
    let verb = if wish.to_container { archive::UNPACK } else { archive::PACK };
    let command = vec![program, archive::VERB.to_owned(), verb.to_owned(), path.display().to_string()];
    let wish = ExecWish { command, stdin: wish.to_container, tty: false, size: None };
    exec::exec(site, pod, container, wish, outgoing, incoming).await
}

/// Where a path is for a container that is a plain process of the host: in the pod's directory if that has it, or its
/// place; elsewhere the host's.
fn host_path(root: &Path, path: &str) -> PathBuf {
    let is_there =
        |path: &Path| path.exists() || (path != root && path.parent().is_some_and(|dir| dir != root && dir.exists()));
    match mirrored(root, path) {
        Some(in_pod) if Path::new(path).is_absolute() && is_there(&in_pod) => in_pod,
        Some(_) | None => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_pods_where_the_pod_has_it() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        std::fs::create_dir_all(root.join("data")).unwrap();
        for (path, in_pod) in [("/data", true), ("/data/new", true), ("/data/new/er", false), ("/etc/hosts", false)] {
            let expected = if in_pod { root.join(&path[1..]) } else { PathBuf::from(path) };
            assert_eq!(host_path(root, path), expected);
        }
        assert_eq!(host_path(root, "data/file"), Path::new("data/file"));
        assert_eq!(host_path(root, "/new"), Path::new("/new"));
    }
}
