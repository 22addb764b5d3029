//! `port-forward`: ports here that lead to ports of a pod, until Ctrl-C. Each connection is a call of its own, and fails
//! alone. Never listens beyond this machine unless it is told to.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use api::v1;
use api::v1::pods_client::PodsClient;
use api::v1::port_forward_reply::Content as Reply;
use api::v1::port_forward_request::Content;
use api::v1::services_client::ServicesClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::args::PortForward;
use crate::connect::Session;
use crate::error::CliError;
use crate::fetch::read;
use crate::pick::{self, Named};
use crate::print;

/// How many connections may be open at once; more wait to be taken.
const CONNECTIONS_MAX: usize = 256;
/// How many pieces of what is said may wait; then nothing more is read.
const PIECES_MAX: usize = 16;
const PIECE_BYTES_MAX: usize = 32 * 1024;

/// LOCAL:REMOTE as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair {
    /// 0: any that is free.
    local: u16,
    /// A number, or the name of a port.
    remote: String,
}

impl Pair {
    fn parse(text: &str) -> Result<Self, CliError> {
        let wrong = || CliError::usage(format!("{text:?} is not [LOCAL:]REMOTE, with ports between 1 and 65535"));
        let (local, remote) = text.split_once(':').unwrap_or((text, text));
        let local = match (local, text.contains(':')) {
            ("", true) => 0,
            // A port of which only the name is known has its number here, too.
            (name, false) if name.parse::<u16>().is_err() => 0,
            (number, _) => number.parse().map_err(|_| wrong())?,
        };
        let is_number = remote.bytes().all(|byte| byte.is_ascii_digit());
        if remote.is_empty() || (is_number && !remote.parse::<u16>().is_ok_and(|port| 0 < port)) {
            return Err(wrong());
        }
        Ok(Self { local, remote: remote.to_owned() })
    }
}

/// The port of a pod that connections lead to.
#[derive(Clone, Debug)]
struct Goal {
    namespace: String,
    pod: String,
    port: u16,
}

/// Forwards until it is told to end.
pub(crate) async fn port_forward(session: Session, args: &PortForward, namespace: &str) -> Result<(), CliError> {
    let named = Named::parse(&args.target)?;
    let pairs = args.ports.iter().map(|text| Pair::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let addresses = addresses(&args.address)?;
    let pod = pick::one_pod(&session, namespace, &named).await?;
    let service = match &named {
        Named::Service(name) => {
            let request = v1::GetRequest { namespace: namespace.to_owned(), name: name.clone(), stale: false };
            read!(session, ServicesClient.get(request))?.object.and_then(|service| service.spec)
        }
        Named::Pod(_) | Named::Set(_) => None,
    };
    let name = pod.metadata.as_ref().map(|metadata| metadata.name.clone()).unwrap_or_default();
    let mut listening = JoinSet::new();
    let (session, permits) = (Arc::new(session), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    for pair in pairs {
        let port = remote_port(&pair.remote, &pod, service.as_ref())?;
        let goal = Goal { namespace: namespace.to_owned(), pod: name.clone(), port };
        for listener in listen(&addresses, pair.local).await? {
            print::line(format!("Forwarding from {} -> {port}", local_address(&listener)?));
            listening.spawn(serve(listener, Arc::clone(&session), Arc::clone(&permits), goal.clone()));
        }
    }
    while listening.join_next().await.is_some() {}
    Ok(())
}

fn addresses(words: &[String]) -> Result<Vec<IpAddr>, CliError> {
    let mut found = BTreeSet::new();
    for word in words {
        match word.as_str() {
            "localhost" => found.extend([IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()]),
            text => {
                found
                    .insert(text.parse().map_err(|_| CliError::usage(format!("{text:?} is no address to listen on")))?);
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// The pod's port: of a service, what it leads to.
fn remote_port(text: &str, pod: &v1::Pod, service: Option<&v1::ServiceSpec>) -> Result<u16, CliError> {
    let no_port = |what: &str| CliError::refused(format!("{what} has no port {text}"));
    let target = match service {
        None => text.to_owned(),
        Some(service) => {
            let port = service.ports.iter().find(|port| port.name == text || port.port.to_string() == text);
            let port = port.ok_or_else(|| no_port("the service"))?;
            port.target_port.clone().unwrap_or_else(|| port.port.to_string())
        }
    };
    if let Ok(number) = target.parse() {
        return Ok(number);
    }
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut ports = containers.flat_map(|container| &container.ports);
    let port = ports.find(|port| port.name == target).and_then(|port| u16::try_from(port.container_port).ok());
    port.ok_or_else(|| no_port("the pod"))
}

/// All addresses get the same port. One that this machine does not have is left out, as long as there is another.
async fn listen(addresses: &[IpAddr], local: u16) -> Result<Vec<TcpListener>, CliError> {
    let (mut listeners, mut port, mut last) = (Vec::new(), local, None);
    for address in addresses {
        match TcpListener::bind((*address, port)).await {
            Ok(listener) => {
                port = listener.local_addr().map_or(port, |address| address.port());
                listeners.push(listener);
            }
            Err(error) => last = Some(format!("cannot listen on {}: {error}", SocketAddr::from((*address, port)))),
        }
    }
    match last {
        Some(why) if listeners.is_empty() => Err(CliError::refused(why)),
        _ => Ok(listeners),
    }
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr, CliError> {
    listener.local_addr().map_err(|error| CliError::refused(format!("the port here has no address: {error}")))
}

async fn serve(listener: TcpListener, session: Arc<Session>, permits: Arc<Semaphore>, goal: Goal) {
    let local = listener.local_addr().map_or(0, |address| address.port());
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                print::note(format!("error: taking a connection for {local}: {error}"));
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        print::line(format!("Handling connection for {local}"));
        let (session, goal) = (Arc::clone(&session), goal.clone());
        connections.spawn(async move {
            // It is told before the connection ends: whoever sees it end can look why.
            if let Err(error) = connect(&session, &goal, &mut stream).await {
                print::error(&CliError { message: format!("a connection for {local}: {}", error.message), ..error });
            }
            drop((stream, permit));
        });
    }
}

async fn connect(session: &Session, goal: &Goal, stream: &mut TcpStream) -> Result<(), CliError> {
    // Finds a server that answers, also when the one before has gone.
    let request = v1::GetRequest { namespace: goal.namespace.clone(), name: goal.pod.clone(), stale: false };
    read!(session, PodsClient.get(request))?;
    let (requests, outgoing) = mpsc::channel(PIECES_MAX);
    let (namespace, name) = (goal.namespace.clone(), goal.pod.clone());
    let start = v1::PortForwardStart { namespace, name, port: goal.port.into() };
    // There is room for the first.
    let _ = requests.try_send(v1::PortForwardRequest { content: Some(Content::Start(start)) });
    let call = |channel| async move { PodsClient::new(channel).port_forward(ReceiverStream::new(outgoing)).await };
    let replies = session.once(call).await?;
    // What is typed should not wait for more of it.
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.split();
    tokio::select! {
        heard = hear(replies, writer) => heard,
        () = say(reader, requests) => Ok(()),
    }
}

/// What the pod says. The end of it is not the end of the connection: it may still listen.
async fn hear(mut replies: Streaming<v1::PortForwardReply>, mut writer: WriteHalf<'_>) -> Result<(), CliError> {
    while let Some(reply) = replies.message().await? {
        let written = match reply.content {
            Some(Reply::Data(data)) => writer.write_all(&data).await,
            Some(Reply::DataEnd(_)) => writer.shutdown().await,
            None => Ok(()),
        };
        if written.is_err() {
            // Whoever connected has left, and needs no telling.
            return Ok(());
        }
    }
    Ok(())
}

/// What is said to the pod; ends only when whoever connected has left altogether.
async fn say(mut reader: ReadHalf<'_>, requests: mpsc::Sender<v1::PortForwardRequest>) {
    let mut buffer = vec![0; PIECE_BYTES_MAX];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) => break,
            Ok(count) => {
                let content = Some(Content::Data(buffer[..count].to_vec()));
                if requests.send(v1::PortForwardRequest { content }).await.is_err() {
                    break;
                }
            }
            // It was reset.
            Err(_) => return,
        }
    }
    drop(requests);
    // An answer may still come.
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_ports_are_understood() {
        let table =
            [("80", 80, "80"), ("8080:80", 8080, "80"), (":80", 0, "80"), ("1:http", 1, "http"), ("http", 0, "http")];
        for (text, local, remote) in table {
            assert_eq!(Pair::parse(text).unwrap(), Pair { local, remote: remote.to_owned() }, "{text}");
        }
        for text in ["", ":", "80:", "0", "80:0", "70000", "x:80", "80:70000"] {
            assert!(Pair::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_services_port_leads_to_the_pods() {
        let port = |name: &str, port, target: Option<&str>| v1::ServicePort {
            name: name.to_owned(),
            port,
            target_port: target.map(str::to_owned),
            ..v1::ServicePort::default()
        };
        let ports = vec![port("a", 80, Some("web")), port("b", 81, Some("8081")), port("c", 82, None)];
        let service = v1::ServiceSpec { ports, ..v1::ServiceSpec::default() };
        let container_port =
            v1::ContainerPort { name: "web".to_owned(), container_port: 8080, ..v1::ContainerPort::default() };
        let container = v1::Container { ports: vec![container_port], ..v1::Container::default() };
        let spec = v1::PodSpec { containers: vec![container], ..v1::PodSpec::default() };
        let pod = v1::Pod { spec: Some(spec), ..v1::Pod::default() };
        for (text, number) in [("80", 8080), ("a", 8080), ("81", 8081), ("82", 82)] {
            assert_eq!(remote_port(text, &pod, Some(&service)).unwrap(), number, "{text}");
        }
        assert!(remote_port("83", &pod, Some(&service)).is_err());
        assert_eq!((remote_port("web", &pod, None).unwrap(), remote_port("5", &pod, None).unwrap()), (8080, 5));
        assert!(remote_port("nothing", &pod, None).is_err());
    }
}
