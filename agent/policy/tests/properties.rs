//! Arbitrary days in the life of a few accounts: trips, scans, administrators, failing `passwd`, new configurations, and
//! a clock that goes back a little. The world below plays gate and `passwd`, and checks every action it is asked for.
#![allow(clippy::unwrap_used, reason = "a test, its model too")]

use std::collections::{BTreeMap, BTreeSet};

use portcullis_policy::{Action, Actor, Boot, Cause, Class, Climb, Input, Kind, Notice, Outcome, Policy};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;
const ACCOUNTS: u32 = 4;
const PLAIN: Class =
    Class { exempt: false, shadow_lock: false, expire_after: 0, end_sessions_after: 0, backoff_window: 0 };
const SHADOW: Class = Class { shadow_lock: true, ..PLAIN };
/// Every rung, the higher ones from the second trip of a row on.
const FULL: Class = Class {
    shadow_lock: true,
    expire_after: 2,
    end_sessions_after: 2,
    backoff_window: 300 * SECOND,
    ..PLAIN
};
const EXEMPT: Class = Class { exempt: true, ..FULL };

#[derive(Clone, Debug)]
enum Op {
    Pass(u64),
    Trip(u32, u64),
    /// The last trip is told again.
    Again(u32),
    /// A trip whose event is lost.
    Silent(u32, u64),
    Scan,
    Lock(u32, Option<u64>),
    Unlock(u32),
    Extend(u32, u64),
    /// The first action that is out ends.
    Finish(End),
    Class(u32, Class),
    Withhold(bool),
}

#[derive(Clone, Copy, Debug)]
enum End {
    Good,
    Bad,
    /// An administrator's lock is there, or he changed what we left.
    Theirs,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let account = || 0..ACCOUNTS;
    let class = prop_oneof![Just(PLAIN), Just(SHADOW), Just(FULL), Just(FULL), Just(EXEMPT)];
    let end = prop_oneof![4 => Just(End::Good), 2 => Just(End::Bad), 1 => Just(End::Theirs)];
    let op = prop_oneof![
        8 => (0..200_u64).prop_map(Op::Pass),
        1 => Just(Op::Pass(365 * 86_400)),
        1 => prop::bool::ANY.prop_map(Op::Withhold),
        4 => (account(), 1..100_u64).prop_map(|(account, length)| Op::Trip(account, length)),
        3 => account().prop_map(Op::Again),
        1 => (account(), 1..100_u64).prop_map(|(account, length)| Op::Silent(account, length)),
        3 => Just(Op::Scan),
        1 => (account(), prop::option::of(1..100_u64)).prop_map(|(account, length)| Op::Lock(account, length)),
        2 => account().prop_map(Op::Unlock),
        1 => (account(), 1..100_u64).prop_map(|(account, length)| Op::Extend(account, length)),
        6 => end.prop_map(Op::Finish),
        1 => (account(), class).prop_map(|(account, class)| Op::Class(account, class)),
    ];
    prop::collection::vec(op, 0..120)
}

struct Account {
    class: Class,
    until: Boot,
    /// The end of the lock as far as the policy has heard of it.
    heard: Boot,
    trips: u32,
    last: Option<(u32, Boot)>,
    /// Rungs that we hold, verified, by the action that climbed them.
    own: Vec<Kind>,
    out: Option<Kind>,
    climb: Climb,
    locks: u32,
    unlocks: u32,
}

/// The action that climbed what `kind` undoes.
fn climbed(kind: Kind) -> Option<Kind> {
    match kind {
        Kind::ShadowUnlock => Some(Kind::ShadowLock),
        Kind::Unexpire => Some(Kind::Expire),
        _ => None,
    }
}

struct World {
    policy: Policy,
    now: u64,
    jitter: u64,
    accounts: BTreeMap<u32, Account>,
    out: Vec<(u32, Kind)>,
    told: BTreeSet<(u32, u32)>,
    wake: Boot,
    withheld: bool,
    actions: Vec<Action>,
}

impl World {
    fn new(classes: [Class; ACCOUNTS as usize], jitter: u64) -> Self {
        let account = |class| Account {
            class,
            until: Boot(0),
            heard: Boot(0),
            trips: 0,
            last: None,
            own: Vec::new(),
            out: None,
            climb: Climb { trips: 0, until: Boot(0), sessions_ended: false },
            locks: 0,
            unlocks: 0,
        };
        Self {
            policy: Policy::new(),
            now: 1_000 * SECOND,
            jitter,
            accounts: (0..).zip(classes.map(account)).collect(),
            out: Vec::new(),
            told: BTreeSet::new(),
            wake: Boot::NEVER,
            withheld: false,
            actions: Vec::new(),
        }
    }

    fn of(&mut self, account: u32) -> &mut Account {
        self.accounts.get_mut(&account).unwrap()
    }

    /// One step, and what every action must keep to.
    fn feed(&mut self, input: Input) {
        let replay = matches!(input, Input::Tripped { .. } | Input::LockSeen { .. });
        // Every other look at the clock is a little behind.
        self.jitter = self.jitter.rotate_left(1);
        let back = if self.jitter & 1 == 1 { 40_000_000 } else { 0 };
        for action in self.policy.step(Boot(self.now - back), input) {
            match &action {
                Action::ShadowLock { account } => self.climb(*account, Kind::ShadowLock),
                Action::Expire { account } => self.climb(*account, Kind::Expire),
                Action::EndSessions { account } => self.climb(*account, Kind::EndSessions),
                Action::ShadowUnlock { account } => self.descend(*account, Kind::ShadowUnlock),
                Action::Unexpire { account } => self.descend(*account, Kind::Unexpire),
                Action::GateLock { account, .. } => {
                    assert!(!self.of(*account).class.exempt);
                    self.out.push((*account, Kind::GateLock));
                }
                Action::GateUnlock { account } => {
                    let account = *account;
                    self.of(account).until = Boot(0);
                    self.of(account).heard = Boot(0);
                    self.out.push((account, Kind::GateUnlock));
                }
                Action::Alert { account, notice: Notice::Tripped { trips, climb, .. } } => {
                    let (now, before) = (self.now, self.of(*account).climb);
                    let row = climb.trips == 1 || climb.trips == before.trips + 1;
                    assert!(row, "trip {} of a row after {}", climb.trips, before.trips);
                    let over = before.until <= Boot(now - SECOND);
                    assert!(!over || climb.trips == 1, "a row goes on after its window");
                    self.of(*account).climb = *climb;
                    assert!(replay, "told of a trip that nobody reported");
                    assert!(self.told.insert((*account, *trips)), "trip {trips} of {account} twice");
                }
                Action::Alert { .. } => {}
                Action::Wake { at } => self.wake = *at,
            }
            self.actions.push(action);
        }
    }

    /// A rung is climbed.
    fn climb(&mut self, account: u32, kind: Kind) {
        assert!(!self.withheld, "{kind:?} though rungs are withheld");
        let now = Boot(self.now);
        let held = self.of(account);
        let class = held.class;
        let after = |trips: u32| trips != 0 && held.climb.trips >= trips;
        let asked = match kind {
            Kind::ShadowLock => class.shadow_lock,
            Kind::Expire => after(class.expire_after),
            _ => after(class.end_sessions_after),
        };
        assert!(asked && !class.exempt, "no such rung for {account}: {kind:?}");
        assert!(!held.own.contains(&kind) && held.out.is_none(), "a second {kind:?} of {account}");
        assert!(held.until > Boot(now.0 - SECOND), "{account} is not locked");
        held.out = Some(kind);
        self.out.push((account, kind));
    }

    /// A rung is undone.
    fn descend(&mut self, account: u32, kind: Kind) {
        let now = Boot(self.now);
        let held = self.of(account);
        let class = held.class;
        let asked = match kind {
            Kind::ShadowUnlock => class.shadow_lock,
            _ => class.expire_after != 0 && held.climb.trips >= class.expire_after,
        };
        // However the clock went: a lock that holds keeps the rungs that are asked for.
        assert!(
            held.heard <= now || class.exempt || !asked,
            "{kind:?} of {account} at {now:?}, locked until {:?}",
            held.heard
        );
        assert!(climbed(kind).is_some_and(|up| held.own.contains(&up)), "undoes what is not ours: {account}");
        assert!(held.out.is_none(), "two actions at once: {account}");
        let skipped = kind == Kind::ShadowUnlock && held.until == Boot(0) && held.own.contains(&Kind::Expire);
        assert!(!skipped, "a rung of {account} is skipped on the way down");
        held.out = Some(kind);
        self.out.push((account, kind));
    }

    /// Time passes; the policy is woken when it asked for it.
    fn pass(&mut self, nanoseconds: u64) {
        let end = self.now + nanoseconds;
        // A clock that lags may need a second call at the same time.
        let mut calls = 0;
        while self.wake <= Boot(end) {
            self.now = self.now.max(self.wake.0 + 50_000_000);
            self.feed(Input::Tick);
            calls += 1;
            assert!(calls < 10_000, "woken for nothing");
        }
        self.now = self.now.max(end);
    }

    fn trip(&mut self, account: u32, seconds: u64, silent: bool) {
        let until = Boot(self.now + seconds * SECOND);
        let held = self.of(account);
        if held.class.exempt {
            return;
        }
        held.trips += 1;
        held.until = held.until.max(until);
        held.last = Some((held.trips, held.until));
        if !silent {
            self.again(account);
        }
    }

    fn again(&mut self, account: u32) {
        let held = self.of(account);
        if let Some((trips, locked_until)) = held.last {
            let class = held.class;
            held.heard = held.heard.max(locked_until);
            let actor = Actor { kind: 1, id: 1000 };
            self.feed(Input::Tripped { account, class, trips, locked_until, actor });
        }
    }

    fn scan(&mut self) {
        let now = Boot(self.now);
        let locked: Vec<_> = self
            .accounts
            .iter()
            .filter(|(_, held)| held.until > now)
            .map(|(account, held)| (*account, held.class, held.trips, held.until))
            .collect();
        let believed: Vec<u32> = self.policy.locked().map(|(account, _)| account).collect();
        for (account, class, trips, locked_until) in &locked {
            self.of(*account).heard = *locked_until;
            self.feed(Input::LockSeen {
                account: *account,
                class: *class,
                trips: *trips,
                locked_until: *locked_until,
                cause: Cause::Trip,
            });
        }
        for account in believed {
            if !locked.iter().any(|(seen, ..)| *seen == account) {
                self.of(account).last = None;
                self.of(account).heard = Boot(0);
                self.feed(Input::NoLockSeen { account });
            }
        }
    }

    fn set(&mut self, account: u32, until: Boot) {
        let held = self.of(account);
        if held.class.exempt {
            return;
        }
        held.until = until;
        held.heard = until;
        // A lock of an administrator: what is on the books of trips is not told again.
        held.last = None;
        let (class, trips) = (held.class, held.trips);
        self.told.insert((account, trips));
        self.feed(Input::LockSet { account, class, trips, until, by: Cause::Administrator });
    }

    fn unlock(&mut self, account: u32) {
        let held = self.of(account);
        held.until = Boot(0);
        held.heard = Boot(0);
        held.last = None;
        let trips = held.trips;
        self.feed(Input::Unlocked { account, trips });
    }

    fn finish(&mut self, end: End) {
        if self.out.is_empty() {
            return;
        }
        let (account, kind) = self.out.remove(0);
        let held = self.of(account);
        let outcome = match (kind, end) {
            (Kind::GateLock | Kind::GateUnlock, _) | (_, End::Good) => Outcome::Verified,
            (_, End::Bad) => Outcome::Failed { reason: "busy".to_owned(), retry: true },
            (Kind::EndSessions, End::Theirs) => Outcome::Verified,
            (Kind::ShadowLock | Kind::Expire, End::Theirs) => Outcome::AlreadyLocked,
            (Kind::ShadowUnlock | Kind::Unexpire, End::Theirs) => Outcome::Foreign,
        };
        if !matches!(kind, Kind::GateLock | Kind::GateUnlock) {
            held.out = None;
            match (climbed(kind), &outcome) {
                (None, Outcome::Verified) if kind != Kind::EndSessions => {
                    held.own.push(kind);
                    held.locks += 1;
                }
                (Some(up), Outcome::Verified | Outcome::Foreign) => {
                    held.own.retain(|own| *own != up);
                    held.unlocks += 1;
                }
                _ => {}
            }
        }
        self.feed(Input::ActionDone { account, kind, outcome });
    }

    fn class(&mut self, account: u32, class: Class) {
        self.of(account).class = class;
        let held: Vec<u32> = self.policy.accounts().collect();
        let classes = held.into_iter().map(|account| (account, self.of(account).class)).collect();
        if class.exempt {
            // The gate lets an exempt account pass at once.
            self.of(account).until = Boot(0);
            self.of(account).last = None;
        }
        self.feed(Input::ConfigChanged { classes });
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Pass(seconds) => self.pass(seconds * SECOND),
            Op::Trip(account, seconds) => self.trip(*account, *seconds, false),
            Op::Silent(account, seconds) => self.trip(*account, *seconds, true),
            Op::Again(account) => {
                let fresh = Boot(self.now);
                // News that are older than the policy remembers do not come: the ring buffer is not that long.
                if self.of(*account).last.is_some_and(|(_, until)| until.after(50 * SECOND) > fresh) {
                    self.again(*account);
                }
            }
            Op::Scan => self.scan(),
            Op::Lock(account, seconds) => {
                let until = seconds.map_or(Boot::NEVER, |seconds| Boot(self.now + seconds * SECOND));
                self.set(*account, until);
            }
            Op::Unlock(account) => self.unlock(*account),
            Op::Extend(account, seconds) => {
                let until = self.of(*account).until;
                if until > Boot(self.now) {
                    self.set(*account, until.after(seconds * SECOND));
                }
            }
            Op::Finish(end) => self.finish(*end),
            Op::Class(account, class) => self.class(*account, *class),
            Op::Withhold(withheld) => {
                self.withheld = *withheld;
                self.feed(Input::Withhold(*withheld));
            }
        }
    }

    /// Everything runs out, every action succeeds.
    fn wind_down(&mut self) {
        self.scan();
        for account in 0..ACCOUNTS {
            if self.of(account).until == Boot::NEVER {
                self.unlock(account);
            }
        }
        for _ in 0..20 {
            while !self.out.is_empty() {
                self.finish(End::Good);
            }
            self.pass(1_000 * SECOND);
        }
    }
}

fn classes() -> impl Strategy<Value = [Class; ACCOUNTS as usize]> {
    Just([PLAIN, SHADOW, FULL, EXEMPT])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every own shadow lock is undone once, nothing else ever is, and nothing is left.
    #[test]
    fn what_we_lock_we_unlock(ops in ops(), classes in classes(), jitter: u64) {
        let mut world = World::new(classes, jitter);
        for op in &ops {
            world.run(op);
        }
        world.wind_down();
        for (account, held) in &world.accounts {
            prop_assert!(held.own.is_empty(), "{account} stays locked: {:?}", held.own);
            prop_assert_eq!(held.locks, held.unlocks);
        }
        prop_assert_eq!(world.policy.accounts().count(), 0);
        prop_assert_eq!(world.wake, Boot::NEVER);
    }

    /// The same events at the same times give the same actions.
    #[test]
    fn same_events_same_actions(ops in ops(), classes in classes(), jitter: u64) {
        let run = || {
            let mut world = World::new(classes, jitter);
            ops.iter().for_each(|op| world.run(op));
            world.actions
        };
        prop_assert_eq!(run(), run());
    }

    /// A flood fills the table and no more; what was there before stays.
    #[test]
    fn state_is_bounded(room in 1..20_usize, accounts in prop::collection::vec(0..1000_u32, 0..200)) {
        let mut policy = Policy::with_room(room);
        let mut first = None;
        for account in accounts {
            let _ = policy.step(Boot(1), Input::Tripped {
                account,
                class: SHADOW,
                trips: 1,
                locked_until: Boot(100 * SECOND),
                actor: Actor { kind: 0, id: 0 },
            });
            first = first.or(Some(account));
            prop_assert!(policy.accounts().count() <= room);
            prop_assert!(policy.accounts().any(|held| Some(held) == first));
        }
    }
}

/// A million accounts trip, release after release: no more than the table holds is remembered, and it takes seconds.
#[test]
fn a_million_accounts_are_followed_in_bounded_state() {
    let mut policy = Policy::new();
    let mut most = 0;
    for account in 0..1_000_000_u32 {
        let now = Boot(u64::from(account) * 1_000);
        let locked_until = if account % 3 == 0 { Boot::NEVER } else { now.after(SECOND) };
        let actor = Actor { kind: 0, id: 0 };
        let _ = policy.step(now, Input::Tripped { account, class: FULL, trips: 1, locked_until, actor });
        if account % 3 == 0 {
            let _ = policy.step(now, Input::Unlocked { account, trips: 1 });
        }
        most = most.max(policy.len());
    }
    assert_eq!(most, portcullis_policy::MAX_ACCOUNTS, "the table was filled and no more");
}
