//! The thread that owns the snapshot files: encoding and writing a state takes long, and the core must go on meanwhile.

use crate::ServerError;
use crate::core::{Command, Core};
use bytes::Bytes;
use control_core::{Input, SnapshotBytes};
use domain::State;
use journal::{DirDisk, FileError, SnapshotStore};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// How many jobs may wait.
const JOBS_MAX: usize = 16;

#[derive(Debug)]
enum Job {
    Write { index: u64, term: u64, state: Arc<State> },
    Save { snapshot: SnapshotBytes, done: oneshot::Sender<Result<(), FileError>> },
    Read { index: u64, found: oneshot::Sender<Option<Bytes>> },
    End,
}

/// The handle on the thread.
#[derive(Clone, Debug)]
pub(crate) struct Snapshots {
    jobs: mpsc::Sender<Job>,
}

impl Snapshots {
    /// Starts the thread, which [`Self::end`] ends. Called within the runtime.
    pub(crate) fn spawn(store: SnapshotStore<DirDisk>, core: Core) -> Result<(Self, JoinHandle<()>), ServerError> {
        let (jobs, waiting) = mpsc::channel(JOBS_MAX);
        // The core may wait for this thread, so this thread must never wait for the core: the runtime does.
        let runtime = tokio::runtime::Handle::current();
        let tell = move |command| {
            let core = core.clone();
            drop(runtime.spawn(async move { core.command(command).await }));
        };
        let run = move || work(store, waiting, &tell);
        let thread =
            std::thread::Builder::new().name("snapshots".to_owned()).spawn(run).map_err(ServerError::System)?;
        Ok((Self { jobs }, thread))
    }

    /// Waits until the thread has let go of the directory, whoever else still holds a handle: the next server must be able
    /// to open it. Called from the core's thread.
    pub(crate) fn end(&self, thread: JoinHandle<()>) {
        // If it has ended already, it has let go as well.
        let _ = self.jobs.blocking_send(Job::End);
        if thread.join().is_err() {
            tracing::error!("the thread that writes snapshots panicked");
        }
    }

    /// Begins to write a state; the core hears when it is durable. Called from the core's thread.
    pub(crate) fn write(&self, index: u64, term: u64, state: Arc<State>) -> Result<(), ServerError> {
        self.jobs.blocking_send(Job::Write { index, term, state }).map_err(|_| ServerError::CoreStopped)
    }

    /// Makes a received snapshot durable. Called from the core's thread.
    pub(crate) fn save(&self, snapshot: SnapshotBytes) -> Result<(), ServerError> {
        let (done, outcome) = oneshot::channel();
        self.jobs.blocking_send(Job::Save { snapshot, done }).map_err(|_| ServerError::CoreStopped)?;
        outcome.blocking_recv().map_err(|_| ServerError::CoreStopped)??;
        Ok(())
    }

    /// The bytes of a snapshot, if it is still there.
    pub(crate) async fn read(&self, index: u64) -> Option<Bytes> {
        let (found, answer) = oneshot::channel();
        self.jobs.send(Job::Read { index, found }).await.ok()?;
        answer.await.ok()?
    }
}

fn work(mut store: SnapshotStore<DirDisk>, mut waiting: mpsc::Receiver<Job>, tell: &dyn Fn(Command)) {
    while let Some(job) = waiting.blocking_recv() {
        match job {
            Job::Write { index, term, state } => {
                let bytes = api::codec::encode(&*state);
                match store.save(index, term, &bytes) {
                    Ok(()) => {
                        tracing::info!(index, bytes = bytes.len(), revision = state.revision.0, "snapshot written");
                        tell(Command::Input(Input::SnapshotWritten { index }));
                    }
                    Err(error) => tell(Command::Failed(error.into())),
                }
            }
            // Nobody listens only when the server is stopping.
            Job::Save { snapshot, done } => {
                let _ = done.send(store.save(snapshot.index, snapshot.term, &snapshot.bytes));
            }
            Job::Read { index, found } => {
                let _ = found.send(read(&store, index));
            }
            Job::End => return,
        }
    }
}

fn read(store: &SnapshotStore<DirDisk>, index: u64) -> Option<Bytes> {
    let id = store.list().ok()?.into_iter().find(|id| id.index == index)?;
    match store.read(id) {
        Ok(snapshot) => Some(snapshot.bytes.into()),
        Err(error) => {
            tracing::error!(index, error = &error as &dyn std::error::Error, "a snapshot cannot be read");
            None
        }
    }
}
