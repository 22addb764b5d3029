//! `attach`: what a container's own process writes from now on, and its input. Never ends the container by leaving.

use api::v1;
use api::v1::attach_reply::Content as Reply;
use api::v1::attach_request::Content;
use api::v1::pods_client::PodsClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::args::Attach;
use crate::connect::Session;
use crate::error::CliError;
use crate::pick::{self, Named};
use crate::print;
use crate::terminal::{self, REQUESTS_MAX, RawMode};

/// Attaches until the container has ended, or this program is told to end. The exit code that is the answer is 0 then, or
/// 128 and the signal's number: how the container has ended is nothing that is passed on, as in Kubernetes.
pub(crate) async fn attach(session: &Session, args: &Attach, namespace: &str) -> Result<u8, CliError> {
    let pod = pick::one_pod(session, namespace, &Named::parse(&args.whose.pod)?).await?;
    let name = pod.metadata.unwrap_or_default().name;
    let spec = pod.spec.unwrap_or_default();
    // The first of those that the pod is there for, where none is named; init containers only by their names.
    let mut containers = spec.containers.into_iter().chain(spec.init_containers);
    let container = match args.whose.container.as_str() {
        "" => containers.next(),
        wanted => containers.find(|container| container.name == wanted),
    };
    let container =
        container.ok_or_else(|| CliError::refused(format!("pod {name} has no container {}", args.whose.container)))?;
    if args.stdin && !container.stdin {
        print::note(format!("container {} reads nothing: its template does not say `stdin: true`", container.name));
    }
    if args.tty && !container.tty {
        print::note(format!("container {} has no terminal: its template does not say `tty: true`", container.name));
    }
    let has_input = args.stdin && container.stdin;
    let has_terminal = container.tty && has_input && terminal::is_here();

    let (requests, stream) = mpsc::channel(REQUESTS_MAX);
    let start = v1::AttachStart {
        namespace: namespace.to_owned(),
        name,
        container: container.name,
        stdin: has_input,
        size: has_terminal.then(terminal::size).flatten(),
    };
    // There is room for the first.
    let _ = requests.try_send(request(Content::Start(start)));
    let call = |channel| async move { PodsClient::new(channel).attach(ReceiverStream::new(stream)).await };
    let mut replies = session.once(call).await?;
    let _raw = if has_terminal { RawMode::begin() } else { None };
    if has_terminal {
        print::note("If you don't see a command prompt, try pressing enter.\r");
        terminal::pass_on_size(&requests, |size| request(Content::Resize(size)));
    }
    if has_input {
        terminal::pass_on_input(requests.clone(), |data| request(Content::Stdin(data)));
    }
    // What is typed ends when nobody can say anything more.
    drop(requests);
    tokio::select! {
        ended = listen(&mut replies) => ended.map(|()| 0),
        // The terminal is to be as it was, also then.
        code = terminal::told_to_end() => Ok(code),
    }
}

const fn request(content: Content) -> v1::AttachRequest {
    v1::AttachRequest { content: Some(content) }
}

async fn listen(replies: &mut Streaming<v1::AttachReply>) -> Result<(), CliError> {
    while let Some(reply) = replies.message().await? {
        match reply.content {
            Some(Reply::Stdout(data)) => print::data(&data),
            Some(Reply::Stderr(data)) => print::error_data(&data),
            None => {}
        }
        if print::is_closed() {
            break;
        }
    }
    Ok(())
}
