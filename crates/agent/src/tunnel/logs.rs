//! A container's log, sent through a tunnel: what is there, and what comes while it is followed.
//! Never holds more of it than one batch.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::internal::tunnel_frame::Frame;
use api::internal::{LogsWish, TunnelFrame};
use api::reason::NOT_STARTED;
use domain::id::Uid;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tonic::Code;

use super::{End, send};
use crate::layout;
use crate::logs::{LogFollower, LogLine, LogQuery};
use crate::process;
use crate::shim::{EXIT_FILE, RUN_FILE};

/// How often a log that is followed is looked at for more.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Much less than what gRPC takes in one message.
const FRAME_BYTES_MAX: usize = 64 * 1024;

/// Sends what a container wrote: what there is now, or followed, from run to run, until its pod is gone from the node.
pub(crate) async fn send_log(
    data_dir: PathBuf,
    pod: u64,
    container: String,
    wish: LogsWish,
    outgoing: &mpsc::Sender<TunnelFrame>,
) -> End {
    let failed = |error: io::Error| {
        End::failed(Code::Internal, "LogUnreadable", format!("reading the log on the node: {error}"))
    };
    let pod_dir = layout::pod_dir(&data_dir, Uid(pod));
    let mut dir = match attempt(&pod_dir, &container, wish.previous) {
        Ok(dir) => dir,
        Err(end) => return end,
    };
    let mut query = query(&wish, Timestamp::now());
    let mut form = Form { has_times: wish.timestamps, is_in_line: false };
    loop {
        if let Err(error) = send_run(dir.clone(), query, wish.follow, &mut form, outgoing).await {
            return failed(error);
        }
        if !wish.follow || wish.previous {
            return End::good();
        }
        // Of the runs that follow, everything is wanted.
        query.tail = None;
        dir = loop {
            match next_attempt(&pod_dir, &container, &dir) {
                Some(next) => break next,
                None if !dir.exists() => return End::good(),
                None => tokio::time::sleep(LOOK_PAUSE).await,
            }
        };
    }
}

/// Sends what was written in one run; if it is followed, to its end.
async fn send_run(
    dir: PathBuf,
    query: LogQuery,
    is_followed: bool,
    form: &mut Form,
    outgoing: &mpsc::Sender<TunnelFrame>,
) -> io::Result<()> {
    let path = process::log_path(&dir);
    let mut follower = blocking(move || LogFollower::open(&path, query)).await?;
    loop {
        // Looked at first: what was written before the end is read after this.
        let is_over = !is_followed || is_over(&dir);
        let (follower_again, lines) = blocking(move || follower.next_lines().map(|lines| (follower, lines))).await?;
        follower = follower_again;
        if lines.is_empty() {
            if is_over {
                return Ok(());
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        for data in form.frames(lines) {
            send(outgoing, Frame::Data(data.into())).await;
        }
    }
}

/// The run after this one, once it has begun. When several have come and gone, the first whose log is kept.
fn next_attempt(pod_dir: &Path, container: &str, dir: &Path) -> Option<PathBuf> {
    let present: u32 = dir.file_name()?.to_str()?.parse().ok()?;
    let later = layout::attempts(pod_dir, container).into_iter().filter(|attempt| present < *attempt);
    later.map(|attempt| process::attempt_dir(pod_dir, container, attempt)).find(|dir| dir.join(RUN_FILE).exists())
}

/// The directory of the run whose log is wanted.
fn attempt(pod_dir: &Path, container: &str, is_previous: bool) -> Result<PathBuf, End> {
    // A name from outside becomes a path only if it is one of those that are there.
    let known = layout::containers(pod_dir).into_iter().find(|known| known == container);
    let attempts = known.map_or_else(Vec::new, |name| layout::attempts(pod_dir, &name));
    let dirs = attempts.into_iter().rev().map(|attempt| process::attempt_dir(pod_dir, container, attempt));
    let mut begun = dirs.filter(|dir| dir.join(RUN_FILE).exists());
    let Some(last) = begun.next() else {
        let message = format!("container {container} has not started on the node");
        return Err(End::failed(Code::FailedPrecondition, NOT_STARTED, message));
    };
    // While it waits to be started again, the run before the next one is the last.
    if !is_previous || is_over(&last) {
        return Ok(last);
    }
    begun.next().ok_or_else(|| {
        let message = format!("container {container} has no earlier run whose log is kept");
        End::failed(Code::FailedPrecondition, "NoPrevious", message)
    })
}

/// Whether nothing will be written any more.
fn is_over(dir: &Path) -> bool {
    dir.join(EXIT_FILE).exists() || !dir.exists()
}

fn query(wish: &LogsWish, now: Timestamp) -> LogQuery {
    let at_ms = |ms: u64| Timestamp::from_millisecond(i64::try_from(ms).unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX);
    let ago = |ms: u64| now.checked_sub(Duration::from_millis(ms)).unwrap_or(Timestamp::MIN);
    LogQuery {
        since: wish.since_ms.map(ago).or_else(|| wish.since_time_ms.map(at_ms)),
        // Or else a container that writes faster than the log is read would never let it end.
        until: (!wish.follow).then_some(now),
        tail: wish.tail_lines,
    }
}

/// How lines become bytes.
#[derive(Debug)]
struct Form {
    has_times: bool,
    /// The last piece did not end its line.
    is_in_line: bool,
}

impl Form {
    fn frames(&mut self, lines: Vec<LogLine>) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut frame = Vec::new();
        for line in lines {
            if self.has_times && !self.is_in_line {
                frame.extend_from_slice(format!("{:.9} ", line.at).as_bytes());
            }
            self.is_in_line = line.is_partial;
            frame.append(&mut line.into_output());
            if FRAME_BYTES_MAX <= frame.len() {
                frames.push(std::mem::take(&mut frame));
            }
        }
        if !frame.is_empty() {
            frames.push(frame);
        }
        frames
    }
}

async fn blocking<T: Send + 'static>(deed: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(deed).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::Stream;
    use std::fs;

    fn line(text: &str, is_partial: bool) -> LogLine {
        let at = Timestamp::from_second(1).unwrap();
        LogLine { at, stream: Stream::Stdout, is_partial, text: text.as_bytes().to_vec() }
    }

    #[test]
    fn a_line_in_parts_has_one_time() {
        let mut form = Form { has_times: true, is_in_line: false };
        let frames = form.frames(vec![line("a", true), line("b", false), line("c", false)]);
        let text = String::from_utf8(frames.concat()).unwrap();
        assert_eq!(text, "1970-01-01T00:00:01.000000000Z ab\n1970-01-01T00:00:01.000000000Z c\n");
    }

    #[test]
    fn the_run_that_is_wanted_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let wanted =
            |is_previous| attempt(dir.path(), "main", is_previous).map(|found| found.file_name().unwrap().to_owned());
        assert_eq!(wanted(false).unwrap_err().reason, NOT_STARTED);
        let begin = |number: u32| {
            let dir = process::attempt_dir(dir.path(), "main", number);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(RUN_FILE), "{}").unwrap();
            dir
        };
        let first = begin(0);
        assert_eq!((wanted(false).unwrap(), wanted(true).unwrap_err().reason), ("0".into(), "NoPrevious"));
        fs::write(first.join(EXIT_FILE), "{}").unwrap();
        assert_eq!((wanted(false).unwrap(), wanted(true).unwrap()), ("0".into(), "0".into()));
        begin(1);
        assert_eq!((wanted(false).unwrap(), wanted(true).unwrap()), ("1".into(), "0".into()));
        assert_eq!(next_attempt(dir.path(), "main", &first).unwrap().file_name().unwrap(), "1");
        assert_eq!(next_attempt(dir.path(), "main", &process::attempt_dir(dir.path(), "main", 1)), None);
        assert!(attempt(dir.path(), "..", false).is_err());
    }
}
