//! One attempt of a probe: a command, an HTTP request, or a connection.
//! Never counts successes or failures; that is agent-core's.

use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::ports;
use crate::process::{Streams, Surroundings};

/// More of a failed command's output is not reported.
const OUTPUT_BYTES_MAX: u64 = 1024;
/// A longer status line is not HTTP.
const STATUS_LINE_BYTES_MAX: u64 = 1024;

/// What to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Healthy when the command exits with 0.
    Exec { argv: Vec<String>, surroundings: Surroundings },
    /// Healthy when the answer is 200 to 399.
    HttpGet { ip: IpAddr, port: u16, path: String, host: Option<String>, headers: Vec<(String, String)> },
    /// Healthy when the connection is accepted.
    TcpSocket { ip: IpAddr, port: u16 },
    /// Healthy when the health service says SERVING.
    Grpc { ip: IpAddr, port: u16, service: String },
}

/// Tries once. The error is a sentence for people.
///
/// A port that containers of this user cannot have is looked for where they were told to move it ([`ports`]).
pub async fn run(probe: &Probe, timeout: Duration) -> Result<(), String> {
    let attempt = async {
        match probe {
            Probe::Exec { argv, surroundings } => exec(argv, surroundings).await,
            Probe::HttpGet { ip, port, path, host, headers } => {
                let address = SocketAddr::new(*ip, ports::effective(*port));
                http_get(address, path, host.as_deref(), headers).await
            }
            Probe::Grpc { ip, port, service } => grpc(SocketAddr::new(*ip, ports::effective(*port)), service).await,
            Probe::TcpSocket { ip, port } => connect(SocketAddr::new(*ip, ports::effective(*port))).await.map(drop),
        }
    };
    match tokio::time::timeout(timeout, attempt).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {} ms", timeout.as_millis())),
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    TcpStream::connect(address).await.map_err(|error| format!("connecting to {address}: {error}"))
}

async fn grpc(address: SocketAddr, service: &str) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("asking {address} by gRPC: {error}");
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| failed(&error))?;
    let channel = endpoint.connect().await.map_err(|error| failed(&error))?;
    let request = HealthCheckRequest { service: service.to_owned() };
    let reply = HealthClient::new(channel).check(request).await.map_err(|status| failed(&status.message()))?;
    match reply.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        status => Err(format!("{address} says {}", status.as_str_name())),
    }
}

async fn http_get(
    address: SocketAddr,
    path: &str,
    host: Option<&str>,
    headers: &[(String, String)],
) -> Result<(), String> {
    let slash = if path.starts_with('/') { "" } else { "/" };
    let host = host.map_or_else(|| address.to_string(), str::to_owned);
    let own_host = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
    let mut request = format!("GET {slash}{path} HTTP/1.1\r\nUser-Agent: holdfast-probe\r\nConnection: close\r\n");
    if !own_host {
        request += &format!("Host: {host}\r\n");
    }
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += "\r\n";
    let mut stream = connect(address).await?;
    let failed = |error| format!("talking to {address}: {error}");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let line = status_line(stream).await.map_err(failed)?;
    match status_code(&line) {
        Some(200..=399) => Ok(()),
        Some(code) => Err(format!("http://{address}{slash}{path} answered {code}")),
        None => Err(format!("http://{address}{slash}{path} did not answer in HTTP")),
    }
}

async fn status_line(stream: impl AsyncRead + Unpin) -> std::io::Result<Vec<u8>> {
    let mut stream = stream.take(STATUS_LINE_BYTES_MAX);
    let mut line = Vec::new();
    while !line.contains(&b'\n') && 0 < stream.read_buf(&mut line).await? {}
    Ok(line)
}

fn status_code(line: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(line.split(|&byte| byte == b'\r' || byte == b'\n').next()?).ok()?;
    let mut words = line.split_ascii_whitespace();
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

async fn exec(argv: &[String], surroundings: &Surroundings) -> Result<(), String> {
    let Some((program, args)) = argv.split_first() else {
        return Err("the probe has no command".to_owned());
    };
    let mut child = tokio::process::Command::from(surroundings.command(program, args, Streams::Plain))
        .process_group(0)
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("running {program}: {error}"))?;
    let _group = KillGroup(child.id());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (out, err, status) = tokio::join!(read_some(stdout), read_some(stderr), child.wait());
    let status = status.map_err(|error| format!("waiting for {program}: {error}"))?;
    if status.success() {
        return Ok(());
    }
    let said = if err.is_empty() { out } else { err };
    let said = String::from_utf8_lossy(&said);
    Err(format!("{program} ended with {status}: {}", said.trim()))
}

/// Keeps the beginning, and reads on so that the command is not stopped by a full pipe.
async fn read_some(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(mut pipe) = pipe {
        // A broken pipe only shortens the message.
        let _ = (&mut pipe).take(OUTPUT_BYTES_MAX).read_to_end(&mut kept).await;
        let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    }
    kept
}

/// Kills what the command has started, too, when it is over or given up.
struct KillGroup(Option<u32>);

impl Drop for KillGroup {
    fn drop(&mut self) {
        let leader = self.0.and_then(|pid| Pid::from_raw(pid.cast_signed()));
        if let Some(leader) = leader {
            let _ = rustix::process::kill_process_group(leader, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio_stream::wrappers::TcpListenerStream;

    #[test]
    fn only_http_has_a_status_code() {
        assert_eq!(status_code(b"HTTP/1.1 204 No Content\r\nServer: x\r\n"), Some(204));
        assert_eq!(status_code(b"HTTP/1.0 500\n"), Some(500));
        assert_eq!(status_code(b"SSH-2.0-OpenSSH_9.2\r\n"), None);
        assert_eq!(status_code(b""), None);
    }

    #[tokio::test]
    async fn grpc_asks_the_standard_health_service() {
        let (health, service) = tonic_health::server::health_reporter();
        health.set_service_status("db", tonic_health::ServingStatus::Serving).await;
        health.set_service_status("ill", tonic_health::ServingStatus::NotServing).await;
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (ip, port) = (IpAddr::V4(Ipv4Addr::LOCALHOST), listener.local_addr().unwrap().port());
        let server = tonic::transport::Server::builder().add_service(service);
        let serving = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let ask = async |service: &str| {
            let probe = Probe::Grpc { ip, port, service: service.to_owned() };
            run(&probe, Duration::from_secs(10)).await
        };
        assert_eq!(ask("").await, Ok(()), "the server as a whole");
        assert_eq!(ask("db").await, Ok(()));
        assert!(ask("ill").await.unwrap_err().ends_with("says NOT_SERVING"));
        let unknown = ask("unknown").await.unwrap_err();
        assert!(unknown.starts_with(&format!("asking 127.0.0.1:{port} by gRPC: ")), "{unknown}");
        serving.abort();
        let _ = serving.await;
        assert!(ask("").await.is_err(), "nobody is there");
    }
}
