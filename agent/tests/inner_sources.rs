//! The decision table of docs/sources.md, row by row: the gate's counting and the policy, without a kernel.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

use std::collections::BTreeMap;

use portcullis_common::abi::{UNKNOWN, source};
use portcullis_common::ledger::{Actor, Call, Ledger, Rule};
use portcullis_common::sources::{Bucket, Happened, SourceRule};
use portcullis_policy::Boot;
use portcullis_policy::sources::{
    Action, Answer, Class, Counts, Input, Net, Notice, Rules, Source, Sources, Target, Why,
};

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const RULE: SourceRule = SourceRule { find_time: 10 * MINUTE, deny: 5, accounts: 4 };

fn rules() -> Rules {
    Rules {
        guess: Answer::Act,
        spray: Answer::Act,
        local: Answer::Act,
        accounts: RULE.accounts,
        drop_time: 10 * MINUTE,
        max_drop_time: 60 * MINUTE,
        decay: 1_000 * MINUTE,
        escalate: 3,
        exempt: vec![Net::V4(0xc633_6400, 24)],
    }
}

/// A gate's table and a policy, and what the policy asked for.
struct Host {
    buckets: BTreeMap<(u32, u64), Bucket>,
    policy: Sources,
    now: u64,
    actions: Vec<Action>,
}

impl Host {
    fn new(rules: Rules) -> Self {
        let now = 1_000_000 * SECOND;
        Self { buckets: BTreeMap::new(), policy: Sources::new(rules), now, actions: Vec::new() }
    }

    fn happens(&mut self, from: Source, account: u64, pass: bool) {
        self.now += SECOND;
        let (kind, id) = match from {
            Source::V4(address) => (source::IPV4, u64::from(address)),
            Source::V6(upper) => (source::IPV6, upper),
            Source::Near(address) => (source::IPV6, address as u64),
            Source::Local(uid) => (source::LOCAL, u64::from(uid)),
        };
        let what = Happened { kind, id, account, pass: u32::from(pass) };
        let bucket = self.buckets.entry((kind, id)).or_insert(Bucket::EMPTY);
        let told = bucket.count(self.now, &RULE, &what);
        if told.tripped == 1 {
            let counts = Counts {
                failures: told.failures,
                accounts: told.accounts,
                unknown: told.unknown,
                service: [0; 16],
            };
            let administrators = vec![Net::V4(0xc000_0232, 32)];
            self.feed(Input::Tripped { source: from, at: Boot(self.now), counts, administrators });
        }
    }

    fn feed(&mut self, input: Input) {
        self.actions.extend(self.policy.step(Boot(self.now), input));
    }

    fn fails(&mut self, from: Source, account: u64, times: u32) {
        (0..times).for_each(|_| self.happens(from, account, false));
    }

    /// Who is answered, what for, for how long.
    fn answers(&mut self) -> Vec<(Target, Class, u64)> {
        let taken = std::mem::take(&mut self.actions);
        taken
            .into_iter()
            .filter_map(|action| match action {
                Action::Answer { target, until, class, .. } => Some((target, class, until.0 - self.now)),
                _ => None,
            })
            .collect()
    }

    fn wait(&mut self, nanoseconds: u64) {
        self.now += nanoseconds;
        self.feed(Input::Tick);
    }

    /// Why it was exempt.
    fn exempt(&mut self) -> Vec<Why> {
        std::mem::take(&mut self.actions)
            .into_iter()
            .filter_map(|action| match action {
                Action::Answer { target, .. } => panic!("{target:?} was answered"),
                Action::Tell { notice: Notice::Exempt { why, .. }, .. } => Some(why),
                _ => None,
            })
            .collect()
    }
}

const ATTACKER: Source = Source::V4(0xc000_0207);

fn dropped(source: Source) -> Target {
    Target::Net(Net::of(source).unwrap())
}

#[test]
fn a_source_below_its_limits_is_not_answered() {
    let mut host = Host::new(rules());
    host.fails(ATTACKER, 1, 2);
    host.fails(ATTACKER, 2, 1);
    host.fails(ATTACKER, 3, 1);
    assert_eq!(host.answers(), []);
    // What has left the window counts no more.
    host.wait(RULE.find_time);
    host.fails(ATTACKER, 1, 4);
    assert_eq!(host.answers(), []);
}

#[test]
fn one_source_at_one_account_is_answered_at_the_source() {
    let mut host = Host::new(rules());
    host.fails(ATTACKER, 1, 5);
    assert_eq!(host.answers(), [(dropped(ATTACKER), Class::Guess, 10 * MINUTE)]);
    let six = Source::V6(0x2001_0db8_0000_0001);
    host.fails(six, 1, 5);
    assert_eq!(host.answers(), [(dropped(six), Class::Guess, 10 * MINUTE)]);
}

#[test]
fn one_source_at_many_accounts_is_answered_as_a_spray() {
    let mut host = Host::new(rules());
    for account in [1, 2, UNKNOWN | 1, UNKNOWN | 2] {
        host.fails(ATTACKER, account, 1);
    }
    assert_eq!(host.answers(), [(dropped(ATTACKER), Class::Spray, 10 * MINUTE)]);
}

#[test]
fn many_sources_at_one_account_are_left_to_the_accounts_ladder() {
    let mut host = Host::new(rules());
    let mut ledger = Ledger::EMPTY;
    let rule = Rule { deny: 10, ..Rule::DEFAULT };
    for number in 0..10 {
        let from = Source::V4(0x0a00_0000 + number * 256);
        host.fails(from, 1, 1);
        let mut call = Call::new(portcullis_common::abi::op::ADMIT);
        call.actor = Actor { kind: source::IPV4, id: u64::from(number) };
        let admitted = ledger.apply(host.now, &rule, &call);
        call.op = portcullis_common::abi::op::RESOLVE;
        call.arg = portcullis_common::abi::outcome::FAIL;
        call.token = admitted.token;
        ledger.apply(host.now, &rule, &call);
    }
    assert_eq!(host.answers(), []);
    assert!(ledger.locked());
}

#[test]
fn people_who_mistype_behind_one_address_are_not_answered() {
    let mut host = Host::new(rules());
    for person in 0..100 {
        host.fails(ATTACKER, person, 2);
        host.happens(ATTACKER, person, true);
    }
    assert_eq!(host.answers(), []);
}

#[test]
fn a_logon_of_ones_own_hides_no_guesses_at_others() {
    let mut host = Host::new(rules());
    for _ in 0..6 {
        host.fails(ATTACKER, 1, 1);
        host.happens(ATTACKER, 7, true);
    }
    let answers = host.answers();
    assert_eq!(
        answers.first().map(|(target, ..)| *target),
        Some(dropped(ATTACKER)),
        "one later than without"
    );
}

#[test]
fn a_local_user_is_refused_not_dropped() {
    let mut host = Host::new(rules());
    for account in 1..=4 {
        host.fails(Source::Local(1_000), account, 1);
    }
    assert_eq!(host.answers(), [(Target::Local(1_000), Class::Local, 10 * MINUTE)]);
}

#[test]
fn root_is_never_refused() {
    let mut host = Host::new(rules());
    host.fails(Source::Local(0), 1, 5);
    assert_eq!(host.exempt(), [Why::Root]);
}

#[test]
fn an_exempt_network_is_never_answered() {
    let mut host = Host::new(rules());
    host.fails(Source::V4(0xc633_6407), 1, 5);
    assert_eq!(host.exempt(), [Why::Configured]);
}

#[test]
fn where_an_administrator_sits_nothing_is_dropped() {
    let mut host = Host::new(rules());
    host.fails(Source::V4(0xc000_0232), 1, 5);
    assert_eq!(host.exempt(), [Why::Administrator]);
}

#[test]
fn this_hosts_own_addresses_are_never_answered() {
    let mut host = Host::new(rules());
    for own in [Source::V4(0x7f00_0001), Source::V6(0), Source::V6(0xfe80 << 48), Source::V4(0xa9fe_0101)] {
        host.fails(own, 1, 5);
        assert_eq!(host.exempt(), [Why::Own], "{own:?}");
    }
    // Global ones, as the engine reads them; of IPv6 the whole /64 that would be dropped.
    let addresses = vec![Net::V4(0x0a01_0209, 32), Net::V6(0x2001_0db8_0001_0000 << 64 | 5, 128)];
    host.feed(Input::Own(addresses));
    for own in [Source::V4(0x0a01_0209), Source::V6(0x2001_0db8_0001_0000)] {
        host.fails(own, 1, 5);
        assert_eq!(host.exempt(), [Why::Own], "{own:?}");
    }
    // No network around one of them, either.
    for number in 0..4 {
        host.fails(Source::V4(0x0a01_0200 + number), 1, 5);
    }
    assert!(host.answers().iter().all(|(_, class, _)| *class == Class::Guess));
}

#[test]
fn an_address_that_becomes_this_hosts_own_is_let_go() {
    let mut host = Host::new(rules());
    host.fails(ATTACKER, 1, 5);
    assert_eq!(host.answers().len(), 1);
    host.feed(Input::Own(vec![Net::of(ATTACKER).unwrap()]));
    assert!(host.actions.contains(&Action::Release { target: dropped(ATTACKER) }), "{:?}", host.actions);
    assert_eq!(host.answers(), []);
}

#[test]
fn monitor_tells_and_does_nothing() {
    let mut host = Host::new(Rules { guess: Answer::Monitor, ..rules() });
    host.fails(ATTACKER, 1, 5);
    let told = host
        .actions
        .iter()
        .any(|action| matches!(action, Action::Tell { notice: Notice::Tripped { acted: false, .. }, .. }));
    assert!(told, "{:?}", host.actions);
    assert_eq!(host.answers(), []);
}

#[test]
fn a_trip_told_in_monitor_swallows_no_answer() {
    let monitor = Rules { guess: Answer::Monitor, ..rules() };
    let mut host = Host::new(monitor.clone());
    host.fails(ATTACKER, 1, 5);
    assert_eq!(host.answers(), []);
    // Another class, which is acted on.
    for account in 2..=5 {
        host.fails(ATTACKER, account, 1);
    }
    let answers = host.answers();
    assert_eq!(
        answers.first().map(|(target, class, _)| (*target, *class)),
        Some((dropped(ATTACKER), Class::Spray))
    );

    // The same class, which is acted on from now on.
    let mut host = Host::new(monitor);
    host.fails(ATTACKER, 1, 5);
    host.feed(Input::Configured(rules()));
    assert_eq!(host.answers(), [], "for what was told");
    host.fails(ATTACKER, 1, 5);
    let answers = host.answers();
    assert_eq!(
        answers.first().map(|(target, class, _)| (*target, *class)),
        Some((dropped(ATTACKER), Class::Guess))
    );
}

/// Three dropped hosts and their network.
fn escalated() -> (Host, Vec<Target>) {
    let mut host = Host::new(rules());
    for number in 0..3 {
        host.fails(Source::V4(0x0a01_0200 + number), 1, 5);
    }
    let targets: Vec<Target> = host.answers().into_iter().map(|(target, ..)| target).collect();
    assert_eq!(targets.len(), 4);
    (host, targets)
}

fn releases(host: &mut Host) -> Vec<Target> {
    let released = std::mem::take(&mut host.actions).into_iter();
    let mut released: Vec<Target> = released
        .filter_map(|action| match action {
            Action::Answer { target, .. } => panic!("{target:?} was answered"),
            Action::Release { target } => Some(target),
            _ => None,
        })
        .collect();
    released.sort();
    released
}

#[test]
fn what_the_words_ask_for_no_more_is_let_go_at_a_reload() {
    let none = Rules { guess: Answer::Monitor, spray: Answer::Monitor, ..rules() };
    let network = Target::Net(Net::V4(0x0a01_0200, 24));
    for (rules, left) in [(none, vec![]), (Rules { escalate: 0, ..rules() }, vec![network])] {
        let (mut host, mut targets) = escalated();
        targets.sort();
        host.feed(Input::Configured(rules));
        let expected = if left.is_empty() { targets } else { left };
        assert_eq!(releases(&mut host), expected);
    }
}

#[test]
fn what_the_words_ask_for_no_more_is_let_go_at_a_restart() {
    let none = Rules { guess: Answer::Monitor, spray: Answer::Monitor, ..rules() };
    let (host, mut targets) = escalated();
    targets.sort();
    let mut after = Host { now: host.now, ..Host::new(none) };
    for (target, memory, _) in host.policy.held(Boot(host.now)) {
        after.feed(Input::Restored { target, memory });
    }
    assert_eq!(releases(&mut after), targets);
}

#[test]
fn what_an_administrator_let_go_stays_so_over_a_restart() {
    let mut host = Host::new(rules());
    host.fails(ATTACKER, 1, 5);
    assert_eq!(host.answers().len(), 1);
    host.feed(Input::Released { target: dropped(ATTACKER) });
    let memory = host.policy.of(dropped(ATTACKER)).unwrap();
    let stored = Action::Remember { target: dropped(ATTACKER), memory };
    assert!(host.actions.contains(&stored), "{:?}", host.actions);
    let mut after = Host { now: host.now, ..Host::new(rules()) };
    after.feed(Input::Restored { target: dropped(ATTACKER), memory });
    assert_eq!(after.answers(), []);
}

#[test]
fn what_was_undone_is_done_again_to_the_same_end() {
    let mut host = Host::new(rules());
    host.fails(ATTACKER, 1, 5);
    let [(_, _, length)] = host.answers()[..] else { panic!() };
    host.fails(ATTACKER, 1, 5);
    assert_eq!(host.answers(), [(dropped(ATTACKER), Class::Guess, length - 5 * SECOND)]);
}

#[test]
fn repeats_double_up_to_the_cap() {
    let mut host = Host::new(rules());
    for minutes in [10, 20, 40, 60, 60] {
        host.fails(ATTACKER, 1, 5);
        assert_eq!(host.answers(), [(dropped(ATTACKER), Class::Guess, minutes * MINUTE)]);
        host.wait(minutes * MINUTE);
    }
}

#[test]
fn repeats_are_forgotten_one_by_one() {
    let mut host = Host::new(rules());
    for minutes in [10, 20, 40] {
        host.fails(ATTACKER, 1, 5);
        assert_eq!(host.answers(), [(dropped(ATTACKER), Class::Guess, minutes * MINUTE)]);
        host.wait(minutes * MINUTE);
    }
    // Three repeats, two of them forgotten.
    host.wait(2_100 * MINUTE);
    host.fails(ATTACKER, 1, 5);
    assert_eq!(host.answers(), [(dropped(ATTACKER), Class::Guess, 20 * MINUTE)]);
    host.wait(10_000 * MINUTE);
    host.fails(ATTACKER, 1, 5);
    assert_eq!(host.answers(), [(dropped(ATTACKER), Class::Guess, 10 * MINUTE)]);
}

#[test]
fn many_dropped_members_drop_their_network() {
    let mut host = Host::new(rules());
    for number in 0..3 {
        host.fails(Source::V4(0x0a01_0200 + number), 1, 5);
    }
    assert_eq!(host.answers().last().unwrap().0, Target::Net(Net::V4(0x0a01_0200, 24)));
    // Three /64 make a /56, three of those a /48.
    let upper = |fifty_six: u64, member: u64| Source::V6(0x2001_0db8_0001_0000 | fifty_six << 8 | member);
    for fifty_six in 0..3 {
        for member in 0..3 {
            host.fails(upper(fifty_six, member), 1, 5);
        }
        let targets: Vec<Target> = host.answers().into_iter().map(|(target, ..)| target).collect();
        let whole = |upper: u64, length| Target::Net(Net::V6(u128::from(upper) << 64, length));
        assert!(targets.contains(&whole(0x2001_0db8_0001_0000 | fifty_six << 8, 56)), "{targets:?}");
        assert_eq!(targets.contains(&whole(0x2001_0db8_0001_0000, 48)), fifty_six == 2, "{targets:?}");
    }
}

#[test]
fn a_network_with_an_exempt_address_is_not_dropped() {
    // The administrator sits in the same /24.
    let mut host = Host::new(rules());
    for number in 0..6 {
        host.fails(Source::V4(0xc000_0200 + number), 1, 5);
    }
    let answers = host.answers();
    assert_eq!(answers.len(), 6);
    assert!(answers.iter().all(|(_, class, _)| *class == Class::Guess));
}

#[test]
fn an_answer_that_is_refused_is_told_and_not_tried_again() {
    let mut host = Host::new(rules());
    host.fails(ATTACKER, 1, 5);
    assert_eq!(host.answers().len(), 1);
    host.feed(Input::Done { target: dropped(ATTACKER), failed: Some(("off".to_owned(), false)) });
    assert!(host.actions.iter().any(|action| {
        matches!(action, Action::Tell { notice: Notice::Failed { next: Boot::NEVER, .. }, .. })
    }));
    host.wait(5 * MINUTE);
    assert_eq!(host.answers(), []);
}
