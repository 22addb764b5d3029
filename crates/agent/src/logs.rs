//! A container's log file: lines as `time stream F|P text`, rotated by size, read back by time and count.
//! Never blocks the container: what cannot be written is dropped.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// Beyond this the log file is rotated; one rotated file is kept.
pub const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;
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
    pub since: Option<Timestamp>,
    pub tail: Option<usize>,
}

/// Reads a log from its oldest kept line on, then, call by call, what is new; goes along with rotation.
#[derive(Debug)]
pub struct LogFollower {
    path: PathBuf,
    query: LogQuery,
    current: Option<BufReader<File>>,
    unfinished: Vec<u8>,
    is_first: bool,
}

impl LogFollower {
    /// Follows the log at `path`, which need not exist yet.
    pub fn new(path: &Path, query: LogQuery) -> Self {
        Self {
            path: path.to_owned(),
            query,
            current: File::open(rotated(path)).ok().map(BufReader::new),
            unfinished: Vec::new(),
            is_first: true,
        }
    }

    /// The lines since the last call; `tail` counts for the first call only.
    pub fn next_lines(&mut self) -> io::Result<Vec<LogLine>> {
        let tail = if self.is_first { self.query.tail.unwrap_or(usize::MAX) } else { usize::MAX };
        self.is_first = false;
        let mut lines = VecDeque::new();
        loop {
            self.read_current(&mut lines, tail)?;
            if !self.open_newer()? {
                return Ok(lines.into());
            }
        }
    }

    fn read_current(&mut self, lines: &mut VecDeque<LogLine>, tail: usize) -> io::Result<()> {
        let Some(reader) = &mut self.current else {
            return Ok(());
        };
        while 0 < reader.read_until(b'\n', &mut self.unfinished)? {
            if self.unfinished.pop_if(|last| *last == b'\n').is_none() {
                break; // the writer is in the middle of it
            }
            let line = LogLine::parse(&self.unfinished);
            self.unfinished.clear();
            let since = self.query.since.unwrap_or(Timestamp::MIN);
            lines.extend(line.filter(|line| since <= line.at));
            if tail < lines.len() {
                lines.pop_front();
            }
        }
        Ok(())
    }

    /// Goes on to the file that is now at the path, if that is another one.
    fn open_newer(&mut self) -> io::Result<bool> {
        let newer = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let inode = |file: &File| file.metadata().map(|metadata| metadata.ino());
        if let Some(current) = &self.current
            && inode(current.get_ref())? == inode(&newer)?
        {
            return Ok(false);
        }
        self.unfinished.clear();
        self.current = Some(BufReader::new(newer));
        Ok(true)
    }
}

/// The kept lines of a log that match the query.
pub fn read_lines(path: &Path, query: LogQuery) -> io::Result<Vec<LogLine>> {
    LogFollower::new(path, query).next_lines()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
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
        let query = LogQuery { since: Some(at(2)), tail: Some(2) };
        assert_eq!(texts(read_lines(&path, query).unwrap()), "two\nthree");
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
        let mut follower = LogFollower::new(&path, LogQuery::default());
        let mut log = LogWriter::open(&path, 60).unwrap();
        let mut seen = String::new();
        for number in 0..5 {
            log.write(at(number), Stream::Stdout, format!("{number}\n").as_bytes()).unwrap();
            seen += &texts(follower.next_lines().unwrap());
        }
        assert_eq!(seen, "0\n1\n2\n3\n4\n");
        assert!(rotated(&path).exists());
        assert_eq!(texts(read_lines(&path, LogQuery::default()).unwrap()), "3\n4\n");
    }
}
