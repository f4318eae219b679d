//! The file of JSON lines.
//!
//! Invariants: mode 0600, no symbolic link is followed; a thread of its own writes, so a slow disk holds up nobody;
//! bounded: lines that wait, and the file itself, which is renamed to `NAME.1` when it is full.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::metrics::Metrics;

/// Lines that may wait for the disk.
const LINES: usize = 4_096;

/// Where, and how large it may get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// Bytes.
    pub most: u64,
}

enum Order {
    Line(Vec<u8>),
    Reopen(Option<Place>),
}

/// Hands lines to the thread that writes.
pub struct Writer {
    orders: SyncSender<Order>,
    metrics: Arc<Metrics>,
    /// A place that the thread has not taken over yet.
    owed: Option<Option<Place>>,
}

impl Writer {
    /// Begins to write at that place.
    pub(super) fn new(place: Option<Place>, metrics: Arc<Metrics>) -> Self {
        let (orders, receiver) = sync_channel(LINES);
        let counted = Arc::clone(&metrics);
        let thread = std::thread::Builder::new().name("events-file".to_owned());
        if let Err(error) = thread.spawn(move || Lines::new(place, counted).write(&receiver)) {
            log::error!("no file of events: no thread can be started: {error}");
        }
        Self { orders, metrics, owed: None }
    }

    /// Writes a line, or counts it as dropped.
    pub(super) fn write(&mut self, line: Vec<u8>) {
        self.settle();
        if self.owed.is_some() || self.orders.try_send(Order::Line(line)).is_err() {
            self.metrics.file_line("dropped");
        }
    }

    /// Opens the file again, there or somewhere else.
    pub(super) fn reopen(&mut self, place: Option<Place>) {
        self.owed = Some(place);
        self.settle();
    }

    fn settle(&mut self) {
        if let Some(place) = self.owed.take()
            && self.orders.try_send(Order::Reopen(place.clone())).is_err()
        {
            self.owed = Some(place);
        }
    }
}

/// The file, as the thread has it.
struct Lines {
    place: Option<Place>,
    file: Option<(File, u64)>,
    metrics: Arc<Metrics>,
    told: bool,
}

impl Lines {
    fn new(place: Option<Place>, metrics: Arc<Metrics>) -> Self {
        Self { place, file: None, metrics, told: false }
    }

    fn write(mut self, orders: &Receiver<Order>) {
        while let Ok(order) = orders.recv() {
            match order {
                Order::Line(line) => match self.line(&line) {
                    Ok(()) => self.metrics.file_line("written"),
                    Err(error) => self.failed(&error),
                },
                Order::Reopen(place) => {
                    self.place = place;
                    self.file = None;
                    self.told = false;
                }
            }
        }
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let Some(place) = self.place.clone() else { return Ok(()) };
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if self.file.as_ref().is_some_and(|(_, size)| size.saturating_add(length) > place.most) {
            self.file = None;
            std::fs::rename(&place.path, rotated(&place.path))?;
        }
        let (file, size) = match self.file.take() {
            Some(open) => self.file.insert(open),
            None => self.file.insert(open(&place.path)?),
        };
        file.write_all(line)?;
        *size = size.saturating_add(length);
        Ok(())
    }

    fn failed(&mut self, error: &io::Error) {
        self.metrics.file_line("failed");
        self.file = None;
        if !self.told {
            self.told = true;
            let path = self.place.as_ref().map(|place| place.path.display().to_string());
            log::error!(
                "events are not written to {}: {error}; see notify.file, tried again with each event",
                path.unwrap_or_default()
            );
        }
    }
}

/// The name of the file before.
fn rotated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok((file, found.len()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn lines(place: &Place) -> Lines {
        Lines::new(Some(place.clone()), Arc::new(Metrics::default()))
    }

    #[test]
    fn a_full_file_is_put_aside_and_both_are_roots_alone() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { path: folder.path().join("events.json"), most: 20 };
        let mut writer = lines(&place);
        for number in 0..5 {
            writer.line(format!("line {number}\n").as_bytes()).unwrap();
        }
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert_eq!(read(&place.path), "line 4\n");
        assert_eq!(read(&rotated(&place.path)), "line 2\nline 3\n");
        for path in [&place.path, &rotated(&place.path)] {
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        std::fs::write(&target, "precious").unwrap();
        let place = Place { path: folder.path().join("events.json"), most: 100 };
        symlink(&target, &place.path).unwrap();
        assert!(lines(&place).line(b"x\n").is_err());
        assert_eq!(std::fs::read(&target).unwrap(), b"precious");
    }
}
