//! The handle on the core that everything else holds: cheap to clone, and the only way to ask it for anything.

use crate::metrics::Metrics;
use control_core::watch::Ring;
use control_core::{CallError, Input, Reply, Status};
use domain::agent::ToAgent;
use domain::id::Revision;
use domain::{Request, State};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// How many inputs may wait for the core; whoever has another one waits too.
pub(crate) const INPUTS_MAX: usize = 16_384;

/// What the core's thread is asked for.
#[derive(Debug)]
pub(crate) enum Command {
    /// An input as it is.
    Input(Input),
    /// A call, and where to answer.
    Call { request: Request, reply: oneshot::Sender<Answer> },
    /// Many calls, and where to answer all of them.
    Calls { requests: Vec<Request>, reply: oneshot::Sender<Vec<Answer>> },
    /// A read, and where to answer.
    Read { stale: bool, reply: oneshot::Sender<Answer> },
    /// Somebody wants another server to lead, and where to answer.
    Transfer { to: Option<u64>, reply: oneshot::Sender<Answer> },
    /// An agent connected; what it is to hear goes here.
    AgentOpened { session: u64, frames: mpsc::Sender<ToAgent> },
    /// The disk failed in the background.
    Failed(crate::ServerError),
    /// The end.
    Stop,
}

/// What a call or read led to.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The call was carried out.
    Done(Reply),
    /// The read's state.
    State(Arc<State>),
    /// The call was not carried out, or that is not known.
    Failed(CallError),
    /// Ask the leader.
    NotLeader { leader: Option<u64> },
}

/// The newest applied state and how the server sees its group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latest {
    pub(crate) state: Arc<State>,
    pub(crate) status: Arc<Status>,
}

/// What seldom changes, for those who wait for it: they are not to be woken by every change of anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Who leads, if known.
    pub(crate) leader: Option<u64>,
    /// The servers and where they are reached; empty where that has not been said yet.
    pub(crate) servers: BTreeMap<u64, String>,
}

/// The core's thread is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this server is stopping")]
pub(crate) struct Stopped;

/// The handle.
#[derive(Clone, Debug)]
pub(crate) struct Core {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    commands: mpsc::Sender<Command>,
    state: watch::Sender<Arc<State>>,
    status: Mutex<Arc<Status>>,
    standing: watch::Sender<Standing>,
    ring: Mutex<Ring>,
    is_tick_waiting: AtomicBool,
    last_session: AtomicU64,
    metrics: Metrics,
}

impl Core {
    pub(crate) fn new(commands: mpsc::Sender<Command>, latest: Latest) -> Self {
        let ring = Ring::new(latest.state.revision, control_core::watch::EVENTS_MAX);
        let shared = Shared {
            commands,
            state: watch::Sender::new(latest.state),
            status: Mutex::new(latest.status),
            standing: watch::Sender::default(),
            ring: Mutex::new(ring),
            is_tick_waiting: AtomicBool::new(false),
            last_session: AtomicU64::new(0),
            metrics: Metrics::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Hands an input over, and waits while there is no room.
    pub(crate) async fn send(&self, input: Input) -> Result<(), Stopped> {
        self.command(Command::Input(input)).await
    }

    /// Says that time passed, unless that waits to be noticed already: a core that was busy must not be hurried through
    /// all the ticks that it missed.
    pub(crate) async fn tick(&self) -> Result<(), Stopped> {
        if self.shared.is_tick_waiting.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.send(Input::Tick).await
    }

    pub(crate) fn note_tick(&self) {
        self.shared.is_tick_waiting.store(false, Ordering::Release);
    }

    /// Asks this server alone to carry out a request.
    pub(crate) async fn call(&self, request: Request) -> Result<Answer, Stopped> {
        let began_at = Instant::now();
        let (reply, answer) = oneshot::channel();
        self.command(Command::Call { request, reply }).await?;
        let answer = answer.await.map_err(|_| Stopped)?;
        self.note(&answer, began_at.elapsed());
        Ok(answer)
    }

    /// Asks this server alone to carry out many requests, in order; each is answered on its own.
    pub(crate) async fn calls(&self, requests: Vec<Request>) -> Result<Vec<Answer>, Stopped> {
        let began_at = Instant::now();
        let (reply, answers) = oneshot::channel();
        self.command(Command::Calls { requests, reply }).await?;
        let answers = answers.await.map_err(|_| Stopped)?;
        let took = began_at.elapsed();
        for answer in &answers {
            self.note(answer, took);
        }
        Ok(answers)
    }

    fn note(&self, answer: &Answer, took: Duration) {
        match answer {
            Answer::Done(_) => self.metrics().note_commit(took),
            Answer::Failed(CallError::Rejected(_)) => self.metrics().note_refusal(),
            Answer::Failed(_) | Answer::State(_) | Answer::NotLeader { .. } => {}
        }
    }

    /// Asks this server alone to let another one lead.
    pub(crate) async fn transfer(&self, to: Option<u64>) -> Result<Answer, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Transfer { to, reply }).await?;
        answer.await.map_err(|_| Stopped)
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Asks this server once for the state.
    pub(crate) async fn read(&self, stale: bool) -> Result<Answer, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Read { stale, reply }).await?;
        answer.await.map_err(|_| Stopped)
    }

    /// Opens an agent's session.
    pub(crate) async fn open_session(&self, frames: mpsc::Sender<ToAgent>) -> Result<u64, Stopped> {
        let session = self.shared.last_session.fetch_add(1, Ordering::Relaxed) + 1;
        self.command(Command::AgentOpened { session, frames }).await?;
        Ok(session)
    }

    /// The state here, once it has reached a revision.
    pub(crate) async fn state_at(&self, revision: Revision) -> Result<Arc<State>, Stopped> {
        // Where the change was made, it is shown before it is answered.
        let shown = self.state();
        if revision <= shown.revision {
            return Ok(shown);
        }
        let mut states = self.states();
        let reached = states.wait_for(|state| revision <= state.revision).await.map_err(|_| Stopped)?;
        Ok(Arc::clone(&reached))
    }

    /// The state that is shown now.
    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.shared.state.borrow())
    }

    /// How the server sees its group now.
    pub(crate) fn status(&self) -> Arc<Status> {
        Arc::clone(&self.shared.status.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes whenever the state does.
    pub(crate) fn states(&self) -> watch::Receiver<Arc<State>> {
        self.shared.state.subscribe()
    }

    /// Changes whenever another server leads, or is reached elsewhere.
    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.shared.standing.subscribe()
    }

    /// From now on, whoever looks sees this state.
    pub(crate) fn show(&self, state: Arc<State>) {
        self.shared.state.send_replace(state);
    }

    pub(crate) fn show_status(&self, status: Arc<Status>) {
        let leader = status.leader;
        *self.shared.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
        self.shared.standing.send_if_modified(|standing| std::mem::replace(&mut standing.leader, leader) != leader);
    }

    pub(crate) fn show_servers(&self, servers: BTreeMap<u64, String>) {
        self.shared.standing.send_modify(|standing| standing.servers = servers);
    }

    /// The recent past. Held only for as long as it takes to look.
    pub(crate) fn ring(&self) -> MutexGuard<'_, Ring> {
        self.shared.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn command(&self, command: Command) -> Result<(), Stopped> {
        self.shared.commands.send(command).await.map_err(|_| Stopped)
    }
}
