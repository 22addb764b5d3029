//! Small workloads that the holdfast binary brings along: a file server, a writer for fault experiments, a pause.
//! They know nothing of the cluster but their environment.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use crate::environment::mirrored;

/// A longer request head is refused.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// A client that has not sent its request by then is hung up on.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const HTTP_PORT: u16 = 80;
/// Taken when the port is not permitted.
const HTTP_PORT_UNPRIVILEGED: u16 = 8080;
const WRITE_INTERVAL: Duration = Duration::from_millis(50);
const HTML_DIR: &str = "/usr/share/nginx/html";
const USAGE: &str =
    "usage: workload httpd [--root DIR] [--port N] [--addr IP] | workload writer --file F | workload pause";

/// The verb `workload NAME …`. Runs until SIGTERM. Call it before any runtime exists.
pub fn run_workload(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Option<Vec<String>> = args.into_iter().map(|arg| arg.into_string().ok()).collect();
    let Some(workload) = args.as_deref().and_then(parse) else {
        let _ = writeln!(io::stderr(), "{USAGE}");
        return ExitCode::from(2);
    };
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(until_terminated(workload)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "workload: {error}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Workload {
    Httpd { root: PathBuf, address: SocketAddr },
    Writer { file: PathBuf, uid: String },
    Pause,
}

fn parse(args: &[String]) -> Option<Workload> {
    let (name, mut rest) = args.split_first()?;
    let mut flags = Vec::new();
    while let [flag, value, after @ ..] = rest {
        flags.push((flag.as_str(), value.as_str()));
        rest = after;
    }
    let allowed: &[&str] = match name.as_str() {
        "httpd" => &["--root", "--port", "--addr"],
        "writer" => &["--file"],
        "pause" => &[],
        _ => return None,
    };
    if !rest.is_empty() || flags.iter().any(|(flag, _)| !allowed.contains(flag)) {
        return None;
    }
    let flag = |name| flags.iter().rfind(|(flag, _)| *flag == name).map(|&(_, value)| value.to_owned());
    let variable = |name: &str| std::env::var(name).ok();
    Some(match name.as_str() {
        "httpd" => {
            let ip = match flag("--addr").or_else(|| variable("POD_IP")) {
                Some(text) => text.parse().ok()?,
                None => IpAddr::V4(Ipv4Addr::LOCALHOST),
            };
            let port = flag("--port").map_or(Some(HTTP_PORT), |text| text.parse().ok())?;
            let pod_root = variable("HOLDFAST_ROOT").map_or_else(|| PathBuf::from("/"), PathBuf::from);
            let root = flag("--root").map(PathBuf::from).or_else(|| mirrored(&pod_root, HTML_DIR))?;
            Workload::Httpd { root, address: SocketAddr::new(ip, port) }
        }
        "writer" => Workload::Writer {
            file: flag("--file")?.into(),
            uid: variable("POD_UID").unwrap_or_else(|| std::process::id().to_string()),
        },
        _ => Workload::Pause,
    })
}

/// SIGTERM is handled even where its default would do: the first process of a PID namespace is not ended by defaults.
async fn until_terminated(workload: Workload) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let work = async {
        match workload {
            Workload::Httpd { root, address } => serve(root, address).await,
            Workload::Writer { file, uid } => write_lines(&file, &uid).await,
            Workload::Pause => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        ended = work => ended,
    }
}

/// Every line that is printed has been on disk before.
async fn write_lines(path: &Path, uid: &str) -> io::Result<()> {
    let mut file = File::options().create(true).append(true).open(path)?;
    let mut interval = tokio::time::interval(WRITE_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seq: u64 = 0;
    loop {
        interval.tick().await;
        seq += 1;
        let line = format!("{uid} {seq}\n");
        file.write_all(line.as_bytes())?;
        file.sync_data()?;
        say(line.trim_end())?;
    }
}

fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

async fn serve(root: PathBuf, address: SocketAddr) -> io::Result<()> {
    let listener = match TcpListener::bind(address).await {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let address = SocketAddr::new(address.ip(), HTTP_PORT_UNPRIVILEGED);
            TcpListener::bind(address).await?
        }
        bound => bound?,
    };
    say(&format!("serving {} on {}", root.display(), listener.local_addr()?))?;
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                let root = root.clone();
                tokio::spawn(async move {
                    // A client that goes away is no concern of ours.
                    let _ = answer(stream, client, &root).await;
                });
            }
            // Out of descriptors, or a client that gave up: the listener itself is sound.
            Err(_) => tokio::time::sleep(WRITE_INTERVAL).await,
        }
    }
}

#[derive(Debug)]
struct Answer {
    status: &'static str,
    content_type: &'static str,
    body: Vec<u8>,
    location: Option<String>,
}

impl Answer {
    fn text(status: &'static str) -> Self {
        let body = format!("{status}\n").into_bytes();
        Self { status, content_type: "text/plain", body, location: None }
    }

    const fn html(body: Vec<u8>) -> Self {
        Self { status: "200 OK", content_type: "text/html; charset=utf-8", body, location: None }
    }
}

async fn answer(mut stream: TcpStream, client: SocketAddr, root: &Path) -> io::Result<()> {
    let Ok(head) = tokio::time::timeout(HEAD_TIMEOUT, read_head(&mut stream)).await else {
        return Ok(());
    };
    let head = head?;
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let answer = match method {
        "GET" | "HEAD" if target.starts_with('/') => find(root, target),
        "GET" | "HEAD" | "" => Answer::text("400 Bad Request"),
        _ => Answer::text("405 Method Not Allowed"),
    };
    say(&format!("{} {method} {target} {}", client.ip(), answer.status))?;
    let location = answer.location.map_or_else(String::new, |to| format!("Location: {to}\r\n"));
    let response = format!(
        "HTTP/1.1 {}\r\nServer: holdfast\r\nContent-Type: {}\r\nContent-Length: {}\r\n{location}Connection: close\r\n\r\n",
        answer.status,
        answer.content_type,
        answer.body.len(),
    );
    stream.write_all(response.as_bytes()).await?;
    if method != "HEAD" {
        stream.write_all(&answer.body).await?;
    }
    stream.shutdown().await
}

async fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn find(root: &Path, target: &str) -> Answer {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let local = decode(path).and_then(|path| mirrored(root, &path));
    let Some(local) = local else {
        return Answer::text("400 Bad Request");
    };
    if path == "/" && !root.exists() {
        // As the image whose place this takes: without a volume there is a page of its own.
        return Answer::html(b"<h1>It works</h1>\n".to_vec());
    }
    if !local.is_dir() {
        return read(&local);
    }
    if !path.ends_with('/') {
        let location = Some(format!("{path}/"));
        return Answer { location, ..Answer::text("301 Moved Permanently") };
    }
    let index = local.join("index.html");
    if index.is_file() { read(&index) } else { list(&local, path) }
}

fn read(path: &Path) -> Answer {
    let body = match fs::read(path) {
        Ok(body) => body,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Answer::text("403 Forbidden");
        }
        Err(_) => return Answer::text("404 Not Found"),
    };
    let content_type = match path.extension().and_then(|extension| extension.to_str()) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("css") => "text/css",
        Some("js") => "text/javascript",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("txt" | "log" | "md") | None => "text/plain; charset=utf-8",
        Some(_) => "application/octet-stream",
    };
    Answer { content_type, ..Answer::html(body) }
}

fn list(dir: &Path, path: &str) -> Answer {
    let Ok(entries) = fs::read_dir(dir) else {
        return Answer::text("403 Forbidden");
    };
    let mut names: Vec<String> = entries
        .flatten()
        .map(|entry| {
            let slash = if entry.path().is_dir() { "/" } else { "" };
            format!("{}{slash}", entry.file_name().to_string_lossy())
        })
        .collect();
    names.sort();
    let items: String = names
        .iter()
        .map(|name| format!("<li><a href=\"./{}\">{}</a></li>\n", escape(&encode(name)), escape(name)))
        .collect();
    Answer::html(format!("<h1>Index of {}</h1>\n<ul>\n{items}</ul>\n", escape(path)).into_bytes())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn encode(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn decode(path: &str) -> Option<String> {
    let mut decoded = Vec::new();
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            plain => plain,
        };
        if byte == 0 {
            return None;
        }
        decoded.push(byte);
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_checked() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let parsed = parse(&words("httpd --root /srv --addr 127.0.0.9 --port 81"));
        let address = "127.0.0.9:81".parse().unwrap();
        assert_eq!(parsed, Some(Workload::Httpd { root: "/srv".into(), address }));
        for wrong in ["httpd --port x", "httpd --root", "writer", "writer --root x --file f", "shell"] {
            assert_eq!(parse(&words(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn files_indexes_listings_and_nothing_outside() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("secret"), "s").unwrap();
        let root = dir.path().join("html");
        fs::create_dir_all(root.join("a b")).unwrap();
        fs::write(root.join("a b/x.txt"), "hello").unwrap();
        let statuses = [
            ("/a%20b/x.txt?q=1", "200 OK"),
            ("/a%20b", "301 Moved Permanently"),
            ("/nope", "404 Not Found"),
            ("/../secret", "400 Bad Request"),
            ("/%2e%2e/secret", "400 Bad Request"),
            ("/%zz", "400 Bad Request"),
        ];
        for (target, status) in statuses {
            assert_eq!(find(&root, target).status, status, "{target}");
        }
        assert!(String::from_utf8(find(&root, "/").body).unwrap().contains("./a%20b/"));
        fs::write(root.join("index.html"), "front").unwrap();
        assert_eq!(find(&root, "/").body, b"front");
        assert_eq!(find(&dir.path().join("no-volume"), "/").status, "200 OK");
    }
}
