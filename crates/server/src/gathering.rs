//! Connections that write once for all that is ready to be answered.
//!
//! Many calls are carried out by one step of the core, and are answered at the same moment, each by a task of its own. The
//! task of their connection is woken by the first of them and would write that answer alone, and so on: a system call, a
//! packet and a wake-up of the client for each. So before it writes it goes to the end of the queue once, and lets the
//! others come first. Nobody waits for anything that is not ready to run; docs/performance.md has what it gave.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// Such a connection.
#[derive(Debug)]
pub(crate) struct Gathering<S> {
    stream: S,
    /// Whether others were let go first since the last flush.
    has_gathered: bool,
}

impl<S> Gathering<S> {
    pub(crate) const fn new(stream: S) -> Self {
        Self { stream, has_gathered: false }
    }
}

impl<S: Connected> Connected for Gathering<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathering<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathering<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.has_gathered {
            self.has_gathered = true;
            // A task that wakes itself goes behind those that are ready.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.has_gathered = false;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    /// Small pieces are then put together by whoever writes, instead of being handed over one by one.
    fn is_write_vectored(&self) -> bool {
        false
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail where it stands")]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn others_are_let_go_first_once_before_each_flush() {
        let wakes = Arc::new(Wakes::default());
        let waker = Arc::clone(&wakes).into();
        let mut context = Context::from_waker(&waker);
        let mut connection = Gathering::new(Vec::new());
        for round in 1..=2 {
            assert!(Pin::new(&mut connection).poll_write(&mut context, b"a").is_pending());
            assert_eq!(wakes.0.load(Ordering::Relaxed), round, "it is woken again at once");
            for _ in 0..2 {
                assert!(Pin::new(&mut connection).poll_write(&mut context, b"a").is_ready());
            }
            assert!(Pin::new(&mut connection).poll_flush(&mut context).is_ready());
        }
        assert_eq!(connection.stream, b"aaaa");
    }
}
