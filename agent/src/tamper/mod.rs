//! Tamper evidence: what guards the logons is looked at, and whoever changes it is named where the kernel tells.
//!
//! watched folders, looks twice a second → what is wrong now → alarms → events, metrics, `portcullis alarms`; and back to
//! how it was, where that is safe.
//!
//! Invariants: an alarm needs two looks, so that a file that is being replaced raises none; PAM's files are never written;
//! what an administrator takes away as a whole (the folder of the pins, the filter by configuration) is never put back;
//! mending is bounded by the hour; nothing here is on the path of a logon.

pub mod book;
mod files;
pub mod pins;
pub mod probes;
mod stacks;
pub mod task;
mod traffic;
pub mod watch;
pub mod who;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

use crate::api::alarms::AlarmView;
use book::Book;

/// Orders that may wait.
const QUEUE: usize = 16;

/// Kinds of alarms. Their words are the names of their events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A PAM stack lets a secret be checked without our line, or a locked account past it.
    PamLine,
    /// The module's file is another, or gone.
    ModuleReplaced,
    /// A pin is gone.
    PinGone,
    /// A pin holds something else.
    PinReplaced,
    /// Others than root can reach a pin.
    PinMode,
    /// A link hangs on nothing any more.
    Detached,
    /// An interface that the configuration names is gone.
    InterfaceGone,
    /// Somebody's breakpoint in code that sees passwords.
    Uprobe,
    /// The configuration's file is not what was read.
    ConfigChanged,
    /// The store was written by another process, replaced or removed.
    StoreChanged,
}

impl Kind {
    /// All there are.
    pub const ALL: [Self; 10] = [
        Self::PamLine,
        Self::ModuleReplaced,
        Self::PinGone,
        Self::PinReplaced,
        Self::PinMode,
        Self::Detached,
        Self::InterfaceGone,
        Self::Uprobe,
        Self::ConfigChanged,
        Self::StoreChanged,
    ];

    /// Its word in events, metrics and the API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::PamLine => "pam_line",
            Self::ModuleReplaced => "module_replaced",
            Self::PinGone => "pin_gone",
            Self::PinReplaced => "pin_replaced",
            Self::PinMode => "pin_mode",
            Self::Detached => "detached",
            Self::InterfaceGone => "interface_gone",
            Self::Uprobe => "uprobe",
            Self::ConfigChanged => "config_changed",
            Self::StoreChanged => "store_changed",
        }
    }

    /// Whether only an administrator's note ends it: nothing shows that it is over.
    #[must_use]
    pub const fn stays(self) -> bool {
        matches!(self, Self::StoreChanged)
    }
}

/// What the task is asked for.
#[derive(Debug)]
pub enum Order {
    /// The configuration was read again, and is in effect.
    Reloaded,
    /// Pins are about to be replaced by ours, or have been: they are as they should be then.
    Pins {
        /// Whether it is done.
        done: bool,
        /// Answered when no look is under way.
        reply: oneshot::Sender<()>,
    },
}

/// The way to the alarms.
#[derive(Debug, Clone)]
pub struct Handle {
    sender: mpsc::Sender<Order>,
    book: Arc<Mutex<Book>>,
}

impl Default for Handle {
    fn default() -> Self {
        Self::new().0
    }
}

impl Handle {
    /// A handle and the task's end of it.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Order>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self { sender, book: Arc::default() }, receiver)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The alarms that are open.
    #[must_use]
    pub fn alarms(&self) -> Vec<AlarmView> {
        let book = self.book();
        book.open().into_iter().map(|((kind, about), alarm)| AlarmView::of(*kind, about, alarm)).collect()
    }

    /// An administrator takes note of one alarm, or of all. How many there were.
    #[must_use]
    pub fn note(&self, id: Option<u64>) -> usize {
        self.book().note(id)
    }

    /// The configuration was read again.
    pub async fn reloaded(&self) {
        // Without a task nobody looks.
        let _ = self.sender.send(Order::Reloaded).await;
    }

    /// Pins are replaced by ours: before it, and when it is done. Returns when the task knows.
    pub async fn pins(&self, done: bool) {
        let (reply, answer) = oneshot::channel();
        if self.sender.send(Order::Pins { done, reply }).await.is_ok() {
            let _ = answer.await;
        }
    }
}
