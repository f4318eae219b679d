//! What Portcullis has written down, situation by situation: its events and the account's row.
//!
//! Invariant: an entry is never missed and never counted twice. The ring buffer keeps the order, so everything that
//! came before an unlock of ours has been told once the unlock itself is. When the books are closed, the observer holds
//! nothing against anybody: every way in is told by the PAM line, or is no logon.

use serde_json::Value;

use crate::stack::must;
use crate::system::{portcullis, run, wait_for};
use crate::{Error, Result, watched};

/// Events that tell about attempts; the rest is the agent's own work.
const ATTEMPTS: [&str; 9] =
    ["pass", "fail", "void", "died", "due", "cleared", "refused", "busy", "uncounted"];
/// How long an event may take to be told.
const PATIENCE: u64 = 20;

/// The entries since the last look.
pub struct Books {
    user: &'static str,
    seen: usize,
    held: [u64; 3],
    unjudged: bool,
}

impl Drop for Books {
    #[allow(clippy::panic, reason = "this is how a test fails")]
    fn drop(&mut self) {
        if std::thread::panicking() || self.unjudged {
            return;
        }
        match watched::held_against_anybody() {
            Ok(held) if held == self.held => {}
            Ok(held) => {
                let kinds = ["unrecorded_attempt", "record_without_process", "own_guess"];
                let events: Vec<_> = kinds.iter().flat_map(|kind| watched::events(kind)).flatten().collect();
                panic!("alarms {held:?}, expected {:?}: {events:#?}", self.held);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

impl Books {
    /// Opens the books of `user` at a clean page: no failures, no lock.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn open(user: &'static str) -> Result<Self> {
        // What comes before is not judged.
        watched::wait_loaded()?;
        let mut books = Self { user, seen: 0, held: [0; 3], unjudged: false };
        // An account without a row has nothing to unlock, and nothing would be told.
        must("portcullis", &["lock", user])?;
        books.turn()?;
        Ok(books)
    }

    /// What these ways are rightly held against somebody for: failed logons without a record, records without a process,
    /// guesses by unix_chkpwd.
    pub const fn expect_alarms(&mut self, held: [u64; 3]) {
        self.held = held;
    }

    /// Not to be judged by what the observer holds: of a program that is killed it was seen once to miss the start.
    pub const fn leave_unjudged(&mut self) {
        self.unjudged = true;
    }

    /// What was written since the last look, and how the account stands: entries `EVENT SERVICE ACTOR`, then `→` and the
    /// number of failures or `locked`. Entries about another account name it. Then begins a clean page: the account is
    /// unlocked, its failures are forgotten.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn take(&mut self) -> Result<String> {
        let standing = standing(self.user)?;
        let entries = self.turn()?;
        Ok(if entries.is_empty() {
            format!("→ {standing}")
        } else {
            format!("{} → {standing}", entries.join(", "))
        })
    }

    /// Waits until an entry since the last look begins with `entry`.
    ///
    /// # Errors
    /// [`Error::Late`] when there is none in time.
    pub fn wait(&self, entry: &str) -> Result<()> {
        wait_for(&format!("the entry \"{entry}\""), PATIENCE, || {
            let events = events()?;
            Ok(events
                .iter()
                .skip(self.seen)
                .filter_map(|event| self.entry(event))
                .any(|text| text.starts_with(entry)))
        })
    }

    /// Unlocks, waits until that is told, and returns the entries before it.
    fn turn(&mut self) -> Result<Vec<String>> {
        must("portcullis", &["unlock", self.user])?;
        let mut fresh = Vec::new();
        wait_for("the unlock to be told", PATIENCE, || {
            let all = events()?;
            fresh = all.into_iter().skip(self.seen).collect();
            Ok(fresh.iter().any(|event| {
                text(event, "/event") == "unlocked" && text(event, "/account/name") == self.user
            }))
        })?;
        self.seen += fresh.len();
        Ok(fresh.iter().filter_map(|event| self.entry(event)).collect())
    }

    /// One entry; None for the agent's own work.
    fn entry(&self, event: &Value) -> Option<String> {
        let kind = text(event, "/event");
        if !ATTEMPTS.contains(&kind) {
            return None;
        }
        let actor = match text(event, "/actor/kind") {
            "local" => text(event, "/actor/name"),
            "remote" => text(event, "/actor/address"),
            other => other,
        };
        let account = text(event, "/account/name");
        let whose = match account {
            account if account == self.user => String::new(),
            account if account.starts_with("unknown name") => " for an unknown name".into(),
            account => format!(" for {account}"),
        };
        Some(format!("{kind} {} {actor}{whose}", text(event, "/service")))
    }
}

/// How many entries of a page that [`Books::take`] returned begin with `start`.
#[must_use]
pub fn entries(page: &str, start: &str) -> usize {
    let list = page.split("→").next().unwrap_or_default();
    list.split(", ").filter(|entry| entry.starts_with(start)).count()
}

/// `locked`, or the number of failures.
fn standing(user: &str) -> Result<String> {
    let account = portcullis(&["explain", user])?;
    if account.pointer("/row/lock").is_some_and(|lock| !lock.is_null()) {
        return Ok("locked".into());
    }
    let failures = account.pointer("/row/failures").and_then(Value::as_u64);
    failures
        .map(|count| count.to_string())
        .ok_or_else(|| Error::Answer { program: "portcullis explain".into(), output: account.to_string() })
}

/// All events that the agent remembers, oldest first.
fn events() -> Result<Vec<Value>> {
    let (done, output) = run("portcullis", &["events", "--json"])?;
    let list: std::result::Result<Vec<Value>, _> = output.lines().map(serde_json::from_str).collect();
    match list {
        Ok(list) if done => Ok(list),
        _ => Err(Error::Answer { program: "portcullis events".into(), output }),
    }
}

fn text<'a>(event: &'a Value, pointer: &str) -> &'a str {
    event.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
