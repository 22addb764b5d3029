//! Services with addresses of their own: connections to them are passed on to their pods, in turn.
//! Never decides which pods are behind a service.
//!
//! On a machine of its own (or in a network namespace), an agent has its services' addresses to itself. Where several
//! agents share one machine, as in a local cluster, they share the addresses too: the first one to bind an address has it,
//! and the others wait. So that the one that has it is one that knows what is so, an agent that was told nothing for
//! some time lets go.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use domain::Names;
use domain::id::{Key, Name, Uid};
use domain::names::NamedService;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::names::Known;
use crate::ports;

/// Connections that are passed on at the same time; further ones wait.
const CONNECTIONS_MAX: usize = 4_096;
/// Ports that are listened on; further ones are not.
const LISTENERS_MAX: usize = 1_024;
/// So many pods are tried for one connection.
const TRIES_MAX: usize = 3;
/// A pod that does not take a connection for so long is passed over.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// An address that somebody else has is tried again after this time.
const BIND_PAUSE: Duration = Duration::from_millis(500);
/// Who shares a machine lets go when nobody told anything for so long: longer than a change of leaders takes.
const RELEASE_AFTER: Duration = Duration::from_secs(10);

/// Whether services' addresses are served, and with whom they are shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceProxy {
    /// They are not.
    Off,
    /// This agent has them to itself, whether or not anybody tells it more.
    #[default]
    Node,
    /// Other agents of this machine serve the same.
    Shared,
}

impl ServiceProxy {
    /// For people.
    pub(crate) fn describe(self) -> String {
        let how = match self {
            Self::Off => "off: not wanted",
            Self::Node => "on",
            Self::Shared => "on: shared with the other agents of this machine",
        };
        match ports::first_permitted() {
            first if self == Self::Off || first <= 1 => how.to_owned(),
            first => format!("{how}; ports below {first} are moved up by 8000"),
        }
    }
}

/// A port of a service.
type Door = (Key, u32);

/// Serves the addresses for as long as it is polled.
pub(crate) async fn run(mode: ServiceProxy, mut known: Known) {
    let mut doors = Doors { open: BTreeMap::new(), known: known.clone(), permits: permits() };
    loop {
        let mut wanted = match mode {
            ServiceProxy::Off => return,
            ServiceProxy::Node | ServiceProxy::Shared => wanted(&known.names.borrow_and_update()),
        };
        if mode == ServiceProxy::Shared && is_left_alone(&mut known.is_told).await {
            wanted.clear();
        }
        doors.make(&wanted);
        tokio::select! {
            changed = known.names.changed() => if changed.is_err() {
                return;
            },
            changed = known.is_told.changed(), if mode == ServiceProxy::Shared => if changed.is_err() {
                return;
            },
        }
    }
}

fn permits() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(CONNECTIONS_MAX))
}

/// Waits to see whether somebody tells again.
async fn is_left_alone(is_told: &mut watch::Receiver<bool>) -> bool {
    timeout(RELEASE_AFTER, is_told.wait_for(|is_told| *is_told)).await.is_err()
}

/// The ports to listen on, with their addresses.
fn wanted(names: &Names) -> BTreeMap<Door, SocketAddr> {
    let with_address = names.services().filter(|(_, service)| service.address != 0);
    let doors = with_address.flat_map(|(key, service)| {
        let tcp = service.ports.iter().filter(|port| port.protocol.as_str() == "TCP");
        tcp.filter_map(|port| {
            let number = ports::effective(u16::try_from(port.port).ok()?);
            Some(((key.clone(), port.port), (Ipv4Addr::from(service.address), number).into()))
        })
    });
    doors.take(LISTENERS_MAX).collect()
}

/// The ports that are listened on.
struct Doors {
    open: BTreeMap<Door, (SocketAddr, Open)>,
    known: Known,
    permits: Arc<Semaphore>,
}

/// Ends the listening, and no connection.
struct Open(AbortHandle);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Doors {
    fn make(&mut self, wanted: &BTreeMap<Door, SocketAddr>) {
        self.open.retain(|door, (address, _)| wanted.get(door) == Some(address));
        for (door, address) in wanted {
            if self.open.contains_key(door) {
                continue;
            }
            let (names, permits) = (self.known.names.clone(), Arc::clone(&self.permits));
            let task = tokio::spawn(listen(*address, door.clone(), names, permits));
            self.open.insert(door.clone(), (*address, Open(task.abort_handle())));
        }
    }
}

async fn listen(address: SocketAddr, door: Door, names: watch::Receiver<Names>, permits: Arc<Semaphore>) {
    let listener = bound(address).await;
    let turn = AtomicUsize::new(0);
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                tracing::debug!(%address, %error, "accepting a connection");
                sleep(BIND_PAUSE).await;
                continue;
            }
        };
        let (names, door) = (names.clone(), door.clone());
        let first = turn.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            pass_on(client, &door, names, first).await;
            drop(permit);
        });
    }
}

/// Waits for an address that somebody else has.
async fn bound(address: SocketAddr) -> TcpListener {
    let mut is_first = true;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) if is_first => tracing::warn!(%address, %error, "listening for a service"),
            Err(_) => {}
        }
        is_first = false;
        sleep(BIND_PAUSE).await;
    }
}

async fn pass_on(mut client: TcpStream, door: &Door, mut names: watch::Receiver<Names>, first: usize) {
    let pods = behind(&names.borrow(), door, first);
    for (pod, uid, address) in pods.into_iter().take(TRIES_MAX) {
        let Ok(Ok(mut server)) = timeout(CONNECT_PATIENCE, TcpStream::connect(address)).await else { continue };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        tokio::select! {
            // Either side may end it; there is nobody to tell how.
            _ = copy_bidirectional(&mut client, &mut server) => {}
            () = gone(&mut names, &door.0, &pod, uid) => tracing::debug!(service = %door.0, %pod, "its connection ends"),
        }
        return;
    }
    tracing::debug!(service = %door.0, "no pod takes the connection");
}

/// The pods that a connection may go to, beginning with another one each time.
fn behind(names: &Names, (key, port): &Door, first: usize) -> Vec<(Name, Uid, SocketAddr)> {
    let Some(service) = names.service(key) else { return Vec::new() };
    let mut pods = addresses(service, *port);
    if !pods.is_empty() {
        let by = first % pods.len();
        pods.rotate_left(by);
    }
    pods
}

fn addresses(service: &NamedService, port: u32) -> Vec<(Name, Uid, SocketAddr)> {
    let Some(index) = service.ports.iter().position(|own| own.port == port && own.protocol.as_str() == "TCP") else {
        return Vec::new();
    };
    let address = |(pod, endpoint): (&Name, &domain::names::Endpoint)| {
        let port = endpoint.ports.get(index).and_then(|port| u16::try_from(*port).ok()).filter(|port| *port != 0)?;
        let address = (Ipv4Addr::from(endpoint.address), ports::effective(port)).into();
        Some((pod.clone(), endpoint.uid, address))
    };
    service.named().filter_map(address).collect()
}

/// Waits until a pod is not behind its service any more, ready or not.
async fn gone(names: &mut watch::Receiver<Names>, key: &Key, pod: &Name, uid: Uid) {
    let is_gone = |names: &Names| {
        let endpoint = names.service(key).and_then(|service| service.pods.get(pod));
        endpoint.is_none_or(|endpoint| endpoint.uid != uid)
    };
    if names.wait_for(is_gone).await.is_err() {
        // Nobody will ever tell.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::names::{Endpoint, NamesUpdate};
    use domain::spec::ServicePort;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const PATIENCE: Duration = Duration::from_secs(20);
    /// Addresses of this test alone.
    const SERVICE: u32 = 0x7f70_fe01;
    const PODS: [u32; 2] = [0x7f40_fe01, 0x7f40_fe02];

    async fn until<T>(what: impl Future<Output = T>) -> T {
        timeout(PATIENCE, what).await.expect("it happens in time")
    }

    /// A pod that says its number to whoever connects, and then keeps the line open.
    async fn pod(number: usize) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::from(PODS[number]), 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut lines = Vec::new();
            while let Ok((mut line, _)) = listener.accept().await {
                line.write_all(&[u8::try_from(number).unwrap()]).await.unwrap();
                lines.push(line);
            }
        });
        address
    }

    fn named(port: u32, pods: &[(usize, bool, SocketAddr)]) -> Names {
        let pods = pods.iter().map(|(number, is_named, address)| {
            let endpoint = Endpoint {
                uid: Uid(*number as u64),
                address: PODS[*number],
                is_named: *is_named,
                ports: vec![u32::from(address.port())],
                ..Endpoint::default()
            };
            (Name::from(format!("web-{number}")), endpoint)
        });
        let port = ServicePort { port, protocol: "TCP".into(), ..ServicePort::default() };
        let service = NamedService { address: SERVICE, ports: vec![port], pods: pods.collect() };
        let mut names = Names::default();
        let services = vec![(Key::new("default", "web"), Arc::new(service))];
        names.update(NamesUpdate { services, ..NamesUpdate::default() });
        names
    }

    async fn connect(port: u32) -> (TcpStream, u8) {
        loop {
            let address = (Ipv4Addr::from(SERVICE), u16::try_from(port).unwrap());
            if let Ok(mut stream) = TcpStream::connect(address).await
                && let Ok(number) = stream.read_u8().await
            {
                return (stream, number);
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn connections_go_to_ready_pods_in_turn_and_end_with_their_pod() {
        const PORT: u32 = 8_123;
        let addresses = [pod(0).await, pod(1).await];
        let both = [(0, true, addresses[0]), (1, true, addresses[1])];
        let (told, names) = watch::channel(named(PORT, &both));
        let (_is_told, is_told) = watch::channel(true);
        let proxy = tokio::spawn(run(ServiceProxy::Node, Known { names, is_told }));
        let (mut first, first_pod) = until(connect(PORT)).await;
        let (_second, second_pod) = until(connect(PORT)).await;
        assert_ne!(first_pod, second_pod);
        // The first connection's pod is not ready any more: it stays, and new ones go elsewhere.
        let other = usize::from(second_pod);
        let not_ready = both.map(|(number, _, address)| (number, number == other, address));
        told.send_replace(named(PORT, &not_ready));
        for _ in 0..3 {
            assert_eq!(until(connect(PORT)).await.1, second_pod);
        }
        assert!(first.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
        // It is gone.
        told.send_replace(named(PORT, &both[other..=other]));
        assert_eq!(until(first.read(&mut [0])).await.unwrap_or(0), 0, "the connection ends");
        proxy.abort();
    }

    #[tokio::test]
    async fn where_several_share_a_machine_one_serves_and_another_follows() {
        const PORT: u32 = 8_124;
        let (_told, names) = watch::channel(named(PORT, &[(0, true, pod(0).await)]));
        let (_is_told, is_told) = watch::channel(true);
        let known = Known { names, is_told };
        let first = tokio::spawn(run(ServiceProxy::Shared, known.clone()));
        until(connect(PORT)).await;
        let second = tokio::spawn(run(ServiceProxy::Shared, known));
        first.abort();
        until(connect(PORT)).await;
        second.abort();
    }
}
