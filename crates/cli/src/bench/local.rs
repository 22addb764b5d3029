//! A local cluster under measurement, as `holdfast up` starts it: with real pods, with proxies between its processes,
//! and gone at the end.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use api::manifest;
use api::v1;

use super::Common;
use super::machine::Usage;
use super::report::{Cell, Rows};
use crate::apply::{STORAGE_CLASSES, apply_all, read_classes};
use crate::child::Runtime;
use crate::cluster::{self, Answer, Control, ProcessName, ProcessState, Request, UpOptions};
use crate::connect::{Address, Session};
use crate::error::CliError;
use crate::fetch::{self, ApplyOptions};

/// How long the processes may take to be of use.
const READY_MS_MAX: u64 = 60_000;
/// How long nothing may happen before a measurement is given up.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A running cluster of its own.
#[derive(Debug)]
pub(super) struct Local {
    data_dir: PathBuf,
    session: Session,
    /// From the start of the launcher until it said that the cluster was ready.
    pub(super) started_in: Duration,
    is_over: bool,
}

impl Drop for Local {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        // A measurement that is left in the middle leaves no process behind.
        let data_dir = self.data_dir.clone();
        let ending = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(cluster::down(&data_dir, true)))
        });
        if !matches!(ending.join(), Ok(Ok(Ok(_)))) {
            crate::print::note(format!("the cluster in {} could not be ended", self.data_dir.display()));
        }
    }
}

impl Local {
    /// Starts three servers and three agents, with the usual storage classes.
    pub(super) async fn start(common: &Common) -> Result<Self, CliError> {
        Self::start_with(common, Runtime::Auto).await
    }

    /// The same, with the runtime that is to be measured; one cluster of each may run at a time.
    pub(super) async fn start_with(common: &Common, runtime: Runtime) -> Result<Self, CliError> {
        let own = format!("holdfast-bench-{}-{}", std::process::id(), runtime.name());
        let data_dir = common.scratch.join(own);
        let options = UpOptions {
            data_dir: data_dir.clone(),
            server_arguments: common.server_arguments.clone(),
            agent_arguments: vec![runtime.agent_argument().into()],
            ..UpOptions::default()
        };
        let began_at = Instant::now();
        cluster::up_detached(options, |_| (), READY_MS_MAX).await?;
        let started_in = began_at.elapsed();
        let session = Address::Dir(data_dir.clone()).connect();
        let local = Self { data_dir, session, started_in, is_over: false };
        let classes = read_classes(STORAGE_CLASSES);
        apply_all(&local.session, &classes, &ApplyOptions::default(), false).await?;
        Ok(local)
    }

    pub(super) const fn session(&self) -> &Session {
        &self.session
    }

    /// Applies one set.
    pub(super) async fn apply(&self, text: &str) -> Result<(), CliError> {
        let parsed = manifest::parse("bench.yaml", text);
        let documents = parsed.map_err(|errors| CliError::refused(format!("the measured set is wrong: {errors:?}")))?;
        for document in documents {
            fetch::apply(&self.session, document.object, &ApplyOptions::default()).await?;
        }
        Ok(())
    }

    /// The events of some kinds from now on.
    pub(super) async fn events(&self, kinds: &[&str]) -> Result<Events, CliError> {
        let kinds = kinds.iter().map(|&kind| kind.to_owned()).collect();
        let stream = fetch::watch(&self.session, v1::WatchRequest { kinds, ..v1::WatchRequest::default() }).await?;
        Ok(Events { stream })
    }

    /// Tells the launcher to break or mend something.
    pub(super) async fn fault(&self, request: &Request) -> Result<(), CliError> {
        match Control::connect(&self.data_dir).await?.ask(request).await? {
            Answer::Done { .. } => Ok(()),
            other => Err(CliError::refused(format!("the launcher answered with {other:?}"))),
        }
    }

    /// The processes that run.
    pub(super) async fn processes(&self) -> Result<Vec<(ProcessName, u32)>, CliError> {
        let status = Control::connect(&self.data_dir).await?.status().await?;
        let running = status.processes.into_iter().filter(|process| process.state == ProcessState::Running);
        Ok(running.filter_map(|process| Some((process.name, process.process?.pid.unsigned_abs()))).collect())
    }

    /// What each process has used so far.
    pub(super) async fn usage(&self) -> Result<Vec<(ProcessName, Usage)>, CliError> {
        Ok(self.processes().await?.into_iter().map(|(name, pid)| (name, Usage::of(pid))).collect())
    }

    /// What each process costs, as a table.
    pub(super) async fn costs(&self) -> Result<Rows, CliError> {
        let mut rows = Rows::new("processes", &["PROCESS", "RESIDENT MIB", "PEAK MIB", "CPU S"]);
        for (name, usage) in self.usage().await? {
            rows.push(vec![
                Cell::word(name.to_string()),
                Cell::Number(usage.resident_mib, 1),
                Cell::Number(usage.peak_mib, 1),
                Cell::Number(usage.cpu.as_secs_f64(), 2),
            ]);
        }
        Ok(rows)
    }

    /// Ends it, and leaves nothing.
    pub(super) async fn end(mut self) -> Result<(), CliError> {
        self.is_over = true;
        cluster::down(&self.data_dir, true).await?;
        Ok(())
    }
}

/// Events as they come.
#[derive(Debug)]
pub(super) struct Events {
    stream: tonic::Streaming<v1::WatchReply>,
}

impl Events {
    /// The events of the next message, with the moment at which it came.
    pub(super) async fn next(&mut self) -> Result<(Instant, Vec<v1::Event>), CliError> {
        let message = tokio::time::timeout(SILENCE_MAX, self.stream.message()).await;
        let message = message.map_err(|_| CliError::refused("nothing happens for 60 s"))??;
        let reply = message.ok_or_else(|| CliError::unreachable("the watch ended early"))?;
        Ok((Instant::now(), reply.events))
    }

    /// Waits for an event, and says when it came.
    pub(super) async fn until(&mut self, kind: &str, name: &str) -> Result<Instant, CliError> {
        loop {
            let (at, events) = self.next().await?;
            if events.iter().any(|event| event.r#type == kind && event.name == name) {
                return Ok(at);
            }
        }
    }
}

/// A set whose pods do nothing, and end at once when they are told to.
pub(super) fn idle_set(name: &str, replicas: u32, policy: &str, image: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: StatefulSet\nmetadata:\n  name: {name}\nspec:\n  serviceName: {name}\n  replicas: \
         {replicas}\n  podManagementPolicy: {policy}\n  selector:\n    matchLabels: {{app: {name}}}\n  template:\n    \
         metadata:\n      labels: {{app: {name}}}\n    spec:\n      terminationGracePeriodSeconds: 5\n      containers:\n      \
         - name: main\n        image: {image}\n        volumeMounts: [{{name: data, mountPath: /data}}]\n  \
         volumeClaimTemplates:\n  - metadata: {{name: data}}\n    spec:\n      accessModes: [ReadWriteOncePod]\n      \
         resources: {{requests: {{storage: 16Mi}}}}\n"
    )
}
