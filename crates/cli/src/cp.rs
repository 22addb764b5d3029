//! `cp`: files to and from containers. Both ends are our own code, so no image needs a `tar`.
//! Never writes outside the target.

use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use agent::archive::{self, Onto};
use api::v1;
use api::v1::copy_reply::Content as Reply;
use api::v1::copy_request::Content;
use api::v1::pods_client::PodsClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::args::Cp;
use crate::connect::Session;
use crate::error::CliError;
use crate::fetch::read;
use crate::observe::pod_name;
use crate::print;

/// How many pieces of the stream may wait; then nothing more is read.
const PIECES_MAX: usize = 16;
const PIECE_BYTES_MAX: usize = 32 * 1024;

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Here(PathBuf),
    There { namespace: Option<String>, pod: String, path: String },
}

impl Place {
    /// Understands a path, POD:PATH and NAMESPACE/POD:PATH. What begins with `/` or `.` is a path.
    fn parse(text: &str) -> Result<Self, CliError> {
        let here = || Ok(Self::Here(text.into()));
        if text.starts_with(['/', '.']) {
            return here();
        }
        let Some((pod, path)) = text.split_once(':') else { return here() };
        if pod.is_empty() || path.is_empty() {
            return Err(CliError::usage(format!("{text:?} is neither a path nor POD:PATH")));
        }
        let (namespace, pod) = match pod.split_once('/') {
            Some(("pod" | "pods" | "po", _)) | None => (None, pod_name(pod)?),
            Some((namespace, pod)) => (Some(namespace.to_owned()), pod.to_owned()),
        };
        Ok(Self::There { namespace, pod, path: path.to_owned() })
    }
}

/// Copies a file or a directory.
pub(crate) async fn cp(session: &Session, args: &Cp, namespace: &str) -> Result<(), CliError> {
    let start = |its_namespace: Option<String>, name: String, path: String, to_container: bool| v1::CopyStart {
        namespace: its_namespace.unwrap_or_else(|| namespace.to_owned()),
        name,
        container: args.container.clone(),
        path,
        to_container,
    };
    let left_out_count = match (Place::parse(&args.source)?, Place::parse(&args.target)?) {
        (Place::There { namespace, pod, path }, Place::Here(target)) => {
            from_container(session, start(namespace, pod, path, false), target).await?
        }
        (Place::Here(source), Place::There { namespace, pod, path }) => {
            let metadata = std::fs::metadata(&source);
            metadata.map_err(|error| CliError::refused(format!("reading {}: {error}", source.display())))?;
            to_container(session, start(namespace, pod, path, true), source).await?
        }
        (Place::Here(_), Place::Here(_)) => {
            return Err(CliError::usage("neither of them is in a container: write it as POD:PATH"));
        }
        (Place::There { .. }, Place::There { .. }) => {
            return Err(CliError::usage("only one of them may be in a container: copy by way of a file here"));
        }
    };
    match left_out_count {
        0 => Ok(()),
        _ => Err(CliError::refused("not everything was copied")),
    }
}

async fn open(
    session: &Session,
    start: v1::CopyStart,
) -> Result<(mpsc::Sender<v1::CopyRequest>, Streaming<v1::CopyReply>), CliError> {
    // Finds a server that answers, without having begun anything.
    let request = v1::GetRequest { namespace: start.namespace.clone(), name: start.name.clone(), stale: false };
    read!(session, PodsClient.get(request))?;
    let (requests, stream) = mpsc::channel(PIECES_MAX);
    // There is room for the first.
    let _ = requests.try_send(v1::CopyRequest { content: Some(Content::Start(start)) });
    let call = |channel| async move { PodsClient::new(channel).copy(ReceiverStream::new(stream)).await };
    let replies = session.once(call).await?;
    Ok((requests, replies))
}

/// Returns how many files had to be left out, as far as that is known.
async fn from_container(session: &Session, start: v1::CopyStart, target: PathBuf) -> Result<u64, CliError> {
    // A trailing slash says that it is a directory.
    let is_dir = target.as_os_str().as_encoded_bytes().ends_with(b"/");
    if is_dir && !target.is_dir() {
        return Err(CliError::refused(format!("{} is no directory", target.display())));
    }
    let (_requests, mut replies) = open(session, start).await?;
    let (pieces, arriving) = mpsc::channel(PIECES_MAX);
    let unpacking = tokio::task::spawn_blocking(move || {
        let mut left_out_count = 0;
        let stream = Arriving { pieces: arriving, piece: Vec::new(), position: 0 };
        let done = archive::unpack(stream, &target, Onto::Merged, &mut |text| {
            left_out_count += 1;
            print::note(text);
        });
        done.map(|()| left_out_count)
    });
    let heard = hear(&mut replies, Some(&pieces)).await;
    if let Err(error) = &heard {
        // What is there so far is not all.
        let _ = pieces.send(Err(io::Error::other(error.message.clone()))).await;
    }
    drop(pieces);
    let unpacked = unpacking.await.map_err(io::Error::other).and_then(std::convert::identity);
    // Without the whole stream, that is what went wrong, and the rest follows from it.
    match (heard?, unpacked) {
        (is_complete, Ok(left_out_count)) => Ok(left_out_count + u64::from(!is_complete)),
        // Said already, by the other side.
        (false, Err(_)) => Ok(1),
        (true, Err(error)) => Err(CliError::refused(error.to_string())),
    }
}

async fn to_container(session: &Session, start: v1::CopyStart, source: PathBuf) -> Result<u64, CliError> {
    let (requests, mut replies) = open(session, start).await?;
    let packing = tokio::task::spawn_blocking(move || pack(&source, requests));
    let is_complete = hear(&mut replies, None).await?;
    let left_out_count = match packing.await.map_err(io::Error::other).and_then(std::convert::identity) {
        Ok(left_out_count) => left_out_count,
        // Nobody takes any more because the other side has said what is wrong.
        Err(_) if !is_complete => 0,
        Err(error) => return Err(CliError::refused(error.to_string())),
    };
    Ok(left_out_count + u64::from(!is_complete))
}

fn pack(source: &Path, requests: mpsc::Sender<v1::CopyRequest>) -> io::Result<u64> {
    let mut left_out_count = 0;
    let stream = BufWriter::with_capacity(PIECE_BYTES_MAX, Leaving { requests });
    archive::pack(source, stream, &mut |text| {
        left_out_count += 1;
        print::note(text);
    })?;
    Ok(left_out_count)
}

/// Listens to the end; returns whether nothing was left out on the other side.
async fn hear(
    replies: &mut Streaming<v1::CopyReply>,
    pieces: Option<&mpsc::Sender<io::Result<Vec<u8>>>>,
) -> Result<bool, CliError> {
    while let Some(reply) = replies.message().await? {
        match reply.content {
            Some(Reply::Data(data)) => {
                if let Some(pieces) = pieces
                    && pieces.send(Ok(data)).await.is_err()
                {
                    // It cannot be written, and whoever tried says why.
                    return Ok(true);
                }
            }
            Some(Reply::Errors(text)) => print::error_data(&text),
            Some(Reply::IsComplete(is_complete)) => return Ok(is_complete),
            None => {}
        }
    }
    Err(CliError::unreachable("the server ended the connection, and how the copy ended is unknown"))
}

/// The stream as it arrives.
struct Arriving {
    pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    position: usize,
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.position == self.piece.len() {
            match self.pieces.blocking_recv() {
                Some(piece) => (self.piece, self.position) = (piece?, 0),
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len() - self.position);
        buffer[..count].copy_from_slice(&self.piece[self.position..self.position + count]);
        self.position += count;
        Ok(count)
    }
}

/// The stream as it leaves.
struct Leaving {
    requests: mpsc::Sender<v1::CopyRequest>,
}

impl Write for Leaving {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let content = Some(Content::Data(buffer.to_vec()));
        let sent = self.requests.blocking_send(v1::CopyRequest { content });
        sent.map(|()| buffer.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_understood() {
        let there = |namespace: Option<&str>, pod: &str, path: &str| Place::There {
            namespace: namespace.map(str::to_owned),
            pod: pod.to_owned(),
            path: path.to_owned(),
        };
        let table = [
            ("web-0:/data", there(None, "web-0", "/data")),
            ("pod/web-0:data/a:b", there(None, "web-0", "data/a:b")),
            ("shop/web-0:/data", there(Some("shop"), "web-0", "/data")),
            ("./web-0:/data", Place::Here("./web-0:/data".into())),
            ("/web-0:/data", Place::Here("/web-0:/data".into())),
            ("file", Place::Here("file".into())),
        ];
        for (text, place) in table {
            assert_eq!(Place::parse(text).unwrap(), place, "{text}");
        }
        assert!(Place::parse("web-0:").is_err() && Place::parse(":/data").is_err());
    }
}
