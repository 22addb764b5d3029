//! One container: from its spec to a process that is watched until nothing of it is left.
//! Never starts it again.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent_core::{Failure, Input, LiveContainer, LiveContainerState};
use domain::agent::AssignedPod;
use domain::id::{Name, Uid};
use domain::spec::{self, LocalSource, ProbeAction};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::confine::{Limits, PIDS_MAX};
use crate::environment::{self, PodFacts, mirrored};
use crate::files;
use crate::image;
use crate::layout;
use crate::local_volume;
use crate::pods::{Site, with_causes};
use crate::privileges::Powers;
use crate::probe::{self, Probe};
use crate::process::{self, Adoption, Handle, RunSpec, Surroundings};
use crate::sandbox::of_pod::{Surface, is_mount_path};
use crate::sandbox::{self, Sandbox, SandboxKind, SandboxVolume};
use crate::shim::{self, ExitStatus, KILLED_CODE, SHIM_FILE, ShimFile};

/// What the agent wants to know of an attempt when it comes back; in the attempt's directory.
const ABOUT_FILE: &str = "about.json";
/// So many attempts of a container keep their directories, and with them their logs.
const ATTEMPTS_KEPT: u32 = 3;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct About {
    runs: String,
    started_at_ms: u64,
    address: Option<Ipv4Addr>,
}

/// A container that runs, as far as is known.
#[derive(Debug)]
pub(crate) struct Container {
    address: IpAddr,
    grace: watch::Sender<Option<Duration>>,
    watcher: JoinHandle<()>,
}

impl Container {
    pub(crate) const fn address(&self) -> IpAddr {
        self.address
    }

    /// Asks it to end within this time; a second call may shorten it.
    pub(crate) fn stop(&self, grace: Duration) {
        self.grace.send_replace(Some(grace));
    }

    /// Waits until nothing of it is left, and the core has been told.
    pub(crate) async fn ended(mut self) {
        // Only when the agent is being stopped does the watcher end in another way.
        let _ = (&mut self.watcher).await;
    }

    fn watch(site: &Arc<Site>, uid: Uid, name: Name, address: IpAddr, handle: Handle) -> Self {
        let (grace, graces) = watch::channel(None);
        let watcher = tokio::spawn(until_ended(Arc::clone(site), uid, name, handle, graces));
        Self { address, grace, watcher }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

/// Starts an attempt. The core is told of the start and the end; the error is what to tell it instead.
pub(crate) async fn start(
    site: &Arc<Site>,
    pod_dir: &Path,
    pod: &AssignedPod,
    name: &Name,
    attempt: u32,
    env: &[(Name, String)],
) -> Result<Container, Input> {
    let failed = |reason: &str, message: String| {
        tracing::warn!(pod = %pod.pod, container = %name, message, "starting");
        let failure = Failure { reason: Name::new(reason), message };
        Input::StartFailed { uid: pod.uid, container: name.clone(), failure }
    };
    let Some(spec) = pod.template.every_container().find(|c| c.name == *name) else {
        return Err(failed("ContainerUnknown", format!("the template has no container {name}")));
    };
    let prepared = prepare(site, pod_dir, pod, spec, attempt, env);
    let (run, about) = prepared.map_err(|(reason, message)| failed(reason, message))?;
    let dir = process::attempt_dir(pod_dir, name.as_str(), attempt);
    let handle = match site.runtime.start(&run).await {
        Ok(handle) => handle,
        // It may have got further than we saw: the attempt is ours, or over, but never repeated.
        Err(error) => match site.runtime.adopt(&dir).await {
            Ok(Adoption::Running(handle)) => handle,
            Ok(Adoption::Ended(status)) => {
                let message = status.message.unwrap_or_else(|| with_causes(&error));
                let (uid, container, code) = (pod.uid, name.clone(), status.code);
                let is_out_of_memory = status.is_out_of_memory;
                return Err(Input::ContainerExited { uid, container, code, message, is_out_of_memory });
            }
            Ok(Adoption::Absent) | Err(_) => return Err(failed("StartFailed", with_causes(&error))),
        },
    };
    tracing::info!(pod = %pod.pod, container = %name, pid = handle.container.pid, runs = about.runs, "started");
    site.tell(Input::ContainerStarted {
        uid: pod.uid,
        container: name.clone(),
        pid: handle.container.pid.cast_unsigned(),
        runs: about.runs,
        started_at_ms: about.started_at_ms,
    })
    .await;
    Ok(Container::watch(site, pod.uid, name.clone(), address(pod), handle))
}

/// Finds the last attempt of a container again; watched, if it runs.
pub(crate) async fn adopt(
    site: &Arc<Site>,
    uid: Uid,
    pod_dir: &Path,
    name: &str,
) -> Option<(LiveContainer, Option<Container>)> {
    for attempt in layout::attempts(pod_dir, name).into_iter().rev() {
        let dir = process::attempt_dir(pod_dir, name, attempt);
        let about: About = files::read_json(&dir.join(ABOUT_FILE)).ok().flatten().unwrap_or_default();
        let (state, container) = match site.runtime.adopt(&dir).await {
            Ok(Adoption::Running(handle)) => {
                let pid = handle.container.pid.cast_unsigned();
                let address = about.address.unwrap_or(Ipv4Addr::LOCALHOST).into();
                let container = Container::watch(site, uid, Name::new(name), address, handle);
                (LiveContainerState::Running { pid }, Some(container))
            }
            Ok(Adoption::Ended(status)) => (LiveContainerState::Exited { code: status.code }, None),
            // Nothing was started there: the attempt is still to be made.
            Ok(Adoption::Absent) => continue,
            Err(error) => {
                tracing::warn!(dir = %dir.display(), error = with_causes(&error), "finding a container again");
                process::kill_everything_under(&dir).await;
                (LiveContainerState::Exited { code: KILLED_CODE }, None)
            }
        };
        let (name, runs, started_at_ms) = (Name::new(name), about.runs, about.started_at_ms);
        return Some((LiveContainer { name, attempt, runs, started_at_ms, state }, container));
    }
    None
}

/// The address at which a pod's containers listen, if one of them runs.
pub(crate) fn running_address(pod_dir: &Path) -> Option<Ipv4Addr> {
    let last = |name: &String| layout::attempts(pod_dir, name).last().copied();
    layout::containers(pod_dir).iter().find_map(|name| {
        let dir = process::attempt_dir(pod_dir, name, last(name)?);
        let shim: ShimFile = files::read_json(&dir.join(SHIM_FILE)).ok()??;
        let about: About = files::read_json(&dir.join(ABOUT_FILE)).ok()??;
        about.address.filter(|_| shim.container.is_alive())
    })
}

/// Checks a container once. The error is a sentence for people.
pub(crate) async fn probe(attempt_dir: &Path, address: Option<IpAddr>, probe: &spec::Probe) -> Result<(), String> {
    let ip = address.ok_or_else(|| "the container does not run".to_owned())?;
    let port = |port: &u32| u16::try_from(*port).map_err(|_| format!("{port} is no port"));
    let what = match &probe.action {
        ProbeAction::Exec(argv) => {
            let surroundings = Surroundings::of(attempt_dir).map_err(|error| error.to_string())?;
            Probe::Exec { argv: argv.clone(), surroundings }
        }
        ProbeAction::HttpGet { path, port: number, host } => {
            let host = Some(host.clone()).filter(|host| !host.is_empty());
            Probe::HttpGet { ip, port: port(number)?, path: path.clone(), host, headers: Vec::new() }
        }
        ProbeAction::TcpSocket { port: number } => Probe::TcpSocket { ip, port: port(number)? },
        ProbeAction::Grpc { port: number, service } => {
            Probe::Grpc { ip, port: port(number)?, service: service.clone() }
        }
    };
    probe::run(&what, Duration::from_millis(probe.timeout_ms.max(1))).await
}

/// Does what a hook says. The error is a sentence for people.
pub(crate) async fn hook(
    attempt_dir: &Path,
    address: Option<IpAddr>,
    hook: &spec::Hook,
    timeout: Duration,
) -> Result<(), String> {
    let action = match hook {
        spec::Hook::Exec(argv) => ProbeAction::Exec(argv.clone()),
        spec::Hook::HttpGet { path, port, host } => {
            ProbeAction::HttpGet { path: path.clone(), port: *port, host: host.clone() }
        }
        spec::Hook::Sleep { ms } => {
            tokio::time::sleep(Duration::from_millis(*ms).min(timeout)).await;
            return Ok(());
        }
    };
    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    probe(attempt_dir, address, &spec::Probe { action, timeout_ms, ..spec::Probe::default() }).await
}

async fn until_ended(
    site: Arc<Site>,
    uid: Uid,
    container: Name,
    handle: Handle,
    mut graces: watch::Receiver<Option<Duration>>,
) {
    let status = match watch_one(&site, &handle, &mut graces).await {
        Ok(status) => status,
        Err(error) => {
            tracing::warn!(pod = %uid, %container, error = with_causes(&error), "watching; it is killed");
            process::kill_everything_under(&handle.dir).await;
            ExitStatus::killed("it could not be watched")
        }
    };
    let message = status.message.unwrap_or_default();
    tracing::info!(pod = %uid, %container, code = status.code, message, "ended");
    let (code, is_out_of_memory) = (status.code, status.is_out_of_memory);
    site.tell(Input::ContainerExited { uid, container, code, message, is_out_of_memory }).await;
}

async fn watch_one(
    site: &Site,
    handle: &Handle,
    graces: &mut watch::Receiver<Option<Duration>>,
) -> Result<ExitStatus, process::RuntimeError> {
    let mut ended = std::pin::pin!(site.runtime.wait(handle));
    let mut kill_at: Option<Instant> = None;
    loop {
        tokio::select! {
            status = ended.as_mut() => return status,
            Ok(()) = graces.changed() => {
                let Some(grace) = *graces.borrow_and_update() else { continue };
                let offered = Instant::now() + grace;
                if kill_at.is_none() {
                    // A shim that cannot be signalled is killed after the grace like any other.
                    let _ = handle.ask_to_end();
                }
                kill_at = Some(kill_at.map_or(offered, |at| at.min(offered)));
            }
            () = sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => {
                return site.runtime.kill(handle).await;
            }
        }
    }
}

fn prepare(
    site: &Site,
    pod_dir: &Path,
    pod: &AssignedPod,
    spec: &spec::Container,
    attempt: u32,
    env: &[(Name, String)],
) -> Result<(RunSpec, About), (&'static str, String)> {
    let name = spec.name.as_str();
    let is_sandboxed = site.sandbox.is_some();
    let root = if is_sandboxed { PathBuf::from("/") } else { layout::root_dir(pod_dir) };
    let own: Vec<_> = env.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    let env = environment::environment(&facts(site, &root, pod, spec), &own);
    let expanded = |texts: &[String]| texts.iter().map(|text| environment::expand(text, &env)).collect::<Vec<_>>();
    let image_site = image::Site {
        exe: if is_sandboxed { PathBuf::from(sandbox::OWN_PROGRAM) } else { site.exe.clone() },
        run_dir: if is_sandboxed { sandbox::RUN_DIR.into() } else { layout::run_dir(pod_dir, name) },
        root: root.clone(),
        pod_ip: address(pod),
        path: env.get("PATH").cloned().unwrap_or_default(),
    };
    let resolved = site
        .catalogue
        .resolve(spec.image.as_str(), &expanded(&spec.command), &expanded(&spec.args), &image_site)
        .map_err(|error| ("ImageNotFound", error.to_string()))?;
    let privileges = Powers::of_self(site.sandbox)
        .privileges(&pod.template, spec)
        .map_err(|refusal| (agent_core::REASON_CONFIG, refusal))?;
    let io = |error: std::io::Error| ("StartFailed", format!("preparing container {name}: {error}"));
    let (cwd, sandbox) = match site.sandbox {
        Some(kind) => {
            let cwd = Path::new("/").join(&spec.working_dir);
            let writable = vec![cwd.clone(), site.home.clone().into()];
            let mut sandbox = sandbox_of(site, kind, pod_dir, pod, spec, writable)?;
            sandbox.files.extend(resolved.files.iter().cloned());
            sandbox.is_root_read_only = spec.security.has_read_only_root == Some(true);
            (cwd, Some(sandbox))
        }
        None => {
            publish_parts(site, pod_dir, pod, spec)?;
            std::fs::create_dir_all(&image_site.run_dir).map_err(io)?;
            resolved.write_files().map_err(io)?;
            (working_dir(&root, &spec.working_dir).map_err(io)?, None)
        }
    };
    let about = About {
        runs: resolved.description,
        started_at_ms: u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default(),
        address: Some(Ipv4Addr::from(pod.address)),
    };
    let dir = process::attempt_dir(pod_dir, name, attempt);
    std::fs::create_dir_all(&dir).map_err(io)?;
    files::write_json_of_boot(&dir.join(ABOUT_FILE), &about).map_err(io)?;
    drop_old_attempts(pod_dir, name, attempt);
    let container = name.to_owned();
    let input = shim::Input { is_open: spec.has_stdin, is_once: spec.is_stdin_once, has_terminal: spec.has_terminal };
    let argv = resolved.argv;
    let pod_dir = pod_dir.to_owned();
    let limits =
        Limits { memory_bytes: spec.limits.memory_bytes, cpu_milli: spec.limits.cpu_milli, pids_max: PIDS_MAX };
    Ok((RunSpec { pod_dir, container, attempt, argv, env, cwd, sandbox, input, privileges, limits }, about))
}

fn sandbox_of(
    site: &Site,
    kind: SandboxKind,
    pod_dir: &Path,
    pod: &AssignedPod,
    spec: &spec::Container,
    writable: Vec<PathBuf>,
) -> Result<Sandbox, (&'static str, String)> {
    let (mut volumes, mut files) = (Vec::new(), BTreeMap::new());
    for mount in &spec.mounts {
        if !is_mount_path(&mount.path) {
            return Err(("BadMountPath", format!("mount path {} leads out of the pod", mount.path)));
        }
        let (source, is_read_only) = source(site, pod_dir, pod, mount)?;
        let target = PathBuf::from(&mount.path);
        if source.is_file() {
            // A file that is mounted alone keeps what it says until the container starts again, as in Kubernetes.
            let content = std::fs::read_to_string(&source);
            let failed = |error| ("VolumeFailed", format!("mounting {} alone: {error}", mount.sub_path));
            files.insert(target, content.map_err(failed)?);
        } else {
            volumes.push(SandboxVolume { source, target, is_read_only });
        }
    }
    let names = site.names.make(pod_dir, pod);
    let names = names.map_err(|error| ("StartFailed", format!("writing the pod's names: {error}")))?;
    let hidden = [site.data_dir.clone(), site.volumes.storage_root().to_owned()];
    let surface = Surface { kind, hidden: &hidden, names };
    let mut sandbox = surface.sandbox(pod, volumes, writable);
    sandbox.files.append(&mut files);
    Ok(sandbox)
}

/// Where on the host that is which a mount shows, and whether it may only be read.
fn source(
    site: &Site,
    pod_dir: &Path,
    pod: &AssignedPod,
    mount: &spec::Mount,
) -> Result<(PathBuf, bool), (&'static str, String)> {
    let claimed = pod.volumes.iter().find(|volume| volume.name == mount.volume);
    let local = pod.template.local_volumes.iter().find(|volume| volume.name == mount.volume);
    let (volume, is_read_only) = match (claimed, local) {
        (Some(volume), _) => {
            let dir = site.volumes.published(pod.uid, volume.name.as_str(), volume.handle.as_str());
            (dir.map_err(|error| ("VolumeFailed", with_causes(&error)))?, false)
        }
        (None, Some(volume)) => {
            let is_writable = matches!(volume.source, LocalSource::EmptyDir { .. });
            (local_volume::dir(pod_dir, volume.name.as_str()), !is_writable)
        }
        (None, None) => return Err(("VolumeFailed", format!("the pod has no volume {}", mount.volume))),
    };
    let part = local_volume::part(&volume, &mount.sub_path);
    let part = part.map_err(|error| ("VolumeFailed", format!("mounting {}: {error}", mount.volume)))?;
    Ok((part, is_read_only || mount.read_only))
}

/// Makes the mount paths that attaching has not made: those of volumes that end with the pod, and of parts of volumes.
fn publish_parts(
    site: &Site,
    pod_dir: &Path,
    pod: &AssignedPod,
    spec: &spec::Container,
) -> Result<(), (&'static str, String)> {
    let is_claimed = |name: &Name| pod.volumes.iter().any(|volume| volume.name == *name);
    for mount in spec.mounts.iter().filter(|mount| !mount.sub_path.is_empty() || !is_claimed(&mount.volume)) {
        let target = mirrored(&layout::root_dir(pod_dir), &mount.path)
            .ok_or_else(|| ("BadMountPath", format!("mount path {} leads out of the pod", mount.path)))?;
        let (source, _) = source(site, pod_dir, pod, mount)?;
        let failed = |error| ("VolumeFailed", format!("mounting {}: {error}", mount.volume));
        local_volume::publish(&source, &target).map_err(failed)?;
    }
    Ok(())
}

/// Directories of a host program may be meant, or a path in the pod that is not there yet.
fn working_dir(root: &Path, wanted: &str) -> std::io::Result<PathBuf> {
    let in_pod = mirrored(root, wanted).unwrap_or_else(|| root.to_owned());
    if !wanted.is_empty() && !in_pod.is_dir() && Path::new(wanted).is_dir() {
        return Ok(PathBuf::from(wanted));
    }
    std::fs::create_dir_all(&in_pod)?;
    Ok(in_pod)
}

fn drop_old_attempts(pod_dir: &Path, container: &str, attempt: u32) {
    let old = layout::attempts(pod_dir, container).into_iter().filter(|kept| kept + ATTEMPTS_KEPT <= attempt);
    for attempt in old {
        // What stays costs space, nothing else.
        let _ = std::fs::remove_dir_all(process::attempt_dir(pod_dir, container, attempt));
    }
}

/// A pod's address; all of 127/8 is there, so one that has none yet gets the host's own.
fn address(pod: &AssignedPod) -> IpAddr {
    if pod.address == 0 { Ipv4Addr::LOCALHOST.into() } else { Ipv4Addr::from(pod.address).into() }
}

fn facts(site: &Site, root: &Path, pod: &AssignedPod, spec: &spec::Container) -> PodFacts {
    let mounts = spec.mounts.iter().filter_map(|mount| Some((mount.volume.to_string(), mirrored(root, &mount.path)?)));
    PodFacts {
        name: pod.pod.name.to_string(),
        namespace: pod.pod.namespace.to_string(),
        uid: pod.uid_text.clone(),
        ordinal: Some(pod.ordinal.0),
        ip: address(pod),
        node: site.node.clone(),
        dns: site.dns,
        root: root.to_owned(),
        node_dir: site.data_dir.clone(),
        mounts: mounts.collect(),
        path: site.path.clone(),
        home: site.home.clone(),
    }
}
