//! What must be there again when this process is killed: sessions that are up, and records that no server has yet. A file of lines, to
//! which each change is added; written anew as a whole when most of it is past.
//!
//! | line | |
//! |---|---|
//! | `+ KIND NUMBER OCTETS` | is so from now on |
//! | `- KIND NUMBER` | is no longer |
//!
//! KIND is a letter, the rest hexadecimal. A line without an end is one that was being written when the process ended, and what makes no
//! sense is passed over. Nothing in it is secret. Lines are not forced to the disk: they outlive the process, and a machine that loses
//! its power may lose the last of them.
//!
//! A disk that is full costs nobody a session: that is said, and tried again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Name of the file in the folder.
pub const FILE: &str = "accounting";
/// Longest value, octets.
pub(crate) const MAX_VALUE: usize = 8192;
/// Things kept at most: no more than there may be sessions and records.
const MAX_KEPT: usize = 1 << 18;
/// Longest file that is read.
const MAX_FILE: u64 = 256 << 20;
/// Octets beyond twice of what is needed, at which it is written anew.
const SLACK: u64 = 1 << 20;
/// Wait before a write that failed is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// What something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kept {
    Record,
    Session,
}

type Key = (Kept, u64);

/// By kind and number.
pub(crate) type Contents = BTreeMap<Key, Vec<u8>>;

/// Something is so from now on, or is no longer.
type Change = (Key, Option<Vec<u8>>);

/// See the module. Without a folder it keeps nothing.
pub(crate) struct Journal {
    path: Option<PathBuf>,
    file: Option<File>,
    now: Contents,
    /// Lines that are still to be written.
    lines: String,
    /// Octets in the file, and those of them that are needed.
    long: u64,
    needed: u64,
    /// When what could not be written is tried again.
    again: Option<Instant>,
}

impl Journal {
    /// Opens the file in this folder, and writes it anew; what was in it is [`Journal::contents`].
    pub(crate) fn open(folder: Option<&Path>, now: Instant) -> Journal {
        if let Some(folder) = folder {
            // Everything in one process has no folder yet; what is wrong with it is said when it is written to.
            let _ = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        }
        let path = folder.map(|folder| folder.join(FILE));
        let contents = path.as_deref().map(read).unwrap_or_default();
        let needed = contents.iter().map(|(key, value)| line(*key, Some(value)).len() as u64).sum();
        let mut journal =
            Journal { path, file: None, now: contents, lines: String::new(), long: 0, needed, again: None };
        journal.anew(now);
        journal
    }

    /// It is so from now on; or no longer, with `None`.
    pub(crate) fn note(&mut self, kind: Kept, number: u64, value: Option<Vec<u8>>) {
        let key = (kind, number);
        if self.path.is_none() || value.as_ref().is_some_and(|value| value.len() > MAX_VALUE) {
            return;
        }
        if value.is_some() && self.now.get(&key) == value.as_ref() {
            return;
        }
        if value.is_some() && self.now.len() >= MAX_KEPT && !self.now.contains_key(&key) {
            return;
        }
        let text = line(key, value.as_deref());
        let before = match value {
            Some(value) => {
                self.needed += text.len() as u64;
                self.now.insert(key, value)
            }
            None => self.now.remove(&key),
        };
        match before {
            Some(before) => self.needed -= line(key, Some(&before)).len() as u64,
            // What was not there need not be taken away.
            None if text.starts_with('-') => return,
            None => {}
        }
        // While nothing can be written, all of it will be written anew.
        if self.again.is_none() {
            self.lines.push_str(&text);
        }
    }

    /// Writes what is noted.
    pub(crate) fn write(&mut self, now: Instant) {
        if self.path.is_none() || self.again.is_some_and(|again| now < again) {
            return;
        }
        let too_long = self.long + self.lines.len() as u64 > 2 * self.needed + SLACK;
        if self.again.is_some() || too_long {
            return self.anew(now);
        }
        if self.lines.is_empty() {
            return;
        }
        let lines = std::mem::take(&mut self.lines);
        match self.file.as_mut().map(|file| file.write_all(lines.as_bytes())) {
            Some(Ok(())) => self.long += lines.len() as u64,
            Some(Err(error)) => self.failed(now, &error),
            None => self.anew(now),
        }
    }

    /// When [`Journal::write`] wants to be called.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.again
    }

    /// What is kept.
    pub(crate) fn contents(&self) -> &Contents {
        &self.now
    }

    /// Writes all of it to a file that takes the old one's place.
    fn anew(&mut self, now: Instant) {
        let Some(path) = &self.path else { return };
        let fresh = path.with_extension("new");
        let write = || -> io::Result<File> {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            let mut out = io::BufWriter::new(&mut file);
            for (key, value) in &self.now {
                out.write_all(line(*key, Some(value)).as_bytes())?;
            }
            out.flush()?;
            drop(out);
            file.sync_data()?;
            fs::rename(&fresh, path)?;
            Ok(file)
        };
        match write() {
            Ok(file) => {
                if self.again.take().is_some() {
                    tracing::info!(file = %path.display(), "RADIUS accounting is written down again");
                }
                self.file = Some(file);
                self.lines.clear();
                self.long = self.needed;
            }
            Err(error) => {
                // What is left of it takes room where there is little.
                let _ = fs::remove_file(&fresh);
                self.failed(now, &error);
            }
        }
    }

    fn failed(&mut self, now: Instant, error: &io::Error) {
        if self.again.is_none()
            && let Some(path) = &self.path
        {
            tracing::warn!(
                file = %path.display(), %error,
                "RADIUS accounting cannot be written down: a restart would lose it; it goes on"
            );
        }
        self.lines.clear();
        self.again = Some(now + AGAIN);
    }
}

fn line((kind, number): Key, value: Option<&[u8]>) -> String {
    let kind = match kind {
        Kept::Record => 'r',
        Kept::Session => 's',
    };
    let Some(value) = value else { return format!("- {kind} {number:x}\n") };
    let mut text = format!("+ {kind} {number:x} ");
    for octet in value {
        // Writes to memory.
        let _ = write!(text, "{octet:02x}");
    }
    text.push('\n');
    text
}

fn read(path: &Path) -> Contents {
    let mut octets = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut octets)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Contents::new(),
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "what was written down of RADIUS accounting cannot be read");
        }
    }
    let (contents, broken) = parse(&octets);
    if broken > 0 {
        tracing::warn!(file = %path.display(), lines = broken, "lines of RADIUS accounting that make no sense");
    }
    contents
}

/// What is in a file, and how many of its lines make no sense.
fn parse(octets: &[u8]) -> (Contents, usize) {
    let (mut contents, mut broken) = (Contents::new(), 0);
    // What is behind the last end of a line has not been written to its end.
    let end = octets.iter().rposition(|octet| *octet == b'\n').map_or(0, |last| last + 1);
    for line in octets[..end].split(|octet| *octet == b'\n').filter(|line| !line.is_empty()) {
        let done = std::str::from_utf8(line).ok().and_then(parse_line);
        match done {
            Some((key, Some(value))) if contents.len() < MAX_KEPT || contents.contains_key(&key) => {
                contents.insert(key, value);
            }
            Some((key, None)) => drop(contents.remove(&key)),
            Some(_) | None => broken += 1,
        }
    }
    (contents, broken)
}

fn parse_line(line: &str) -> Option<Change> {
    let mut words = line.split(' ');
    let (sign, kind, number) = (words.next()?, words.next()?, words.next()?);
    let kind = match kind {
        "r" => Kept::Record,
        "s" => Kept::Session,
        _ => return None,
    };
    let number = u64::from_str_radix(number, 16).ok()?;
    let value = match (sign, words.next()) {
        ("-", None) => None,
        ("+", Some(value)) => Some(octets(value)?),
        _ => return None,
    };
    words.next().is_none().then_some(((kind, number), value))
}

fn octets(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2)
        || text.len() > 2 * MAX_VALUE
        || !text.bytes().all(|octet| octet.is_ascii_hexdigit())
    {
        return None;
    }
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("tussock-journal-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn open(folder: &Folder) -> Journal {
        Journal::open(Some(&folder.0), Instant::now())
    }

    #[test]
    fn what_was_noted_is_there_for_the_next_one_however_this_one_ends() {
        let folder = Folder::new("next");
        let now = Instant::now();
        let mut journal = open(&folder);
        assert!(journal.contents().is_empty());
        journal.note(Kept::Record, 7, Some(vec![1, 255]));
        journal.note(Kept::Session, 7, Some(vec![]));
        journal.note(Kept::Record, 8, Some(vec![3]));
        journal.write(now);
        journal.note(Kept::Record, 8, None);
        journal.note(Kept::Record, 99, None);
        journal.note(Kept::Session, 7, Some(vec![9]));
        journal.write(now);
        let want: Contents = [((Kept::Record, 7), vec![1, 255]), ((Kept::Session, 7), vec![9])].into();
        // It ends without another word.
        std::mem::forget(journal);
        assert_eq!(open(&folder).contents(), &want);
        assert_eq!(open(&folder).contents(), &want);
        // Killed in the middle of a line, and somebody has put nonsense before it.
        let path = folder.0.join(FILE);
        let mut text = fs::read_to_string(&path).unwrap();
        text += "+ r zz 00\n+ r 1 0\n- s 7 00\n\u{e4}\n+ r 5 0";
        fs::write(&path, text).unwrap();
        assert_eq!(open(&folder).contents(), &want);
        assert_eq!(parse(&fs::read(&path).unwrap()).1, 0, "it was written anew");
    }

    #[test]
    fn the_file_is_no_longer_than_it_has_to_be() {
        let folder = Folder::new("long");
        let mut journal = open(&folder);
        for n in 0..10_000 {
            journal.note(Kept::Record, n, Some(vec![0; 100]));
            journal.note(Kept::Record, n, None);
            journal.write(Instant::now());
        }
        assert!(journal.contents().is_empty());
        assert!(fs::metadata(folder.0.join(FILE)).unwrap().len() <= SLACK);
        assert_eq!(journal.needed, 0);
    }

    #[test]
    fn a_disk_that_cannot_be_written_to_is_tried_again_and_nothing_is_lost() {
        let folder = Folder::new("full");
        let now = Instant::now();
        let mut journal = open(&folder);
        journal.note(Kept::Record, 1, Some(vec![1]));
        // Every write to this one fails for want of room.
        journal.file = Some(OpenOptions::new().write(true).open("/dev/full").unwrap());
        journal.write(now);
        let due = journal.due().expect("it is tried again");
        journal.note(Kept::Record, 2, Some(vec![2]));
        journal.write(now);
        assert!(fs::read(folder.0.join(FILE)).unwrap().is_empty(), "not before it is time");
        journal.write(due);
        assert_eq!(journal.due(), None);
        assert_eq!(open(&folder).contents().len(), 2);
        // Without a folder nothing is kept and nothing fails.
        let mut none = Journal::open(None, now);
        none.note(Kept::Record, 1, Some(vec![1]));
        none.write(now);
        assert!(none.contents().is_empty());
    }

    proptest! {
        #[test]
        fn no_file_is_too_strange(octets in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&octets);
        }
    }
}
