//! `exec`: a command in a container, with this terminal or these pipes, and its exit code.
//! Never runs it twice.

use api::v1;
use api::v1::exec_reply::Content as Reply;
use api::v1::exec_request::Content;
use api::v1::pods_client::PodsClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::args::Exec;
use crate::connect::Session;
use crate::error::CliError;
use crate::pick;
use crate::print;
use crate::terminal::{self, REQUESTS_MAX, RawMode};

/// Runs a command beside a container; its exit code is the answer.
pub(crate) async fn exec(session: &Session, args: &Exec, namespace: &str) -> Result<u8, CliError> {
    let is_terminal = terminal::is_here();
    if args.tty && args.stdin && !is_terminal {
        print::note("standard input is no terminal, so the command gets none");
    }
    let has_terminal = args.tty && (is_terminal || !args.stdin);
    // Finds a server that answers, too, without having begun anything.
    let name = pick::one_pod_name(session, namespace, &args.whose.pod).await?;

    let (requests, stream) = mpsc::channel(REQUESTS_MAX);
    let start = v1::ExecStart {
        namespace: namespace.to_owned(),
        name,
        container: args.whose.container.clone(),
        command: args.command.clone(),
        stdin: args.stdin,
        tty: has_terminal,
        size: has_terminal.then(terminal::size).flatten(),
    };
    // There is room for the first.
    let _ = requests.try_send(request(Content::Start(start)));
    let call = |channel| async move { PodsClient::new(channel).exec(ReceiverStream::new(stream)).await };
    let mut replies = session.once(call).await?;

    let _raw = if has_terminal && args.stdin { RawMode::begin() } else { None };
    if has_terminal {
        terminal::pass_on_size(&requests, |size| request(Content::Resize(size)));
    }
    if args.stdin {
        terminal::pass_on_input(requests.clone(), |data| request(Content::Stdin(data)));
    }
    // What is typed ends when nobody can say anything more.
    drop(requests);
    tokio::select! {
        ended = listen(&mut replies) => ended,
        // The terminal is to be as it was, also then.
        code = terminal::told_to_end() => Ok(code),
    }
}

const fn request(content: Content) -> v1::ExecRequest {
    v1::ExecRequest { content: Some(content) }
}

async fn listen(replies: &mut Streaming<v1::ExecReply>) -> Result<u8, CliError> {
    while let Some(reply) = replies.message().await? {
        match reply.content {
            Some(Reply::Stdout(data)) => print::data(&data),
            Some(Reply::Stderr(data)) => print::error_data(&data),
            Some(Reply::ExitCode(code)) => return Ok(u8::try_from(code).unwrap_or(u8::MAX)),
            None => {}
        }
        if print::is_closed() {
            return Ok(0);
        }
    }
    Err(CliError::unreachable("the server ended the connection, and how the command ended is unknown"))
}
