//! Property tests of the counting rule: arbitrary interleavings of admits, passes, failures, kills, stops, confirmations,
//! locks and time, against a model that keeps every guess it ever saw and knows nothing of slots.

#![allow(clippy::indexing_slicing, reason = "a test, its model too")]

mod model;

use model::{Fate, Guess, Model};
use portcullis_common::abi::{cause, flag, op, outcome, source, verdict};
use portcullis_common::ledger::{Actor, Call, Ledger, NEVER, Rule, SLOTS, Step, rule_flag};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

#[derive(Clone, Debug)]
enum Act {
    Admit(u8),
    Resolve(usize, u32, u8),
    Kill(usize),
    Confirm(u8),
    Check,
    Lock(Option<u64>),
    Unlock,
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0..4u8).prop_map(Act::Admit),
        6 => (any::<prop::sample::Index>(), 1..4u32, 0..4u8).prop_map(|(i, o, p)| Act::Resolve(i.index(1 << 16), o, p)),
        2 => any::<prop::sample::Index>().prop_map(|i| Act::Kill(i.index(1 << 16))),
        2 => (0..4u8).prop_map(Act::Confirm),
        1 => Just(Act::Check),
        1 => prop::option::of(1..40u64).prop_map(Act::Lock),
        1 => Just(Act::Unlock),
        4 => (1..30u64).prop_map(Act::Wait),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    (1..=SLOTS as u32, 1..60u64, prop::option::of(1..90u64), 1..40u64, 1..40u64, (0..60u64, 0..400u64))
        .prop_map(
            |(deny, fail_interval, unlock_time, max_age, confirm_time, (backoff_window, max_unlock_time))| {
                Rule {
                    deny,
                    flags: 0,
                    fail_interval: fail_interval * SECOND,
                    unlock_time: unlock_time.map_or(NEVER, |s| s * SECOND),
                    max_age: max_age * SECOND,
                    confirm_time: confirm_time * SECOND,
                    backoff_window: backoff_window * SECOND,
                    max_unlock_time: max_unlock_time * SECOND,
                    ..Rule::DEFAULT
                }
            },
        )
}

fn actor(n: u8) -> Actor {
    Actor { kind: if n == 0 { source::IPV4 } else { source::LOCAL }, id: u64::from(n % 3) }
}

fn admit(ledger: &mut Ledger, now: u64, rule: &Rule, who: Actor) -> Step {
    ledger.apply(now, rule, &Call { actor: who, ..Call::new(op::ADMIT) })
}

fn resolve(ledger: &mut Ledger, now: u64, rule: &Rule, token: u64, result: u32, process: u32) -> Step {
    ledger.apply(
        now,
        rule,
        &Call { token, arg: result, process, parent: process + 1000, ..Call::new(op::RESOLVE) },
    )
}

/// Runs the acts on the ledger and on the model, and compares every verdict and every number.
fn play(rule: &Rule, acts: &[Act]) -> Result<(), TestCaseError> {
    let mut ledger = Ledger::EMPTY;
    let mut model = Model::default();
    let mut now = 1_000 * SECOND;
    // Everything that was ever let through, by the time of its admission: for the invariant itself.
    let mut admitted: Vec<u64> = Vec::new();
    for act in acts {
        if let Act::Wait(seconds) = act {
            now += seconds * SECOND;
            continue;
        }
        // Two things never happen in the same nanosecond.
        now += 1;
        model.settle(now, rule);
        let pick =
            |index: usize, model: &Model| (!model.guesses.is_empty()).then(|| index % model.guesses.len());
        match act {
            Act::Wait(_) => {}
            Act::Admit(n) => {
                let who = actor(*n);
                let step = admit(&mut ledger, now, rule, who);
                let own = model.guesses.iter().filter(|g| g.fate == Fate::Out && g.actor == who).count();
                let expected = if model.locked_until != 0 {
                    verdict::LOCKED
                } else if model.failures() + model.out() >= rule.deny as usize
                    || own >= (rule.deny as usize - 1).max(1)
                {
                    verdict::BUSY
                } else {
                    verdict::ADMITTED
                };
                prop_assert_eq!(step.verdict, expected);
                if expected == verdict::ADMITTED {
                    prop_assert!(model.guesses.iter().all(|g| g.token != step.token));
                    model.guesses.push(Guess {
                        token: step.token,
                        actor: who,
                        admitted: now,
                        failed: 0,
                        fate: Fate::Out,
                    });
                    admitted.push(now);
                }
            }
            Act::Resolve(index, result, process) => {
                let Some(i) = pick(*index, &model) else { continue };
                let process = u32::from(*process);
                let step = resolve(&mut ledger, now, rule, model.guesses[i].token, *result, process);
                match (model.guesses[i].fate, *result) {
                    (Fate::Out, outcome::FAIL) => model.fail(i, now, Fate::Failed, rule),
                    (Fate::Out, _) => {
                        model.guesses[i].fate = Fate::Gone;
                        if *result == outcome::PASS {
                            model.passes.push((process, process + 1000, now, model.failures_ever));
                        }
                    }
                    (Fate::Lapsed, outcome::PASS) => {
                        model.guesses[i].fate = Fate::Gone;
                        prop_assert!(step.flags & flag::WITHDRAWN != 0);
                    }
                    (Fate::Lapsed, outcome::FAIL) => model.guesses[i].fate = Fate::Failed,
                    _ => {}
                }
            }
            Act::Kill(index) => {
                let Some(i) = pick(*index, &model) else { continue };
                ledger.apply(now, rule, &Call { token: model.guesses[i].token, ..Call::new(op::LAPSE) });
                if model.guesses[i].fate == Fate::Out {
                    model.fail(i, now, Fate::Lapsed, rule);
                }
            }
            Act::Confirm(process) => {
                let process = u32::from(*process);
                let before = model.failures();
                let step = ledger.apply(now, rule, &Call { process, ..Call::new(op::CONFIRM) });
                // Passes beyond the last eight may have been forgotten: that clears less, never more.
                let allowed = process != 0
                    && model.passes.iter().any(|&(p, parent, at, failed)| {
                        (p == process || parent == process)
                            && failed == model.failures_ever
                            && now - at <= rule.confirm_time
                    });
                if step.verdict == verdict::DONE {
                    prop_assert!(allowed, "cleared {before} failures without a confirmed pass");
                    model.clear();
                }
            }
            Act::Check => {
                ledger.apply(now, rule, &Call::new(op::CHECK));
            }
            Act::Lock(seconds) => {
                let until = seconds.map_or(NEVER, |s| now + s * SECOND);
                ledger.apply(now, rule, &Call { until, arg: cause::ADMINISTRATOR, ..Call::new(op::LOCK) });
                model.locked_until = until;
            }
            Act::Unlock => {
                ledger.apply(now, rule, &Call::new(op::UNLOCK));
                model.locked_until = 0;
                model.row_until = 0;
                model.clear();
            }
        }
        let counts = ledger.counts();
        prop_assert_eq!(counts.failures as usize, model.failures(), "failures after {:?}", act);
        prop_assert_eq!(counts.reservations as usize, model.out(), "reservations after {:?}", act);
        prop_assert_eq!(ledger.locked_until, model.locked_until, "lock after {:?}", act);
        prop_assert_eq!(ledger.trips, model.trips, "trips after {:?}", act);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Verdict for verdict and number for number, the ledger is the model.
    #[test]
    fn the_ledger_is_the_model(rule in rule(), acts in prop::collection::vec(act(), 1..120)) {
        play(&rule, &acts)?;
    }

    /// Invariant 1: guesses that turn out wrong never number more than `deny` in any window, whatever happens between,
    /// unless a lock came to its end, an administrator released it or a confirmed login cleared them in between.
    #[test]
    fn never_more_than_deny_in_a_window(
        rule in rule(),
        steps in prop::collection::vec((0..4u8, 0..3u8, 0..20u64), 1..200),
    ) {
        // No lock and no confirmation: only the window takes a guess off the books.
        let rule = Rule { unlock_time: NEVER, ..rule };
        let mut ledger = Ledger::EMPTY;
        let mut now = SECOND;
        let mut guesses: Vec<u64> = Vec::new();
        let mut out: Vec<u64> = Vec::new();
        for (who, what, wait) in steps {
            now += wait * SECOND / 7 + 1;
            match what {
                0 | 1 => {
                    let step = admit(&mut ledger, now, &rule, actor(who));
                    if step.verdict == verdict::ADMITTED {
                        out.push(step.token);
                        guesses.push(now);
                    }
                }
                _ => if let Some(token) = out.pop() {
                    resolve(&mut ledger, now, &rule, token, outcome::FAIL, 0);
                },
            }
            let recent = guesses.iter().filter(|&&at| at + rule.fail_interval > now).count();
            prop_assert!(recent <= rule.deny as usize, "{recent} guesses in the window, deny {}", rule.deny);
        }
    }

    /// Whatever memory it is laid over and whatever time it is told: it ends, and never lets more than `deny` out.
    #[test]
    fn total_for_any_content(words in prop::collection::vec(any::<u32>(), 16 * 2), seed in any::<[u64; 8]>(), deny in any::<u32>()) {
        let mut ledger = Ledger::EMPTY;
        let [newest, tokens, failed, until, at, age, interval, now] = seed;
        ledger.newest = newest;
        ledger.tokens = tokens >> 1;
        ledger.failed = failed >> 1;
        ledger.locked_until = until;
        ledger.locked_at = at;
        ledger.next_pass = words[0];
        for (slot, word) in ledger.slots.iter_mut().zip(&words) {
            slot.state = *word;
            slot.time = u64::from(*word) << 20;
            slot.token = u64::from(*word);
        }
        let rule = Rule { deny, flags: 0, fail_interval: interval, unlock_time: age, max_age: age, confirm_time: age, backoff_window: at, max_unlock_time: until, delay: age, max_delay: interval, pair_deny: deny, soft_deny: deny, opens: 0, open_for: 0 };
        prop_assert!(rule.delay_after(words[0]) <= rule.max_delay);
        for op in 0..10 {
            for arg in 0..5 {
                ledger.apply(now, &rule, &Call { arg, token: u64::from(words[1]), process: 1, ..Call::new(op) });
            }
        }
        let mut admitted = 0;
        for n in 0..40u8 {
            let step = admit(&mut ledger, now, &rule, actor(n % 4));
            admitted += u32::from(step.verdict == verdict::ADMITTED);
        }
        prop_assert!(admitted <= rule.limit());
    }

    /// A clock that is read before the lock may be late by a little: nothing is forgotten and nobody is let in by it.
    #[test]
    fn time_may_go_back_a_little(back in 0..SECOND, deny in 1..=16u32) {
        let rule = Rule { deny, ..Rule::DEFAULT };
        let mut ledger = Ledger::EMPTY;
        let now = 100 * SECOND;
        for n in 0..deny {
            let at = if n % 2 == 0 { now } else { now - back };
            let step = admit(&mut ledger, at, &rule, actor(1));
            prop_assert_eq!(step.verdict, verdict::ADMITTED);
            resolve(&mut ledger, at - back / 2, &rule, step.token, outcome::FAIL, 0);
        }
        prop_assert_eq!(admit(&mut ledger, now - back, &rule, actor(2)).verdict, verdict::LOCKED);
    }
}

proptest! {
    /// Exempt always wins: whatever happens, it is let in and never locked; its failures are counted, up to `deny`.
    #[test]
    fn exempt_is_never_refused(rule in rule(), acts in prop::collection::vec(act(), 1..60)) {
        let rule = Rule { flags: rule_flag::EXEMPT, ..rule };
        let mut ledger = Ledger::EMPTY;
        let mut now = SECOND;
        let mut tokens = Vec::new();
        for act in acts {
            now += 1;
            match act {
                Act::Wait(seconds) => now += seconds * SECOND,
                Act::Admit(n) => {
                    let step = admit(&mut ledger, now, &rule, actor(n));
                    prop_assert_eq!(rule.let_through(step.verdict), verdict::ADMITTED);
                    tokens.push(step.token);
                }
                Act::Resolve(index, result, process) => {
                    if !tokens.is_empty() {
                        let token = tokens[index % tokens.len()];
                        resolve(&mut ledger, now, &rule, token, result, process.into());
                    }
                }
                _ => {
                    ledger.apply(now, &rule, &Call { until: NEVER, ..Call::new(op::LOCK) });
                }
            }
            ledger.apply(now, &rule, &Call::new(op::CHECK));
            prop_assert_eq!((ledger.locked_until, ledger.trips), (0, 0));
            prop_assert!(ledger.counts().failures <= rule.deny);
        }
    }

    /// The delay grows with the failures, never beyond its cap, and not at all without one on the books.
    #[test]
    fn the_delay_grows_up_to_its_cap(delay in 1..100u64, max_delay in 1..1_000u64, doubles in any::<bool>()) {
        let flags = if doubles { rule_flag::DELAY_DOUBLES } else { 0 };
        let rule = Rule { delay: delay * SECOND, max_delay: max_delay * SECOND, flags, ..Rule::DEFAULT };
        prop_assert_eq!(rule.delay_after(0), 0);
        let mut expected = rule.delay;
        for failures in 1..=SLOTS as u32 {
            prop_assert_eq!(rule.delay_after(failures), expected.min(rule.max_delay), "{} failures", failures);
            expected = if doubles { expected.saturating_mul(2) } else { expected + rule.delay };
        }
    }
}

#[test]
fn who_becomes_exempt_is_locked_no_longer() {
    let (rule, mut ledger) = (three(), Ledger::EMPTY);
    for n in 1..=3 {
        fail_once(&mut ledger, n, &rule);
    }
    assert!(ledger.locked());
    let exempt = Rule { flags: rule_flag::EXEMPT, ..rule };
    let look = ledger.apply(4, &exempt, &Call::new(op::CHECK));
    assert!(look.flags & flag::EXPIRED != 0 && !ledger.locked());
}

fn three() -> Rule {
    Rule { deny: 3, ..Rule::DEFAULT }
}

fn fail_once(ledger: &mut Ledger, now: u64, rule: &Rule) {
    let step = admit(ledger, now, rule, actor(1));
    assert_eq!(step.verdict, verdict::ADMITTED);
    resolve(ledger, now, rule, step.token, outcome::FAIL, 7);
}

#[test]
fn the_third_failure_locks_and_the_lock_ends() {
    let (rule, mut ledger) = (three(), Ledger::EMPTY);
    for n in 1..=3 {
        fail_once(&mut ledger, n * SECOND, &rule);
    }
    let refused = admit(&mut ledger, 4 * SECOND, &rule, actor(2));
    assert_eq!(refused.verdict, verdict::LOCKED);
    assert_eq!(ledger.locked_until, 3 * SECOND + rule.unlock_time);
    let end = ledger.locked_until;
    let after = admit(&mut ledger, end, &rule, actor(2));
    assert_eq!(after.verdict, verdict::ADMITTED);
    assert!(after.flags & flag::EXPIRED != 0);
}

#[test]
fn a_failure_leaves_the_window_to_the_nanosecond() {
    let (rule, mut ledger) = (three(), Ledger::EMPTY);
    fail_once(&mut ledger, SECOND, &rule);
    ledger.apply(SECOND + rule.fail_interval - 1, &rule, &Call::new(op::CHECK));
    assert_eq!(ledger.counts().failures, 1);
    ledger.apply(SECOND + rule.fail_interval, &rule, &Call::new(op::CHECK));
    assert_eq!(ledger.counts().failures, 0);
}

#[test]
fn three_at_once_hold_all_guesses_and_the_fourth_waits() {
    let (rule, mut ledger) = (three(), Ledger::EMPTY);
    let a = admit(&mut ledger, 1, &rule, actor(1));
    let b = admit(&mut ledger, 1, &rule, actor(1));
    let own = admit(&mut ledger, 1, &rule, actor(1));
    let c = admit(&mut ledger, 1, &rule, actor(2));
    let full = admit(&mut ledger, 1, &rule, actor(3));
    assert_eq!(
        [a.verdict, b.verdict, own.verdict, c.verdict, full.verdict],
        [verdict::ADMITTED, verdict::ADMITTED, verdict::BUSY, verdict::ADMITTED, verdict::BUSY]
    );
    resolve(&mut ledger, 2, &rule, a.token, outcome::PASS, 7);
    assert_eq!(admit(&mut ledger, 3, &rule, actor(3)).verdict, verdict::ADMITTED);
}

#[test]
fn only_a_confirmed_pass_clears() {
    let (rule, mut ledger) = (three(), Ledger::EMPTY);
    fail_once(&mut ledger, 1, &rule);
    let step = admit(&mut ledger, 2, &rule, actor(1));
    resolve(&mut ledger, 3, &rule, step.token, outcome::PASS, 7);
    assert_eq!(ledger.counts().failures, 1, "a pass alone clears nothing");
    let stranger = ledger.apply(4, &rule, &Call { process: 8, ..Call::new(op::CONFIRM) });
    assert_eq!(stranger.verdict, verdict::NOTHING);
    let parent = ledger.apply(5, &rule, &Call { process: 1007, ..Call::new(op::CONFIRM) });
    assert_eq!(parent.verdict, verdict::DONE, "sshd's keyboard-interactive: the parent goes on to setcred");
    assert_eq!(ledger.counts().failures, 0);
    let again = ledger.apply(6, &rule, &Call { process: 7, ..Call::new(op::CONFIRM) });
    assert_eq!(again.verdict, verdict::NOTHING, "a pass is confirmed once");
}

#[test]
fn a_newer_failure_stops_the_confirmation() {
    let (rule, mut ledger) = (three(), Ledger::EMPTY);
    let step = admit(&mut ledger, 2, &rule, actor(1));
    resolve(&mut ledger, 3, &rule, step.token, outcome::PASS, 7);
    fail_once(&mut ledger, 4, &rule);
    let confirm = ledger.apply(5, &rule, &Call { process: 7, ..Call::new(op::CONFIRM) });
    assert_eq!(confirm.verdict, verdict::NOTHING);
    assert_eq!(ledger.counts().failures, 1);
}

#[test]
fn an_unresolved_guess_becomes_a_failure_and_a_late_pass_withdraws_it() {
    let (rule, mut ledger) = (three(), Ledger::EMPTY);
    let step = admit(&mut ledger, 0, &rule, actor(1));
    let due = ledger.apply(rule.max_age, &rule, &Call::new(op::CHECK));
    assert_eq!((due.flags & flag::LAPSED, due.lapsed), (flag::LAPSED, 1));
    assert_eq!(ledger.counts().failures, 1);
    resolve(&mut ledger, rule.max_age + 1, &rule, step.token, outcome::PASS, 7);
    assert_eq!(ledger.counts().failures, 0);
    let confirm = ledger.apply(rule.max_age + 2, &rule, &Call { process: 7, ..Call::new(op::CONFIRM) });
    assert_eq!(confirm.verdict, verdict::NOTHING, "a late pass confirms nothing");
}

#[test]
fn lowering_deny_below_the_books_trips_at_the_next_look() {
    let mut ledger = Ledger::EMPTY;
    let ten = Rule { deny: 10, ..Rule::DEFAULT };
    for n in 1..=4 {
        fail_once(&mut ledger, n, &ten);
    }
    let look = ledger.apply(5, &three(), &Call::new(op::CHECK));
    assert!(look.flags & flag::TRIPPED != 0);
    assert_eq!(admit(&mut ledger, 6, &three(), actor(1)).verdict, verdict::LOCKED);
}

#[test]
fn a_trip_does_not_shorten_a_lock() {
    let (rule, mut ledger) = (three(), Ledger::EMPTY);
    let step = admit(&mut ledger, 1, &rule, actor(1));
    ledger.apply(2, &rule, &Call { until: NEVER, arg: cause::ADMINISTRATOR, ..Call::new(op::LOCK) });
    resolve(&mut ledger, 3, &Rule { deny: 1, ..rule }, step.token, outcome::FAIL, 7);
    assert_eq!((ledger.locked_until, ledger.cause), (NEVER, cause::ADMINISTRATOR));
}
