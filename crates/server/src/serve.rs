//! Puts a server together, runs it, and takes it apart.

use crate::addresses::Addresses;
use crate::agents::AgentService;
use crate::core::{Command, Core, INPUTS_MAX};
use crate::engine::{Engine, Opened};
use crate::forward::Forward;
use crate::gathering::Gathering;
use crate::peers::{Channels, KEEPALIVE, PeerService};
use crate::services::{self, Api};
use crate::tunnels::Tunnels;
use crate::watchers::Watchers;
use crate::{ServerConfig, ServerError, agents, identity, metrics, names, peers};
use api::internal::agents_server::AgentsServer;
use api::internal::peer_server::PeerServer;
use domain::Names;
use domain::id::ServerId;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::StreamExt as _;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// How long one attempt to say where this server is may take.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(5);
/// How long one that failed is waited out.
const ADDRESS_PAUSE: Duration = Duration::from_millis(500);

/// Runs a server until `shutdown` is ready or the disk fails. Connections that are open then end with the runtime: the
/// process should exit.
///
/// # Errors
/// It could not start, or could not go on; [`ServerError::exit_code`] says how the process should end.
pub async fn serve(config: ServerConfig, shutdown: impl Future<Output = ()>) -> Result<(), ServerError> {
    config.check()?;
    let config = Arc::new(identity::settle(config).await?);
    // Nobody is answered before everything that was promised is read back.
    let to_open = Arc::clone(&config);
    let opened = tokio::task::spawn_blocking(move || Opened::open(&to_open)).await;
    let opened = opened.map_err(|_| ServerError::CoreStopped)??;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|source| ServerError::Listen { address: config.listen, source })?;

    let (commands, waiting) = mpsc::channel(INPUTS_MAX);
    let core = Core::new(commands, opened.latest());
    let addresses = Addresses::new(&config);
    let engine = opened.into_engine(&config, addresses.clone(), core.clone(), waiting)?;
    let mut engine_end = spawn_engine(engine)?;
    let ticking = tokio::spawn(tick(core.clone(), config.tick_ms));

    tracing::info!(id = config.id, listen = %config.listen, "serving");
    let outcome = tokio::select! {
        () = shutdown => Ok(()),
        outcome = answer(&config, &core, addresses, listener) => outcome,
        ended = &mut engine_end => {
            ticking.abort();
            return ended.map_or(Err(ServerError::CoreStopped), |outcome| outcome.and(Err(ServerError::CoreStopped)));
        }
    };
    ticking.abort();
    // It may have ended already, which is what is wanted.
    let _ = core.command(Command::Stop).await;
    let ended = engine_end.await.unwrap_or(Err(ServerError::CoreStopped));
    outcome.and(ended)
}

/// Starts the core's thread. Its end is reported, also if it is a panic.
fn spawn_engine(engine: Engine) -> Result<oneshot::Receiver<Result<(), ServerError>>, ServerError> {
    let (end, ended) = oneshot::channel();
    let run = move || {
        let outcome = engine.run();
        if let Err(error) = &outcome {
            tracing::error!(error = error as &dyn std::error::Error, "the server cannot go on");
        }
        // Nobody listens only when the process is ending anyway.
        let _ = end.send(outcome);
    };
    std::thread::Builder::new().name("core".to_owned()).spawn(run).map_err(ServerError::System)?;
    Ok(ended)
}

async fn tick(core: Core, tick_ms: u64) {
    let mut interval = tokio::time::interval(Duration::from_millis(tick_ms));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if core.tick().await.is_err() {
            return;
        }
    }
}

/// Answers everybody.
async fn answer(
    config: &Arc<ServerConfig>,
    core: &Core,
    addresses: Addresses,
    listener: TcpListener,
) -> Result<(), ServerError> {
    let channels = Channels::new(addresses);
    let forward = Forward::new(config.id, core.clone(), channels.clone());
    let (health, health_service) = tonic_health::server::health_reporter();
    let announcing = announce_health(core.clone(), health);
    let names = names::keep(core);
    let answering = answer_names(config, core, names.clone()).await?;
    let naming = announce_address(config.id, config.own_address(), forward.clone());
    let tunnels = Tunnels::new(config.id, core.clone(), channels.clone());
    let peer = PeerServer::new(PeerService::new(forward.clone(), tunnels.clone()))
        .max_decoding_message_size(peers::MESSAGE_BYTES_MAX);
    let agents = AgentsServer::new(AgentService::new(core.clone(), tunnels.clone(), names))
        .max_decoding_message_size(agents::MESSAGE_BYTES_MAX);
    let watchers = Watchers::new(core.clone());
    let handing_out = watchers.clone().run();
    let api = Api::new(Arc::clone(config), forward, channels, tunnels, watchers);
    let routes = Routes::new(health_service).add_service(peer).add_service(agents);
    let reflection = "the descriptors that this program was built from";
    let routes = services::add_all(routes, &api)
        .add_service(reflection_builder().build_v1().expect(reflection))
        .add_service(reflection_builder().build_v1alpha().expect(reflection));
    let routes = with_metrics(routes, core.clone());
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let incoming = incoming.map(|accepted| accepted.map(Gathering::new));
    let serving = Server::builder()
        .initial_stream_window_size(Some(peers::STREAM_WINDOW_BYTES))
        .initial_connection_window_size(Some(peers::CONNECTION_WINDOW_BYTES))
        .max_frame_size(Some(peers::FRAME_BYTES_MAX))
        // Monitoring does not speak HTTP/2.
        .accept_http1(true)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_routes(routes)
        .serve_with_incoming(incoming);
    tokio::select! {
        outcome = serving => outcome.map_err(ServerError::Transport),
        () = announcing => Ok(()),
        () = answering => Ok(()),
        () = naming => Ok(()),
        () = handing_out => Ok(()),
    }
}

/// Answers names over DNS, where that is wanted; what comes back does so for as long as it is polled.
async fn answer_names(
    config: &ServerConfig,
    core: &Core,
    names: watch::Receiver<Names>,
) -> Result<impl Future<Output = ()> + use<>, ServerError> {
    let listener = match dns::Listener::open(&config.dns).await {
        // Where nobody said which address, none is as good as any.
        Err(error) if matches!(config.dns, dns::Listen::Auto(_)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "names are not answered");
            None
        }
        opened => opened?,
    };
    let counters = Arc::clone(core.metrics().dns());
    Ok(async move {
        match listener {
            Some(listener) => {
                let address = listener.address();
                tracing::info!(%address, "answering names");
                let upstreams = dns::Upstreams::of("/etc/resolv.conf".into(), address.ip());
                listener.serve(names, upstreams, counters).await;
            }
            None => std::future::pending().await,
        }
    })
}

fn with_metrics(mut routes: Routes, core: Core) -> Routes {
    let router = std::mem::take(routes.axum_router_mut());
    *routes.axum_router_mut() =
        router.route(metrics::PATH, axum::routing::get(async move || metrics::answer(core).await));
    routes
}

/// Healthy is a server that knows who leads: it can take any call.
async fn announce_health(core: Core, health: HealthReporter) {
    let mut standing = core.standing();
    let mut was_healthy = None;
    loop {
        let is_healthy = standing.borrow_and_update().leader.is_some();
        if was_healthy != Some(is_healthy) {
            was_healthy = Some(is_healthy);
            let status = if is_healthy { ServingStatus::Serving } else { ServingStatus::NotServing };
            health.set_service_status("", status).await;
        }
        if standing.changed().await.is_err() {
            return;
        }
    }
}

/// Says where this server is reached, whenever the state says otherwise.
async fn announce_address(id: u64, address: String, forward: Forward) {
    let own = ServerId(id);
    let mut standing = forward.core().standing();
    loop {
        let is_wrong = {
            let seen = standing.borrow_and_update();
            seen.leader.is_some() && seen.servers.get(&id).is_some_and(|named| *named != address)
        };
        if is_wrong {
            let command = domain::Command::AddressServer { server: own, address: address.as_str().into() };
            let actor = format!("server/{}", own.name()).into();
            let request = domain::Request { actor, id: None, expected: None, command };
            if let Err(status) = forward.change(request, Instant::now() + ADDRESS_PATIENCE).await {
                tracing::warn!(reason = status.message(), "this server's address is not known to the others yet");
                tokio::time::sleep(ADDRESS_PAUSE).await;
                continue;
            }
        }
        if standing.changed().await.is_err() {
            return;
        }
    }
}

/// Describes what is public, and health.
fn reflection_builder() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(api::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
