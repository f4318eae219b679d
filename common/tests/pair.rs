//! Property tests of pairs: the ledger of each source at an account and the account's own, asked in the order in which the
//! PAM module asks them, with kills at every point.

use std::collections::BTreeMap;

use portcullis_common::abi::{op, outcome, source, verdict};
use portcullis_common::ledger::{Actor, Call, Ledger, Rule, Step, rule_flag};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug)]
enum Act {
    /// A source guesses: to the end with this result, or killed after so many calls of the gate.
    Guess {
        source: u64,
        result: u32,
        killed: Option<u8>,
    },
    /// One of the guesses under way ends.
    End(usize, u32),
    Confirm(u64),
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0..5u64, 1..4u32, prop::option::of(1..4u8))
            .prop_map(|(source, result, killed)| Act::Guess { source, result, killed }),
        4 => (any::<prop::sample::Index>(), 1..4u32).prop_map(|(index, result)| Act::End(index.index(64), result)),
        1 => (0..5u64).prop_map(Act::Confirm),
        3 => (1..20u64).prop_map(Act::Wait),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    (1..6u32, 1..8u32, 5..60u64, 5..60u64).prop_map(|(deny, more, fail_interval, unlock_time)| Rule {
        deny: deny + more,
        pair_deny: deny,
        flags: rule_flag::PAIR,
        fail_interval: fail_interval * SECOND,
        // Whatever comes after the window's end is another window's.
        unlock_time: (fail_interval + unlock_time) * SECOND,
        max_age: 20 * SECOND,
        ..Rule::DEFAULT
    })
}

/// A guess that is out.
struct Out {
    source: u64,
    at_pair: u64,
    at_account: u64,
}

struct Gate {
    rule: Rule,
    account: Ledger,
    pairs: BTreeMap<u64, Ledger>,
    now: u64,
    /// When a guess went to the check, and whose it was; those that were right are taken off.
    checked: Vec<(u64, u64, u64)>,
    out: Vec<Out>,
}

impl Gate {
    fn pair(&mut self, source: u64, call: Call) -> Step {
        self.now += 1;
        let ledger = self.pairs.entry(source).or_insert(Ledger::EMPTY);
        ledger.apply(self.now, &self.rule.of_pairs(), &call)
    }

    fn account(&mut self, call: Call) -> Step {
        self.now += 1;
        self.account.apply(self.now, &self.rule, &call)
    }

    fn admit(source: u64) -> Call {
        Call { actor: Actor { kind: source::LOCAL, id: source }, ..Call::new(op::ADMIT) }
    }

    /// As the module does it. None: refused, or killed before the guess went to the check.
    fn reserve(&mut self, source: u64, killed: Option<u8>) -> Option<Out> {
        let pair = self.pair(source, Self::admit(source));
        if pair.verdict != verdict::ADMITTED {
            return None;
        }
        let lapse = |token| Call { token, ..Call::new(op::LAPSE) };
        if killed == Some(1) {
            self.pair(source, lapse(pair.token));
            return None;
        }
        let account = self.account(Self::admit(source));
        if account.verdict != verdict::ADMITTED {
            let back = Call { token: pair.token, arg: outcome::VOID, ..Call::new(op::RESOLVE) };
            self.pair(source, back);
            return None;
        }
        if killed == Some(2) {
            self.account(lapse(account.token));
            self.pair(source, lapse(pair.token));
            return None;
        }
        self.checked.push((self.now, source, account.token));
        Some(Out { source, at_pair: pair.token, at_account: account.token })
    }

    fn end(&mut self, out: &Out, result: u32) {
        if result != outcome::FAIL {
            self.checked.retain(|(_, _, token)| *token != out.at_account);
        }
        let resolve = |token| Call { token, arg: result, process: 7, ..Call::new(op::RESOLVE) };
        self.account(resolve(out.at_account));
        self.pair(out.source, resolve(out.at_pair));
    }
}

/// The most of these times that lie within one window.
fn most(times: &[u64], window: u64) -> usize {
    times
        .iter()
        .map(|end| times.iter().filter(|at| **at <= *end && *at + window > *end).count())
        .max()
        .unwrap_or(0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn neither_pair_nor_account_lets_more_than_its_limit_out(rule in rule(), acts in prop::collection::vec(act(), 1..120)) {
        let mut gate = Gate { rule, account: Ledger::EMPTY, pairs: BTreeMap::new(), now: SECOND, checked: Vec::new(), out: Vec::new() };
        // Wrong guesses since the last confirmed login: what it cleared counts no more.
        let mut cleared: BTreeMap<u64, u64> = BTreeMap::new();
        let mut all_cleared = 0;
        for act in acts {
            match act {
                Act::Wait(seconds) => gate.now += seconds * SECOND,
                Act::Guess { source, result, killed } => {
                    if let Some(out) = gate.reserve(source, killed) {
                        if result == outcome::VOID { gate.out.push(out) } else { gate.end(&out, result) }
                    }
                }
                Act::End(index, result) => {
                    if !gate.out.is_empty() {
                        let out = gate.out.remove(index % gate.out.len());
                        gate.end(&out, result);
                    }
                }
                Act::Confirm(source) => {
                    let confirm = Call { process: 7, ..Call::new(op::CONFIRM) };
                    if gate.account(confirm).verdict == verdict::DONE {
                        all_cleared = gate.now;
                    }
                    if gate.pair(source, confirm).verdict == verdict::DONE {
                        cleared.insert(source, gate.now);
                    }
                }
            }
            let times: Vec<u64> = gate.checked.iter().map(|(at, ..)| *at).filter(|at| *at > all_cleared).collect();
            prop_assert!(most(&times, rule.fail_interval) <= rule.deny as usize, "account");
            for source in 0..5 {
                let since = cleared.get(&source).copied().unwrap_or(0);
                let own: Vec<u64> =
                    gate.checked.iter().filter(|(at, who, _)| *who == source && *at > since).map(|(at, ..)| *at).collect();
                prop_assert!(most(&own, rule.fail_interval) <= rule.pair_deny as usize, "source {}", source);
            }
        }
    }

    #[test]
    fn one_source_alone_never_locks_the_account(rule in rule(), acts in prop::collection::vec(act(), 1..120)) {
        // A lock that is longer than the window, so that no window holds the failures of two.
        let mut gate = Gate { rule, account: Ledger::EMPTY, pairs: BTreeMap::new(), now: SECOND, checked: Vec::new(), out: Vec::new() };
        for act in acts {
            match act {
                Act::Wait(seconds) => gate.now += seconds * SECOND,
                Act::Guess { result, killed, .. } => {
                    if let Some(out) = gate.reserve(0, killed) {
                        if result == outcome::VOID { gate.out.push(out) } else { gate.end(&out, result) }
                    }
                }
                Act::End(index, result) => {
                    if !gate.out.is_empty() {
                        let out = gate.out.remove(index % gate.out.len());
                        gate.end(&out, result);
                    }
                }
                Act::Confirm(_) => {}
            }
            prop_assert_eq!(gate.account.trips, 0);
        }
    }
}
