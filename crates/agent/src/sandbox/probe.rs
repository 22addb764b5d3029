//! Finding out at the agent's start which kind of sandbox this machine allows, by making one.
//! Never remembers: kernels, users and configurations change between two starts.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::{RootKind, Sandbox, SandboxKind};
use crate::confine::Limits;
use crate::files;
use crate::privileges::Privileges;
use crate::process::{ProcessRuntime, RunSpec};

/// A sandbox that is not there by then is none.
const TIMEOUT: Duration = Duration::from_secs(10);
const CONTAINER: &str = "probe";

/// What was found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probed {
    /// The best kind that works.
    pub kind: Option<SandboxKind>,
    /// Why better kinds do not, best first.
    pub refusals: Vec<String>,
}

/// Tries every kind of sandbox, best first, until one works. `dir` is removed afterwards.
pub async fn probe(runtime: &ProcessRuntime, dir: &Path) -> Probed {
    let mut refusals = Vec::new();
    for (attempt, kind) in (0..).zip(kinds(rustix::process::geteuid().is_root())) {
        let tried = tokio::time::timeout(TIMEOUT, try_kind(runtime, dir, attempt, kind)).await;
        let refusal = match tried {
            Ok(Ok(())) => {
                let _ = files::remove_tree(dir);
                return Probed { kind: Some(kind), refusals };
            }
            Ok(Err(refusal)) => refusal,
            Err(_) => format!("nothing happened for {} s", TIMEOUT.as_secs()),
        };
        let user = if kind.has_user_namespace { ", in a user namespace" } else { "" };
        refusals.push(format!("{}{user}: {refusal}", kind.describe()));
    }
    crate::process::kill_everything_under(dir).await;
    let _ = files::remove_tree(dir);
    Probed { kind: None, refusals }
}

/// Root may lack the privileges of root, as in a container; then it is worth a try as anybody else does.
fn kinds(is_root: bool) -> Vec<SandboxKind> {
    let roots = [RootKind::Overlay, RootKind::OverlayInMemory, RootKind::Bind];
    let kind = |has_user_namespace| move |root| SandboxKind { has_user_namespace, root };
    let as_root = is_root.then(|| roots.map(kind(false))).into_iter().flatten();
    as_root.chain(roots.map(kind(true))).collect()
}

async fn try_kind(runtime: &ProcessRuntime, dir: &Path, attempt: u32, kind: SandboxKind) -> Result<(), String> {
    let volume = dir.join("volume");
    std::fs::create_dir_all(&volume).map_err(|error| format!("making {}: {error}", volume.display()))?;
    let target = "/var/lib/holdfast-probe/volume";
    let sandbox = Sandbox {
        kind,
        hostname: CONTAINER.to_owned(),
        files: BTreeMap::from([("/etc/hosts".into(), String::new())]),
        shared_files: BTreeMap::new(),
        volumes: vec![super::SandboxVolume { source: volume, target: target.into(), is_read_only: false }],
        writable: Vec::new(),
        hidden: Vec::new(),
        is_root_read_only: false,
    };
    let spec = RunSpec {
        pod_dir: dir.to_owned(),
        container: CONTAINER.to_owned(),
        attempt,
        argv: vec!["true".to_owned()],
        env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        cwd: target.into(),
        sandbox: Some(sandbox),
        privileges: Privileges::default(),
        limits: Limits::default(),
        input: crate::shim::Input::default(),
    };
    let with_causes = |error: crate::process::RuntimeError| crate::pods::with_causes(&error);
    let handle = runtime.start(&spec).await.map_err(with_causes)?;
    let status = runtime.wait(&handle).await.map_err(with_causes)?;
    match status.message {
        // A machine without that little program can have sandboxes all the same.
        Some(message) if !message.starts_with("cannot run") => Err(message),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_comes_first_and_only_root_goes_without_a_user_namespace() {
        let best = |is_root| kinds(is_root)[0];
        assert_eq!(best(true), SandboxKind { has_user_namespace: false, root: RootKind::Overlay });
        assert_eq!(best(false), SandboxKind { has_user_namespace: true, root: RootKind::Overlay });
        assert!(kinds(false).iter().all(|kind| kind.has_user_namespace));
    }
}
