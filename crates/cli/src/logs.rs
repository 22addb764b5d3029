//! `logs`: what containers wrote, of one pod or of many. Never mixes two lines.

use api::v1;
use api::v1::pods_client::PodsClient;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::Streaming;

use crate::args::Logs;
use crate::connect::Session;
use crate::error::CliError;
use crate::fetch::read;
use crate::pick::{self, Named};
use crate::print;

/// How many lines are shown of each container when pods are chosen by their labels.
const SELECTED_TAIL: i64 = 10;
/// How many pieces of output may wait to be printed; then no more is read.
const PIECES_MAX: usize = 64;
/// A line that is longer is printed in parts.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// A container whose log is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    pod: String,
    /// Empty: the first one.
    container: String,
}

/// Writes what pods wrote.
pub(crate) async fn logs(session: &Session, args: &Logs, namespace: &str) -> Result<(), CliError> {
    let sources = sources(session, args, namespace).await?;
    if args.follow && args.max_log_requests < sources.len() {
        let count = sources.len();
        return Err(CliError::refused(format!("{count} logs would be followed, and {} may be", args.max_log_requests))
            .hint(format!("--max-log-requests={count}")));
    }
    if let [source] = sources.as_slice()
        && !args.prefix
    {
        let mut stream = open(session, args, namespace, source).await?;
        while let Some(reply) = stream.message().await? {
            print::data(&reply.data);
            if print::is_closed() {
                break;
            }
        }
        return Ok(());
    }
    if args.follow {
        follow_all(session, args, namespace, sources).await
    } else {
        all(session, args, namespace, &sources).await
    }
}

async fn sources(session: &Session, args: &Logs, namespace: &str) -> Result<Vec<Source>, CliError> {
    let pods = match &args.target {
        Some(text) => {
            let named = Named::parse(text)?;
            if args.all_pods {
                pick::pods(session, namespace, &named).await?
            } else {
                vec![pick::one_pod(session, namespace, &named).await?]
            }
        }
        None => {
            let pods = pick::selected(session, namespace, &args.selector).await?;
            if pods.is_empty() {
                return Err(CliError::refused(format!("there are no pods with {}", args.selector)));
            }
            pods
        }
    };
    Ok(pods.iter().flat_map(|pod| of_pod(pod, args)).collect())
}

fn of_pod(pod: &v1::Pod, args: &Logs) -> Vec<Source> {
    let source = |container: &str| Source {
        pod: pod.metadata.as_ref().map(|metadata| metadata.name.clone()).unwrap_or_default(),
        container: container.to_owned(),
    };
    let names = |of: fn(&v1::PodSpec) -> &Vec<v1::Container>| {
        pod.spec.iter().flat_map(of).map(|container| container.name.as_str())
    };
    let (init, main) = (names(|spec| &spec.init_containers), names(|spec| &spec.containers));
    match (args.all_containers, args.container.as_str()) {
        // In the order in which they start.
        (true, _) => init.chain(main).map(source).collect(),
        (false, "") => vec![source(main.into_iter().next().unwrap_or_default())],
        (false, name) => vec![source(name)],
    }
}

async fn open(
    session: &Session,
    args: &Logs,
    namespace: &str,
    source: &Source,
) -> Result<Streaming<v1::LogsReply>, CliError> {
    let tail = args.tail.unwrap_or(if args.target.is_none() { SELECTED_TAIL } else { -1 });
    let request = v1::LogsRequest {
        namespace: namespace.to_owned(),
        name: source.pod.clone(),
        container: source.container.clone(),
        follow: args.follow,
        previous: args.previous,
        tail_lines: Some(tail).filter(|&lines| 0 <= lines),
        // Whole seconds, as kubectl sends them; part of one is one.
        since_seconds: args.since.map(|ms| i64::try_from(ms.div_ceil(1_000)).unwrap_or(i64::MAX)),
        since_time: args.since_time.clone(),
        timestamps: args.timestamps,
    };
    read!(session, PodsClient.logs(request))
}

/// One after another. What cannot be read is told, and the others follow.
async fn all(session: &Session, args: &Logs, namespace: &str, sources: &[Source]) -> Result<(), CliError> {
    let mut failed = None;
    for source in sources {
        let read = async {
            let mut lines = Lines::new(source, args.prefix);
            let mut stream = open(session, args, namespace, source).await?;
            while let Some(reply) = stream.message().await? {
                print::data(&lines.take(&reply.data));
            }
            print::data(&lines.end());
            Ok(())
        };
        if let Err(error) = read.await {
            failed = Some(tell(source, error));
        }
        if print::is_closed() {
            return Ok(());
        }
    }
    failed.map_or(Ok(()), Err)
}

/// All at once, line by line.
async fn follow_all(session: &Session, args: &Logs, namespace: &str, sources: Vec<Source>) -> Result<(), CliError> {
    let (pieces, mut arriving) = mpsc::channel::<Vec<u8>>(PIECES_MAX);
    let mut failed = None;
    let mut followers = JoinSet::new();
    for source in sources {
        // In order, so that what is there already comes in order, too.
        let mut stream = match open(session, args, namespace, &source).await {
            Ok(stream) => stream,
            Err(error) => {
                failed = Some(tell(&source, error));
                continue;
            }
        };
        let (pieces, mut lines) = (pieces.clone(), Lines::new(&source, args.prefix));
        followers.spawn(async move {
            let ended = loop {
                match stream.message().await {
                    Ok(Some(reply)) if pieces.send(lines.take(&reply.data)).await.is_ok() => {}
                    Ok(_) => break Ok(()),
                    Err(status) => break Err(tell(&source, status.into())),
                }
            };
            let _ = pieces.send(lines.end()).await;
            ended
        });
    }
    drop(pieces);
    while let Some(piece) = arriving.recv().await {
        print::data(&piece);
        if print::is_closed() {
            return Ok(());
        }
    }
    while let Some(ended) = followers.join_next().await {
        failed = ended.ok().and_then(Result::err).or(failed);
    }
    failed.map_or(Ok(()), Err)
}

/// Tells what is wrong with one of several; what is left is the exit code.
fn tell(source: &Source, error: CliError) -> CliError {
    let failure = error.failure;
    print::error(&CliError { message: format!("{}/{}: {}", source.pod, source.container, error.message), ..error });
    CliError { failure, ..CliError::quiet() }
}

/// Whole lines of one container, each after where it comes from if that is wanted.
#[derive(Debug)]
struct Lines {
    prefix: String,
    unfinished: Vec<u8>,
}

impl Lines {
    fn new(source: &Source, has_prefix: bool) -> Self {
        let prefix = if has_prefix { format!("[pod/{}/{}] ", source.pod, source.container) } else { String::new() };
        Self { prefix, unfinished: Vec::new() }
    }

    fn take(&mut self, data: &[u8]) -> Vec<u8> {
        self.unfinished.extend_from_slice(data);
        let end = self.unfinished.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        if end == 0 && LINE_BYTES_MAX < self.unfinished.len() {
            return self.end();
        }
        let rest = self.unfinished.split_off(end);
        let whole = std::mem::replace(&mut self.unfinished, rest);
        self.marked(&whole)
    }

    /// What was written last, without the end of its line.
    fn end(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.unfinished);
        if !rest.is_empty() {
            rest.push(b'\n');
        }
        self.marked(&rest)
    }

    fn marked(&self, lines: &[u8]) -> Vec<u8> {
        let line = |line: &[u8]| [self.prefix.as_bytes(), line].concat();
        lines.split_inclusive(|&byte| byte == b'\n').flat_map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_and_say_where_they_come_from() {
        let source = Source { pod: "web-0".to_owned(), container: "main".to_owned() };
        let mut lines = Lines::new(&source, true);
        let taken = [lines.take(b"one\ntw"), lines.take(b"o\nthr"), lines.take(b"ee"), lines.end(), lines.end()];
        let text = taken.map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(text, ["[pod/web-0/main] one\n", "[pod/web-0/main] two\n", "", "[pod/web-0/main] three\n", ""]);
        assert_eq!(Lines::new(&source, false).take(b"as it is\n"), b"as it is\n");
    }
}
