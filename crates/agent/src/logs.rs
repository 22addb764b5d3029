//! A container's log file: lines as `time stream F|P text`, rotated by size, read back by time and count.
//! Never blocks the container: what cannot be written is dropped.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// Beyond this the log file is rotated; one rotated file is kept.
pub const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// How much of a log is read at once.
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// A longer line is stored in parts, each but the last marked `P`.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Cuts the bytes of both streams into lines and appends them to the log.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    file: File,
    size_bytes: u64,
    size_bytes_max: u64,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl LogWriter {
    /// Opens the log for appending.
    pub fn open(path: &Path, size_bytes_max: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size_bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size_bytes, size_bytes_max, stdout: Vec::new(), stderr: Vec::new() })
    }

    /// Takes what a stream has written.
    pub fn write(&mut self, now: Timestamp, stream: Stream, mut bytes: &[u8]) -> io::Result<()> {
        let mut lines = Vec::new();
        let pending = self.pending(stream);
        while !bytes.is_empty() {
            let end = bytes.iter().position(|&byte| byte == b'\n');
            let room = LINE_BYTES_MAX - pending.len();
            let taken = end.unwrap_or(bytes.len()).min(room);
            let (part, rest) = bytes.split_at(taken);
            pending.extend_from_slice(part);
            bytes = rest;
            if end == Some(taken) {
                bytes = &bytes[1..];
                push_record(&mut lines, now, stream, 'F', pending);
            } else if pending.len() == LINE_BYTES_MAX {
                push_record(&mut lines, now, stream, 'P', pending);
            }
        }
        self.append(&lines)
    }

    /// Stores what was written without a newline at the end. Call when the streams have ended.
    pub fn finish(&mut self, now: Timestamp) -> io::Result<()> {
        let mut lines = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let pending = self.pending(stream);
            if !pending.is_empty() {
                push_record(&mut lines, now, stream, 'P', pending);
            }
        }
        self.append(&lines)
    }

    const fn pending(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let size_bytes = self.size_bytes + lines.len() as u64;
        if self.size_bytes_max < size_bytes && 0 < self.size_bytes {
            fs::rename(&self.path, rotated(&self.path))?;
            *self = Self {
                stdout: std::mem::take(&mut self.stdout),
                stderr: std::mem::take(&mut self.stderr),
                ..Self::open(&self.path, self.size_bytes_max)?
            };
        }
        self.file.write_all(lines)?;
        self.size_bytes += lines.len() as u64;
        Ok(())
    }
}

fn push_record(lines: &mut Vec<u8>, now: Timestamp, stream: Stream, tag: char, text: &mut Vec<u8>) {
    lines.extend_from_slice(format!("{now:.9} {} {tag} ", stream.name()).as_bytes());
    lines.append(text);
    lines.push(b'\n');
}

fn rotated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

/// One stored line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    pub at: Timestamp,
    pub stream: Stream,
    /// The newline that ends the text was not written by the container.
    pub is_partial: bool,
    pub text: Vec<u8>,
}

impl LogLine {
    /// Reads a stored line, without its newline.
    pub fn parse(record: &[u8]) -> Option<Self> {
        let mut fields = record.splitn(4, |&byte| byte == b' ');
        let at = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let stream = match fields.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        let is_partial = match fields.next()? {
            b"F" => false,
            b"P" => true,
            _ => return None,
        };
        Some(Self { at, stream, is_partial, text: fields.next()?.to_vec() })
    }

    /// What the container wrote: the text, with its newline if it had one.
    pub fn into_output(self) -> Vec<u8> {
        let mut output = self.text;
        if !self.is_partial {
            output.push(b'\n');
        }
        output
    }
}

/// Which lines are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogQuery {
    /// None that is older.
    pub since: Option<Timestamp>,
    /// None that is newer.
    pub until: Option<Timestamp>,
    /// Of those, only so many of the newest that are there at first.
    pub tail: Option<u64>,
}

impl LogQuery {
    fn wants(&self, line: &LogLine) -> bool {
        self.since.is_none_or(|since| since <= line.at)
    }

    /// Lines are in the order of their times: nothing wanted follows.
    fn is_beyond(&self, line: &LogLine) -> bool {
        self.until.is_some_and(|until| until < line.at)
    }
}

/// Reads a log from its oldest kept line on, then, call by call, what is new; goes along with rotation.
#[derive(Debug)]
pub struct LogFollower {
    path: PathBuf,
    query: LogQuery,
    /// Oldest first; what is read to its end goes once there is a newer one.
    files: VecDeque<BufReader<File>>,
    /// The beginning of a line that the writer is in the middle of.
    unfinished: Vec<u8>,
    /// How many lines of the query come before its tail.
    skip_count: u64,
    /// Nothing more is wanted.
    is_over: bool,
}

impl LogFollower {
    /// Follows the log at `path`, which need not exist yet.
    pub fn open(path: &Path, query: LogQuery) -> io::Result<Self> {
        let (path, files, unfinished) = (path.to_owned(), VecDeque::new(), Vec::new());
        let mut follower = Self { path, query, files, unfinished, skip_count: 0, is_over: false };
        follower.open_newer()?;
        if let Some(tail) = query.tail {
            // In the very files that are read afterwards: rotation meanwhile changes neither.
            let mut count = 0;
            for file in &mut follower.files {
                let mut record = Vec::new();
                while let Some(line) = next_line(file, &mut record)? {
                    let Some(line) = line else { continue };
                    if query.is_beyond(&line) {
                        break;
                    }
                    count += u64::from(query.wants(&line));
                }
                file.rewind()?;
            }
            follower.skip_count = u64::saturating_sub(count, tail);
        }
        Ok(follower)
    }

    /// The next lines, at most about [`BATCH_BYTES_MAX`] of them; empty when there are no more for now.
    pub fn next_lines(&mut self) -> io::Result<Vec<LogLine>> {
        let mut lines = Vec::new();
        let mut size_bytes = 0;
        while size_bytes < BATCH_BYTES_MAX && !self.is_over {
            let Some(file) = self.files.front_mut() else {
                if self.open_newer()? {
                    continue;
                }
                break;
            };
            let Some(line) = next_line(file, &mut self.unfinished)? else {
                // A file that is not the newest any more gets no more lines, but may just have got its last ones.
                let is_newer_known = 1 < self.files.len();
                if !is_newer_known && !self.open_newer()? {
                    break;
                }
                if is_newer_known {
                    self.unfinished.clear();
                    self.files.pop_front();
                }
                continue;
            };
            let Some(line) = line.filter(|line| self.query.wants(line)) else { continue };
            if self.query.is_beyond(&line) {
                self.is_over = true;
                break;
            }
            if 0 < self.skip_count {
                self.skip_count -= 1;
                continue;
            }
            size_bytes += line.text.len() + 1;
            lines.push(line);
        }
        Ok(lines)
    }

    /// Opens what has come after the last file that is open: up to two files, if that one was rotated away. Says
    /// whether there was anything.
    fn open_newer(&mut self) -> io::Result<bool> {
        let last = match self.files.back() {
            Some(file) => Some(inode(file.get_ref())?),
            None => None,
        };
        // First the one that the other becomes: in this order none is missed.
        let newest = open_if_there(&self.path)?;
        let older = open_if_there(&rotated(&self.path))?;
        let newest = match newest {
            Some(newest) if Some(inode(&newest)?) != last => newest,
            Some(_) | None => return Ok(false),
        };
        if let Some(older) = older
            && Some(inode(&older)?) != last
            && inode(&older)? != inode(&newest)?
        {
            self.files.push_back(BufReader::new(older));
        }
        self.files.push_back(BufReader::new(newest));
        Ok(true)
    }
}

fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn inode(file: &File) -> io::Result<u64> {
    file.metadata().map(|metadata| metadata.ino())
}

/// The next whole line, `Some(None)` if it is none; nothing at the end, with what is there of a line in `record`.
fn next_line(file: &mut BufReader<File>, record: &mut Vec<u8>) -> io::Result<Option<Option<LogLine>>> {
    if file.read_until(b'\n', record)? == 0 || record.pop_if(|last| *last == b'\n').is_none() {
        return Ok(None);
    }
    let line = LogLine::parse(record);
    record.clear();
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn read_lines(path: &Path, query: LogQuery) -> io::Result<Vec<LogLine>> {
        LogFollower::open(path, query)?.next_lines()
    }

    fn texts(lines: Vec<LogLine>) -> String {
        let output = lines.into_iter().flat_map(LogLine::into_output).collect();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn lines_come_back_with_time_stream_and_missing_newline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogWriter::open(&path, LOG_BYTES_MAX).unwrap();
        log.write(at(1), Stream::Stdout, b"one\ntw").unwrap();
        log.write(at(2), Stream::Stderr, b"oops\n").unwrap();
        log.write(at(3), Stream::Stdout, b"o\nthree").unwrap();
        log.finish(at(4)).unwrap();
        let stored = fs::read_to_string(&path).unwrap();
        assert!(stored.starts_with("1970-01-01T00:00:01.000000000Z stdout F one\n"), "{stored}");
        assert_eq!(texts(read_lines(&path, LogQuery::default()).unwrap()), "one\noops\ntwo\nthree");
        let query = LogQuery { since: Some(at(2)), tail: Some(2), until: None };
        assert_eq!(texts(read_lines(&path, query).unwrap()), "two\nthree");
        let query = LogQuery { until: Some(at(2)), ..LogQuery::default() };
        assert_eq!(texts(read_lines(&path, query).unwrap()), "one\noops\n");
    }

    #[test]
    fn long_lines_are_split_and_joined_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogWriter::open(&path, LOG_BYTES_MAX).unwrap();
        let long = "x".repeat(LINE_BYTES_MAX * 2) + "\nshort\n";
        log.write(at(1), Stream::Stdout, long.as_bytes()).unwrap();
        let lines = read_lines(&path, LogQuery::default()).unwrap();
        assert_eq!(texts(lines), long);
    }

    #[test]
    fn a_follower_goes_along_with_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut follower = LogFollower::open(&path, LogQuery::default()).unwrap();
        let mut log = LogWriter::open(&path, 60).unwrap();
        let mut seen = String::new();
        for number in 0..5 {
            log.write(at(number), Stream::Stdout, format!("{number}\n").as_bytes()).unwrap();
            seen += &texts(follower.next_lines().unwrap());
        }
        assert_eq!(seen, "0\n1\n2\n3\n4\n");
        assert!(rotated(&path).exists());
        assert_eq!(texts(read_lines(&path, LogQuery::default()).unwrap()), "3\n4\n");
        let query = LogQuery { tail: Some(1), ..LogQuery::default() };
        assert_eq!(texts(read_lines(&path, query).unwrap()), "4\n");
    }

    #[test]
    fn a_follower_that_falls_behind_reads_what_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogWriter::open(&path, 60).unwrap();
        log.write(at(0), Stream::Stdout, b"0\n").unwrap();
        let mut follower = LogFollower::open(&path, LogQuery::default()).unwrap();
        assert_eq!(texts(follower.next_lines().unwrap()), "0\n");
        for number in 1..6 {
            log.write(at(number), Stream::Stdout, format!("{number}\n").as_bytes()).unwrap();
        }
        assert_eq!(texts(follower.next_lines().unwrap()), "4\n5\n");
        assert_eq!(follower.next_lines().unwrap(), []);
    }
}
