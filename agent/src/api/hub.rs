//! Events for those who look on: the last ones, and a stream of new ones.
//!
//! Invariants: nobody who reads slowly holds up the engine; a reader that falls behind is told how many it missed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast;

use super::view::Event;

/// Events kept to be shown later.
const RECENT: usize = 1_000;
/// Events a reader may be behind.
const BEHIND: usize = 4_096;

/// Passes events on.
#[derive(Debug)]
pub struct Hub {
    sender: broadcast::Sender<Arc<Event>>,
    recent: Mutex<VecDeque<Arc<Event>>>,
}

impl Default for Hub {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(BEHIND), recent: Mutex::default() }
    }
}

impl Hub {
    /// Tells an event to the log and to everybody.
    pub fn publish(&self, level: log::Level, event: Event) {
        debug_assert!(crate::notify::kind::known(&event.event), "{} is not documented", event.event);
        crate::logging::event(level, &event);
        self.tell(event);
    }

    /// Tells an event to everybody.
    pub fn tell(&self, event: Event) {
        let event = Arc::new(event);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= RECENT {
            recent.pop_front();
        }
        recent.push_back(Arc::clone(&event));
        drop(recent);
        // Nobody may be listening.
        let _ = self.sender.send(event);
    }

    /// The last events, oldest first.
    pub fn recent(&self) -> Vec<Arc<Event>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// New events from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.sender.subscribe()
    }
}
