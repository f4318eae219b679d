//! The configuration: `portcullis.toml`, and what the kernel's tables are made of.
//!
//! Invariants
//! * All or nothing: a file with any error yields no [`Config`], and every error in it is told at once, each with its
//!   line and key.
//! * A `Config` has a break-glass account that exists and can log on, or the explicit refusal to have one.
//! * Classes are looked at in order: break-glass, root, the classes of the file, default; the first that matches counts.

mod class;
pub mod filter;
mod host;
pub mod notify;
pub mod observer;
mod own;
mod problem;
mod raw;
mod read;
mod restrict;
mod rungs;
pub mod sc5;
mod span;
mod values;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use portcullis_common::abi::Place;
use portcullis_common::ledger::{Rule, rule_flag};
use serde::{Serialize, Serializer};

pub use class::ClassInfo;
pub use host::Host;
pub use problem::{ConfigError, Problem};
pub use restrict::{Hours, Restrict};
pub use span::{Span, SpanError, parse_duration};

/// Where the configuration is.
pub const PATH: &str = "/etc/portcullis/portcullis.toml";
/// Index of the class of everybody that no other class names.
pub const CLASS_DEFAULT: u32 = 0;
/// Index of root's class.
pub const CLASS_ROOT: u32 = 1;
/// Index of the break-glass class.
pub const CLASS_BREAK_GLASS: u32 = 2;
/// Index of the first class of the file.
pub const CLASS_FIRST: u32 = 3;

/// The configuration in effect. Serialized, it is a file again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Config {
    /// The accounts that are never locked.
    pub break_glass: BreakGlass,
    /// Age at which an unresolved reservation becomes a failure.
    pub reservation_max_age: Span,
    /// Time a pass may wait for its confirmation.
    pub confirm_time: Span,
    /// Everybody else's limits.
    pub default: Limits,
    /// root's.
    pub root: Root,
    /// The break-glass accounts'.
    #[serde(serialize_with = "own::break_glass")]
    pub break_glass_limits: Limits,
    /// Where metrics are shown.
    pub metrics: Metrics,
    /// The filter of packets.
    pub filter: filter::Filter,
    /// What is done about sources.
    pub sc5: sc5::Sc5,
    /// Which logon programs are observed.
    pub observer: observer::Observer,
    /// Who is told of what.
    pub notify: notify::Notify,
    /// When rungs are withheld.
    pub breaker: notify::Breaker,
    /// The agent's own settings.
    pub agent: Agent,
    /// Classes, in order.
    #[serde(rename = "class")]
    pub classes: Vec<Class>,
}

/// The accounts that are never locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BreakGlass {
    /// These: one at least.
    Accounts(Vec<String>),
    /// There is none, and that is meant.
    Refused,
}

impl BreakGlass {
    /// Their names; none where there is none.
    #[must_use]
    pub fn names(&self) -> &[String] {
        match self {
            Self::Accounts(names) => names,
            Self::Refused => &[],
        }
    }

    /// Whether this name is one of them.
    #[must_use]
    pub fn holds(&self, name: &str) -> bool {
        self.names().iter().any(|own| own == name)
    }
}

/// What is done about what is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Locks lock.
    Enforce,
    /// Everything is counted, computed and told; nothing is refused, nothing done.
    Monitor,
}

/// Whose failures are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// All of an account.
    Account,
    /// Those of one source at an account first, all of it at a higher number.
    Pair,
}

/// How a delay grows with the failures on the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Growth {
    /// By the same time for each.
    Linear,
    /// It doubles.
    Exponential,
}

/// The limits of a class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Whether anything is refused at all.
    pub mode: Mode,
    /// Whose failures are counted together.
    pub scope: Scope,
    /// The failure that locks: the account, or in the scope of pairs one source out of it.
    pub deny: u32,
    /// In the scope of pairs, the failure that locks the account.
    pub account_deny: u32,
    /// Length of the window.
    pub fail_interval: Span,
    /// Length of the lock, or never.
    pub unlock_time: Span,
    /// A trip this soon after the last lock's end doubles the lock; 0: none does.
    #[serde(serialize_with = "span_or_false")]
    pub backoff_window: Span,
    /// The longest lock that doubling leads to.
    pub max_unlock_time: Span,
    /// What the first failure on the books costs the next guess in waiting; 0: nothing.
    #[serde(serialize_with = "span_or_false")]
    pub delay: Span,
    /// What each further one adds.
    pub delay_growth: Growth,
    /// The longest delay.
    #[serde(serialize_with = "span_or_false")]
    pub max_delay: Span,
    /// From where and when a locked account stays usable, until a second trip.
    #[serde(serialize_with = "or_false")]
    pub restrict: Option<Restrict>,
    /// A locked account stays usable with another factor, until so many further failures.
    #[serde(serialize_with = "or_false")]
    pub factor_deny: Option<u32>,
    /// Whether a lock is followed by `passwd -l`.
    pub shadow_lock: bool,
    /// The trip of a row from which on a lock is followed by `chage -E`; 0: none.
    #[serde(serialize_with = "rungs::number_or_false")]
    pub expire_after_trips: u32,
    /// The trip of a row from which on a lock is followed by the end of the account's sessions; 0: none.
    #[serde(serialize_with = "rungs::number_or_false")]
    pub end_sessions_after_trips: u32,
}

/// A class of accounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// Members by name.
    pub users: Vec<String>,
    /// Members by group, primary or supplementary.
    pub groups: Vec<String>,
    /// All system accounts are members: uid 1 to SYS_UID_MAX of login.defs(5).
    pub system: bool,
    /// All names no user has are members.
    pub unknown: bool,
    /// Its limits.
    #[serde(flatten)]
    pub limits: Limits,
}

/// What holds for root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Root {
    /// Whether root is locked at all.
    pub even_deny_root: bool,
    /// For how long, or never.
    pub root_unlock_time: Span,
    /// Its limits.
    #[serde(flatten, serialize_with = "own::root")]
    pub limits: Limits,
}

/// Where metrics are shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Metrics {
    /// Address of the HTTP listener; none: no listener.
    #[serde(serialize_with = "address_or_false")]
    pub listen: Option<SocketAddr>,
}

/// The agent's own settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Agent {
    /// The API's socket.
    pub socket: PathBuf,
    /// The store.
    pub store: PathBuf,
    /// How often the gate's tables are scanned.
    pub reconcile: Span,
    /// How long `passwd` may take.
    pub passwd_timeout: Span,
}

/// A configuration and what is odd about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What an administrator should know.
    pub warnings: Vec<Problem>,
}

/// Reads a file and checks it against this host.
///
/// # Errors
/// Every error in the file, or that it cannot be read.
pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
    load_on(path, &Host::this())
}

/// Reads a file and checks it against a host.
///
/// # Errors
/// Every error in the file, or that it cannot be read.
pub fn load_on(path: &Path, host: &Host<'_>) -> Result<Loaded, ConfigError> {
    let text = read::file(path)?;
    let mut loaded = parse_on(path, &text, host)?;
    loaded.warnings.extend(read::mode_warning(path));
    Ok(loaded)
}

/// Checks the text of a file against a host; `path` is for the messages.
///
/// # Errors
/// Every error in the text.
pub fn parse_on(path: &Path, text: &str, host: &Host<'_>) -> Result<Loaded, ConfigError> {
    let mut problems = problem::Problems::new(path, text);
    if let Some(file) = raw::parse(text, &mut problems)
        && let Some(config) = read::config(&file, &mut problems)
    {
        host.check(&config, &file, &mut problems);
        return problems.into_result(config);
    }
    Err(problems.into_error())
}

impl Config {
    /// The rules of all classes, by index, as the gate has them where the local day begins at `midnight`, see
    /// [`crate::clock::midnight`].
    #[must_use]
    pub fn rules(&self, midnight: u64) -> Vec<Rule> {
        let rule = |limits: &Limits, unlock_time: Span, flags: u32| Rule {
            deny: if limits.pairs(flags) { limits.account_deny } else { limits.deny },
            flags: flags
                | limits.flags()
                | limits.soft(flags)
                | if limits.pairs(flags) { rule_flag::PAIR } else { 0 },
            fail_interval: limits.fail_interval.nanoseconds(),
            unlock_time: unlock_time.nanoseconds(),
            max_age: self.reservation_max_age.nanoseconds(),
            confirm_time: self.confirm_time.nanoseconds(),
            backoff_window: limits.backoff_window.nanoseconds(),
            max_unlock_time: limits.max_unlock_time.nanoseconds(),
            delay: limits.delay.nanoseconds(),
            max_delay: limits.max_delay.nanoseconds(),
            pair_deny: if limits.pairs(flags) { limits.deny } else { 0 },
            soft_deny: limits.factor_deny.unwrap_or(limits.deny),
            opens: limits.hours(midnight).0,
            open_for: limits.hours(midnight).1,
        };
        let root_flags = if self.root.even_deny_root { 0 } else { rule_flag::EXEMPT };
        let mut rules = vec![
            rule(&self.default, self.default.unlock_time, 0),
            rule(&self.root.limits, self.root.root_unlock_time, root_flags),
            rule(&self.break_glass_limits, self.default.unlock_time, rule_flag::EXEMPT),
        ];
        rules.extend(self.classes.iter().map(|class| rule(&class.limits, class.limits.unlock_time, 0)));
        rules
    }

    /// Where soft locks are open, as the gate has it: length in bits, and the place.
    #[must_use]
    pub fn places(&self) -> Vec<(u32, Place)> {
        let own = [(CLASS_DEFAULT, &self.default), (CLASS_ROOT, &self.root.limits)];
        let classes = (CLASS_FIRST..).zip(self.classes.iter().map(|class| &class.limits));
        let restricts = own
            .into_iter()
            .chain(classes)
            .filter_map(|(class, limits)| limits.restrict.as_ref().map(|restrict| restrict.places(class)));
        restricts.flatten().collect()
    }

    /// The configuration as a file.
    ///
    /// # Errors
    /// Never for a configuration that was read from one.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

impl Limits {
    /// The gate's flags for soft locks.
    fn soft(&self, flags: u32) -> u32 {
        let restrict = self.restrict.as_ref().map_or(0, Restrict::flags);
        let factor = if self.factor_deny.is_some() { rule_flag::FACTOR } else { 0 };
        let soft = if restrict | factor == 0 { 0 } else { rule_flag::SOFT | restrict | factor };
        if flags & rule_flag::EXEMPT == 0 { soft } else { 0 }
    }

    /// The hours of `restrict` as the gate has them: 0, 0 where it is open all day.
    fn hours(&self, midnight: u64) -> (u64, u64) {
        let hours = self.restrict.as_ref().and_then(|restrict| restrict.hours);
        hours.map_or((0, 0), |hours| hours.in_boot_time(midnight))
    }

    /// Whether pairs are counted: not where nobody is locked anyway.
    fn pairs(&self, flags: u32) -> bool {
        self.scope == Scope::Pair && flags & rule_flag::EXEMPT == 0
    }

    /// The gate's flags for them.
    fn flags(&self) -> u32 {
        let monitor = if self.mode == Mode::Monitor { rule_flag::MONITOR } else { 0 };
        let doubles = if self.delay_growth == Growth::Exponential { rule_flag::DELAY_DOUBLES } else { 0 };
        monitor | doubles
    }
}

impl Serialize for BreakGlass {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Accounts(names) => match names.as_slice() {
                [name] => serializer.serialize_str(name),
                names => names.serialize(serializer),
            },
            Self::Refused => serializer.serialize_bool(false),
        }
    }
}

/// What there is none of is `false` in the file.
fn or_false<T: Serialize, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => value.serialize(serializer),
        None => serializer.serialize_bool(false),
    }
}

/// No time at all is `false` in the file.
fn span_or_false<S: Serializer>(span: &Span, serializer: S) -> Result<S::Ok, S::Error> {
    if *span == Span::seconds(0) { serializer.serialize_bool(false) } else { span.serialize(serializer) }
}

fn address_or_false<S: Serializer>(listen: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    match listen {
        Some(address) => serializer.collect_str(address),
        None => serializer.serialize_bool(false),
    }
}
