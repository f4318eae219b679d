//! Folders that are watched: each touch of what is in them, and by whom.
//!
//! fanotify(7) names the process; where it cannot watch a folder (file systems without file handles on older kernels,
//! bpffs before Linux 6.8) inotify(7) tells of the touch alone, and where that cannot either, the looks at intervals see
//! what changed.
//!
//! Invariants: a touch is a reason to look, never the finding, and the agent's own are none; touches that were lost lose
//! nothing but a name; a thread of its own reads them, since the process that is to be named may end the moment after.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::AT_FDCWD;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use nix::sys::inotify::{AddWatchFlags, InitFlags as InotifyFlags, Inotify};
use tokio::sync::mpsc;

use super::who::Who;
use crate::filter::netlink::array;

/// Touches that may wait; what is more than that is lost, the looks see what came of it.
const QUEUE: usize = 256;
/// How long what is known of a process stands for its further touches.
const KNOWN: Duration = Duration::from_secs(2);
/// How often the thread looks whether it is to end.
const BREATH: u16 = 500;
/// FAN_REPORT_DIR_FID and FAN_REPORT_NAME.
const REPORT_NAMES: u32 = 0x400 | 0x800;
/// FAN_EVENT_INFO_TYPE_DFID_NAME and FAN_EVENT_INFO_TYPE_PIDFD.
const INFO_NAME: u8 = 2;
const INFO_PIDFD: u8 = 4;
/// struct fanotify_event_metadata.
const METADATA: usize = 24;

/// A touch.
#[derive(Debug, Clone)]
pub struct Touch {
    /// The folder.
    pub folder: PathBuf,
    /// The file in it, where it is told.
    pub name: Option<Vec<u8>>,
    /// By whom, where it is told.
    pub who: Option<Who>,
    /// Whether the content of a file was written, not only names.
    pub written: bool,
    /// When it was read.
    pub at: Instant,
}

enum Ear {
    Names(Fanotify),
    Plain(Inotify),
}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn mask() -> MaskFlags {
    MaskFlags::FAN_CREATE
        | MaskFlags::FAN_DELETE
        | MaskFlags::FAN_MOVE
        | MaskFlags::FAN_MODIFY
        | MaskFlags::FAN_ATTRIB
        | MaskFlags::FAN_EVENT_ON_CHILD
}

fn listen(folder: &Path) -> nix::Result<Ear> {
    let names = |pidfd: InitFlags| {
        let flags = InitFlags::FAN_CLASS_NOTIF
            | InitFlags::FAN_CLOEXEC
            | InitFlags::FAN_NONBLOCK
            | InitFlags::from_bits_retain(REPORT_NAMES)
            | pidfd;
        let group = Fanotify::init(flags, EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC)?;
        group.mark(MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_ONLYDIR, mask(), AT_FDCWD, Some(folder))?;
        Ok::<_, nix::Error>(Ear::Names(group))
    };
    names(InitFlags::FAN_REPORT_PIDFD).or_else(|_| names(InitFlags::empty())).or_else(|error| {
        log::debug!("who touches {} is not told by this kernel: fanotify: {error}", folder.display());
        let ear = Inotify::init(InotifyFlags::IN_CLOEXEC | InotifyFlags::IN_NONBLOCK)?;
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_ATTRIB;
        ear.add_watch(folder, flags)?;
        Ok(Ear::Plain(ear))
    })
}

impl Watch {
    /// Watches the folders that are there.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(folders: impl IntoIterator<Item = PathBuf>) -> io::Result<(Self, mpsc::Receiver<Touch>)> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut ears = Vec::new();
        for folder in folders {
            match listen(&folder) {
                Ok(ear) => ears.push((folder, ear)),
                Err(nix::Error::ENOENT | nix::Error::ENOTDIR) => {}
                Err(error) => log::warn!("{} is looked at by intervals alone: {error}", folder.display()),
            }
        }
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        std::thread::Builder::new().name("tamper-watch".to_owned()).spawn(move || {
            let mut known = None;
            while !told.load(Ordering::Relaxed) && !sender.is_closed() {
                wait(&ears);
                for (folder, ear) in &ears {
                    ear.read(folder, &mut known, &sender);
                }
            }
        })?;
        Ok((Self { stop }, receiver))
    }
}

/// Until something can be read, or for a breath.
fn wait(ears: &[(PathBuf, Ear)]) {
    let mut waits: Vec<PollFd<'_>> =
        ears.iter().map(|(_, ear)| PollFd::new(ear.fd(), PollFlags::POLLIN)).collect();
    // EINTR is as good as nothing.
    let _ = poll(&mut waits, PollTimeout::from(BREATH));
}

impl Ear {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Names(group) => group.as_fd(),
            Self::Plain(inotify) => inotify.as_fd(),
        }
    }

    /// Reads what there is and passes it on.
    fn read(&self, folder: &Path, known: &mut Option<(Instant, Who)>, to: &mpsc::Sender<Touch>) {
        let mut bytes = [0; 8192];
        let touch =
            |name, who, written| Touch { folder: folder.to_owned(), name, who, written, at: Instant::now() };
        match self {
            Self::Names(group) => {
                while let Ok(length @ 1..) = nix::unistd::read(group, &mut bytes) {
                    for event in events(bytes.get(..length).unwrap_or_default()) {
                        let Event { mask, pid, pidfd, name } = event;
                        // Each batch of attempts is written beside the store: no reason to look at everything.
                        if pid == std::process::id() {
                            continue;
                        }
                        let mut who = Who::look(pid, pidfd.as_ref());
                        if who.process.is_none() {
                            // It may have been there when it touched something else a moment ago.
                            if let Some((at, other)) = known.as_ref()
                                && other.pid == pid
                                && at.elapsed() < KNOWN
                            {
                                who = other.clone();
                            }
                        } else {
                            *known = Some((Instant::now(), who.clone()));
                        }
                        let written = mask & MaskFlags::FAN_MODIFY.bits() != 0;
                        // Full: the looks see what came of it.
                        let _ = to.try_send(touch(name, Some(who), written));
                    }
                }
            }
            Self::Plain(inotify) => {
                while let Ok(events) = inotify.read_events() {
                    for event in events {
                        let name = event.name.map(std::os::unix::ffi::OsStringExt::into_vec);
                        let written = event.mask.contains(AddWatchFlags::IN_MODIFY);
                        let _ = to.try_send(touch(name, None, written));
                    }
                }
            }
        }
    }
}

struct Event {
    mask: u64,
    pid: u32,
    pidfd: Option<OwnedFd>,
    name: Option<Vec<u8>>,
}

/// The events of one read.
fn events(bytes: &[u8]) -> Vec<Event> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while let Some(length) = array(rest, 0).map(u32::from_ne_bytes) {
        let length = length as usize;
        let (Some(event), Some(next)) = (rest.get(..length), rest.get(length..)) else { break };
        if length < METADATA {
            break;
        }
        found.extend(event_of(event));
        rest = next;
    }
    found
}

fn event_of(event: &[u8]) -> Option<Event> {
    let mask = u64::from_ne_bytes(array(event, 8)?);
    let pid = u32::from_ne_bytes(array(event, 20)?);
    let header = usize::from(u16::from_ne_bytes(array(event, 6)?));
    let mut found = Event { mask, pid, pidfd: None, name: None };
    let mut rest = event.get(header..)?;
    // struct fanotify_event_info_header: type, a byte of nothing, length.
    while let (Some([kind, _]), Some(length)) = (array(rest, 0), array(rest, 2).map(u16::from_ne_bytes)) {
        let Some(info) = rest.get(..usize::from(length)).filter(|info| info.len() >= 4) else { break };
        match kind {
            INFO_NAME => found.name = name_of(info),
            INFO_PIDFD => {
                let fd = i32::from_ne_bytes(array(info, 4)?);
                // SAFETY: the kernel opened this descriptor for the reader of this event, and nobody else has it.
                found.pidfd = (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) });
            }
            _ => {}
        }
        rest = rest.get(info.len()..)?;
    }
    Some(found)
}

/// The name behind header, file system's number and file handle.
fn name_of(info: &[u8]) -> Option<Vec<u8>> {
    let handle = u32::from_ne_bytes(array(info, 12)?) as usize;
    let name = info.get(20_usize.checked_add(handle)?..)?;
    let name = name.split(|byte| *byte == 0).next()?;
    (!name.is_empty() && name != b".").then(|| name.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_lie_are_not_followed() {
        assert!(events(&[]).is_empty());
        let mut bytes = [0_u8; 32];
        assert!(events(&bytes).is_empty(), "no event is shorter than its header");
        bytes[0] = 200;
        assert!(events(&bytes).is_empty(), "longer than what was read");
        bytes[0] = 32;
        bytes[6] = 24;
        bytes[24] = INFO_NAME;
        bytes[26] = 8;
        let found = events(&bytes);
        assert!(found.len() == 1 && found[0].name.is_none(), "no room for a handle");
        bytes[26] = 0;
        assert_eq!(events(&bytes).len(), 1, "an information of no length ends the event");
    }
}
