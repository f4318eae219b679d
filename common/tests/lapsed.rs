//! Whose guesses lapsed: each guess is told of once, by its own actor, in whatever call it is found.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test, its model too")]

use std::collections::BTreeMap;

use portcullis_common::abi::{op, outcome, source, verdict};
use portcullis_common::ledger::{Actor, Call, Lapsed, Ledger, Rule, Step};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

/// One call as the gate makes it: with whose guesses lapsed.
fn call(ledger: &mut Ledger, now: u64, rule: &Rule, call: &Call) -> (Step, Vec<Actor>) {
    let step = ledger.settle_marked(now, rule);
    let mut lapsed = Lapsed::NONE;
    if step.lapsed != 0 {
        ledger.take_lapsed(&mut lapsed);
    }
    (ledger.act(now, rule, call, step), lapsed.actors().collect())
}

fn actor(n: u32) -> Actor {
    Actor { kind: [source::LOCAL, source::IPV4, source::IPV6][n as usize % 3], id: u64::from(n) << 33 | 1 }
}

#[derive(Clone, Debug)]
enum Act {
    Wait(u64),
    Admit(u32),
    Resolve(usize, u32),
    Check,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        (0..40_u64).prop_map(Act::Wait),
        (0..7_u32).prop_map(Act::Admit),
        (0..7_u32).prop_map(Act::Admit),
        (0..40_usize, prop_oneof![Just(outcome::PASS), Just(outcome::FAIL), Just(outcome::VOID)])
            .prop_map(|(index, result)| Act::Resolve(index, result)),
        Just(Act::Check),
    ];
    prop::collection::vec(act, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_guess_that_lapses_is_told_of_once_by_its_own_actor(
        acts in acts(), deny in 1..=16_u32, interval in 30..200_u64, factor in any::<bool>(),
    ) {
        let rule = Rule {
            deny,
            max_age: 60 * SECOND,
            fail_interval: interval * SECOND,
            unlock_time: if factor { SECOND } else { 90 * SECOND },
            ..Rule::DEFAULT
        };
        let mut ledger = Ledger::EMPTY;
        // Guesses that are out, by token: who, since when.
        let mut out: BTreeMap<u64, (Actor, u64)> = BTreeMap::new();
        let mut tokens: Vec<u64> = Vec::new();
        let mut now = 1_000 * SECOND;
        for act in acts {
            now += 1;
            let asked = match act {
                Act::Wait(seconds) => {
                    now += seconds * SECOND;
                    continue;
                }
                Act::Admit(n) => Call { actor: actor(n), ..Call::new(op::ADMIT) },
                Act::Resolve(index, result) if !tokens.is_empty() => {
                    Call { token: tokens[index % tokens.len()], arg: result, ..Call::new(op::RESOLVE) }
                }
                Act::Resolve(..) | Act::Check => Call::new(op::CHECK),
            };
            let due: Vec<u64> =
                out.iter().filter(|(_, (_, at))| now - at >= rule.max_age).map(|(token, _)| *token).collect();
            let mut expected: Vec<(u32, u64)> = due
                .iter()
                .filter_map(|token| out.remove(token))
                .map(|(actor, _)| (actor.kind, actor.id))
                .collect();
            let (step, told) = call(&mut ledger, now, &rule, &asked);
            let mut told: Vec<(u32, u64)> = told.iter().map(|actor| (actor.kind, actor.id)).collect();
            expected.sort_unstable();
            told.sort_unstable();
            prop_assert_eq!(told.len(), step.lapsed as usize);
            prop_assert_eq!(told, expected);
            if step.verdict == verdict::ADMITTED {
                out.insert(step.token, (asked.actor, now));
                tokens.push(step.token);
            }
            if asked.op == op::RESOLVE {
                out.remove(&asked.token);
            }
            // Nothing of it is left in the row.
            prop_assert!(ledger.slots.iter().all(|slot| slot.kind <= source::IPV6));
        }
    }
}
