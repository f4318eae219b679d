//! From the gate's records to what the API shows.
//!
//! Invariants: a row is shown as it is now (what came due since its last call is taken into account, by the ledger's own
//! rule); every byte from outside is escaped here.

use jiff::{SignedDuration, Timestamp, Unit};
use portcullis_common::abi::{self, Detail, Row, cause};
use portcullis_common::ledger::{Actor as LedgerActor, Counts, Ledger, NEVER, Rule, rule_flag};

use crate::api::view::{Account, AccountRow, Actor, Lock, RuleView, Shadow, Until};
use crate::clock::{self, ClockError};
use crate::event::Source;
use crate::names::Names;

/// The two clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// CLOCK_BOOTTIME, nanoseconds.
    pub boot: u64,
    /// Wall time.
    pub wall: Timestamp,
}

impl Now {
    /// Reads both clocks.
    ///
    /// # Errors
    /// The kernel refuses a clock.
    pub fn read() -> Result<Self, ClockError> {
        Ok(Self { boot: clock::boot()?.0, wall: Timestamp::now() })
    }

    /// Wall time of a boot time.
    #[must_use]
    pub fn wall_of(&self, boot: u64) -> Timestamp {
        let distance = i128::from(boot) - i128::from(self.boot);
        let distance = SignedDuration::from_nanos(i64::try_from(distance).unwrap_or(i64::MAX));
        let time = self.wall.saturating_add(distance).unwrap_or(Timestamp::MAX);
        // The two clocks are read one after the other: finer digits would be noise.
        time.round(Unit::Millisecond).unwrap_or(time)
    }

    /// The end of a lock.
    #[must_use]
    pub fn until(&self, boot: u64) -> Option<Until> {
        match boot {
            0 => None,
            NEVER => Some(Until::Never),
            end => Some(Until::At(self.wall_of(end))),
        }
    }
}

/// A row's ledger as it is at `now`.
#[must_use]
pub fn settled(row: &Row, rule: &Rule, now: u64) -> (Ledger, Counts) {
    let mut ledger = row.ledger;
    let _ = ledger.settle(now, rule);
    (ledger, ledger.counts())
}

/// Uid of an account key; none for a name no user has.
#[must_use]
pub fn uid_of(account: u64) -> Option<u32> {
    if account & abi::UNKNOWN == 0 { u32::try_from(account).ok() } else { None }
}

/// An account key as people know it.
#[must_use]
pub fn account(key: u64, names: &mut Names) -> Account {
    match uid_of(key) {
        Some(uid) => Account { uid: Some(uid), name: names.of(uid).unwrap_or_else(|| format!("uid {uid}")) },
        None => Account { uid: None, name: format!("unknown name #{:08x}", (key & !abi::UNKNOWN) >> 31) },
    }
}

/// An actor as people know it.
#[must_use]
pub fn actor(source: Source, names: &mut Names) -> Actor {
    match source {
        Source::None | Source::Unknown(_) => Actor::Unknown,
        Source::Local(uid) => Actor::Local { uid, name: names.of(uid) },
        Source::V4(address) => Actor::Remote { address: address.to_string() },
        Source::V6(address) => Actor::Remote { address: address.to_string() },
    }
}

/// The source of a pair as people know it: of an IPv6 address, its network.
#[must_use]
pub fn pair_actor(source: LedgerActor, names: &mut Names) -> Actor {
    let network = source.kind == abi::source::IPV6;
    match actor(Source::of(&source.detail()), names) {
        Actor::Remote { address } if network => Actor::Remote { address: format!("{address}/64") },
        other => other,
    }
}

/// Actor of a record's caller.
#[must_use]
pub fn caller(detail: &Detail, names: &mut Names) -> Actor {
    actor(Source::of(detail), names)
}

/// The cause of a lock in words.
#[must_use]
pub fn cause_name(number: u32) -> &'static str {
    match number {
        cause::TRIP => "trip",
        cause::ADMINISTRATOR => "administrator",
        cause::RESTORED => "restored",
        _ => "unknown",
    }
}

/// What a row looks like now. `class` is the class's name.
#[must_use]
pub fn view(
    account: Account,
    row: Option<&Row>,
    rule: &Rule,
    class: String,
    shadow: Shadow,
    now: &Now,
) -> AccountRow {
    let empty = (Ledger::EMPTY, Counts::default());
    let (ledger, counts) = row.map_or(empty, |row| settled(row, rule, now.boot));
    let lock = now.until(ledger.locked_until).map(|until| Lock {
        since: now.wall_of(ledger.locked_at),
        until,
        cause: cause_name(ledger.cause).to_owned(),
        soft: ledger.soft != 0,
    });
    AccountRow {
        account,
        source: None,
        class,
        exempt: rule.flags & rule_flag::EXEMPT != 0,
        monitor: rule.flags & rule_flag::MONITOR != 0,
        failures: counts.failures,
        deny: rule.limit(),
        reservations: counts.reservations,
        trips: ledger.trips,
        lock,
        shadow,
    }
}

/// A rule in seconds.
#[must_use]
pub fn rule_view(rule: &Rule, shadow_lock: bool) -> RuleView {
    const SECOND: u64 = 1_000_000_000;
    RuleView {
        deny: rule.limit(),
        pair_deny: (rule.flags & rule_flag::PAIR != 0).then_some(rule.pair_deny),
        fail_interval: rule.fail_interval / SECOND,
        unlock_time: (rule.unlock_time != NEVER).then_some(rule.unlock_time / SECOND),
        backoff_window: rule.backoff_window / SECOND,
        max_unlock_time: (rule.max_unlock_time != NEVER).then_some(rule.max_unlock_time / SECOND),
        delay: rule.delay / SECOND,
        max_delay: rule.max_delay / SECOND,
        factor_deny: (rule.flags & rule_flag::FACTOR != 0).then_some(rule.soft_deny),
        restrict: None,
        shadow_lock,
        expire_after_trips: 0,
        end_sessions_after_trips: 0,
    }
}
