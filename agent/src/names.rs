//! Names of uids for display, remembered for a while: a slow directory must not be asked for every event.
//!
//! Invariants: names are for people only, nothing is decided by them; bounded.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use nix::unistd::{Uid, User};

use crate::text;

/// Names remembered.
const REMEMBERED: usize = 4_096;
/// How long a name, or that there is none, is taken as true.
const FRESH: Duration = Duration::from_secs(60);

/// Names of uids.
#[derive(Debug, Default)]
pub struct Names {
    known: HashMap<u32, (Instant, Option<String>)>,
}

impl Names {
    /// The name of a uid, escaped; none where no user has it or it cannot be looked up.
    pub fn of(&mut self, uid: u32) -> Option<String> {
        let now = Instant::now();
        if let Some((since, name)) = self.known.get(&uid)
            && now.duration_since(*since) < FRESH
        {
            return name.clone();
        }
        let found = User::from_uid(Uid::from_raw(uid)).unwrap_or_else(|error| {
            log::warn!("the name of uid {uid} cannot be looked up: {error}");
            None
        });
        let name = found.map(|user| text::escape(user.name.as_bytes()));
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(uid, (now, name.clone()));
        name
    }
}
