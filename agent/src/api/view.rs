//! What the API says, as JSON: one schema for the socket, the CLI and the log.
//!
//! Invariants: text from outside is escaped before it gets in here; times are RFC 3339 in UTC; fields are only ever
//! added.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The end of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// Until an administrator releases it.
    Never,
    /// By itself at that time.
    #[serde(untagged)]
    At(Timestamp),
}

/// Who or what an attempt came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Actor {
    /// Not known.
    Unknown,
    /// A local user by the real uid of the process that asked.
    Local {
        /// Real uid.
        uid: u32,
        /// Its name, if a user has it.
        name: Option<String>,
    },
    /// A remote address.
    Remote {
        /// IPv4 or IPv6 address.
        address: String,
    },
}

/// An account as the gate names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its uid; absent for a name no user has.
    pub uid: Option<u32>,
    /// Its name, or the mark of an unknown name.
    pub name: String,
}

/// A lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Since when.
    pub since: Timestamp,
    /// Until when.
    pub until: Until,
    /// `trip`, `administrator`, `restored`.
    pub cause: String,
    /// It is open to the places of `restrict`, or with another factor.
    #[serde(default)]
    pub soft: bool,
}

/// The shadow lock of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shadow {
    /// The password is not locked.
    None,
    /// Locked by us.
    Ours,
    /// Locked by somebody else: never undone by us.
    Foreign,
    /// /etc/shadow has no such user or cannot be read.
    Unknown,
}

/// A row of `portcullis accounts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRow {
    /// Which account.
    pub account: Account,
    /// Where the row is that of a pair: the source that it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<Actor>,
    /// Name of its class.
    pub class: String,
    /// Never locked.
    pub exempt: bool,
    /// In monitor mode: a lock is only computed.
    #[serde(default)]
    pub monitor: bool,
    /// Failures in the window.
    pub failures: u32,
    /// Failures that lock.
    pub deny: u32,
    /// Attempts under way.
    pub reservations: u32,
    /// Trips since the row was made.
    pub trips: u32,
    /// The lock, if there is one.
    pub lock: Option<Lock>,
    /// Its shadow lock.
    pub shadow: Shadow,
}

/// What counts for an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleView {
    /// Failures that lock the account.
    pub deny: u32,
    /// Failures of one source that shut it out of the account, in classes that count pairs.
    #[serde(default)]
    pub pair_deny: Option<u32>,
    /// Seconds in which they count.
    pub fail_interval: u64,
    /// Seconds of a lock; absent: until released.
    pub unlock_time: Option<u64>,
    /// Seconds after a lock in which the next one doubles; 0: none does.
    #[serde(default)]
    pub backoff_window: u64,
    /// Seconds of the longest lock that doubling leads to.
    #[serde(default)]
    pub max_unlock_time: Option<u64>,
    /// Seconds that the first failure on the books makes the next guess wait.
    #[serde(default)]
    pub delay: u64,
    /// Seconds of the longest such wait.
    #[serde(default)]
    pub max_delay: u64,
    /// Failures during the first lock, which is open with another factor, that lock for all.
    #[serde(default)]
    pub factor_deny: Option<u32>,
    /// From where and when the account stays usable during the first lock.
    #[serde(default)]
    pub restrict: Option<String>,
    /// `passwd -l` follows a lock.
    pub shadow_lock: bool,
    /// The trip of a row from which on the account expires with the lock; 0: none.
    #[serde(default)]
    pub expire_after_trips: u32,
    /// The trip of a row from which on its sessions end; 0: none.
    #[serde(default)]
    pub end_sessions_after_trips: u32,
}

/// An attempt of the past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When.
    pub time: Timestamp,
    /// `fail`, `refused`, `pass`, …
    pub outcome: String,
    /// Who.
    pub actor: Actor,
    /// PAM service.
    pub service: String,
    /// Terminal.
    pub tty: String,
    /// Of a local attempt, the programs that led to it, where the observer saw them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub chain: Option<String>,
}

/// An action of the past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionView {
    /// When it was decided.
    pub time: Timestamp,
    /// `shadow_lock`, `gate_unlock`, …
    pub action: String,
    /// `verified`, `failed`, …; absent while it is under way.
    pub result: Option<String>,
    /// Why it ended so.
    pub reason: Option<String>,
}

/// Answer of `explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explain {
    /// The account now.
    pub row: AccountRow,
    /// Why it is in its class.
    #[serde(default)]
    pub because: String,
    /// What counts for it.
    pub rule: RuleView,
    /// Why it is locked, or that it is not.
    pub why: String,
    /// How to release it; empty when it is not locked.
    pub release: Vec<String>,
    /// Sources with failures at it, or shut out of it.
    #[serde(default)]
    pub pairs: Vec<AccountRow>,
    /// Newest first.
    pub attempts: Vec<Attempt>,
    /// Newest first.
    pub actions: Vec<ActionView>,
}

/// How full a table of the gate is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Name of the map.
    pub name: String,
    /// Entries in use.
    pub used: u64,
    /// Entries it can hold.
    pub limit: u64,
}

/// Answer of `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `agent`, or `gate` when the agent does not run and the answer was read from the gate itself.
    pub answered_by: String,
    /// Version of the program that answers.
    pub version: String,
    /// Process of the agent.
    pub pid: Option<u32>,
    /// Since when the agent runs.
    pub since: Option<Timestamp>,
    /// Whether the gate answers.
    pub gate: bool,
    /// Why it does not.
    #[serde(default)]
    pub gate_problem: Option<String>,
    /// Generation of the configuration in the gate.
    pub generation: u32,
    /// Accounts locked in the gate.
    pub locked: u64,
    /// Shadow locks of ours.
    pub shadow_locked: Option<u64>,
    /// Accounts with a row in the gate.
    pub accounts: u64,
    /// Names no user has with a row in the gate.
    pub unknown_names: u64,
    /// Events that found no room.
    pub events_lost: u64,
    /// The breaker; absent where nobody answers for it.
    #[serde(default)]
    pub breaker: Option<BreakerView>,
    /// Classes in monitor mode, or whose mode was set at run time, in words.
    #[serde(default)]
    pub modes: Vec<String>,
    /// Accounts that expired by us.
    #[serde(default)]
    pub expired: u64,
    /// The break-glass accounts; none: by explicit refusal.
    pub break_glass: Vec<String>,
    /// Why the store stands in memory.
    pub store_degraded: Option<String>,
    /// Damaged files of the store that were put aside.
    #[serde(default)]
    pub store_set_aside: Vec<String>,
    /// Tables and their bounds.
    pub tables: Vec<Table>,
    /// The observer; absent where nobody answers for it.
    #[serde(default)]
    pub observer: Option<crate::observer::ObserverView>,
    /// The filter; absent where nobody answers for it.
    #[serde(default)]
    pub filter: Option<super::drops::FilterView>,
    /// Alarms of tampering that are open.
    #[serde(default)]
    pub alarms: Vec<super::alarms::AlarmView>,
}

/// An event, as streamed, logged and printed: one JSON object a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// `fail`, `tripped`, `shadow_lock`, `missed`, …
    pub event: String,
    /// Which account.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub account: Option<Account>,
    /// Who.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub actor: Option<Actor>,
    /// PAM service.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub service: Option<String>,
    /// Terminal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tty: Option<String>,
    /// Failures in the window after it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failures: Option<u32>,
    /// Failures that lock.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deny: Option<u32>,
    /// Whether this event locked the account.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tripped: Option<bool>,
    /// End of the lock.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub locked_until: Option<Until>,
    /// Result of an action.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub result: Option<String>,
    /// More in words; for `missed` the number of events.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
}

impl Event {
    /// An event with nothing but its name.
    #[must_use]
    pub fn new(time: Timestamp, event: impl Into<String>) -> Self {
        Self {
            time,
            event: event.into(),
            account: None,
            actor: None,
            service: None,
            tty: None,
            failures: None,
            deny: None,
            tripped: None,
            locked_until: None,
            result: None,
            detail: None,
        }
    }
}

/// Body of POST /v1/lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockRequest {
    /// Which account.
    pub uid: u32,
    /// Seconds; absent: until released.
    #[serde(default)]
    pub seconds: Option<u64>,
}

/// Body of POST /v1/unlock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnlockRequest {
    /// Which account.
    pub uid: u32,
}

/// The breaker: whether rungs above the lock are withheld.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerView {
    /// They are withheld.
    pub open: bool,
    /// `auto`: by its rules; `open`, `close`: by an administrator.
    pub by: String,
    /// Why they are.
    pub why: Option<String>,
    /// Accounts that failed within `failing_window` since the last success.
    #[serde(default)]
    pub failing: u32,
    /// Accounts that are locked.
    #[serde(default)]
    pub locked: u32,
    /// Accounts that could be: those who can log on here.
    #[serde(default)]
    pub accounts: u32,
}

/// Body of POST /v1/breaker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerRequest {
    /// `open`, `close`, `auto`.
    pub breaker: String,
}

/// Body of POST /v1/mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModeRequest {
    /// `monitor`, `enforce`; `file`: as the configuration has it.
    pub mode: String,
    /// Which class; absent: all.
    #[serde(default)]
    pub class: Option<String>,
}

/// Answer of a request that changes something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The account afterwards, where there is one.
    #[serde(default)]
    pub row: Option<AccountRow>,
    /// What was done, in words.
    pub message: String,
    /// What did not go as asked; empty when all did.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// An error, with the exit status a command line ends with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What is wrong and what to do.
    pub error: String,
}
