//! Classes that count pairs: which row is asked in which order, and what is returned when one of them refuses.

use super::*;

fn admitted(token: u64, delay: u64) -> Result<Answer, Error> {
    Ok(Answer { verdict: verdict::ADMITTED, token, delay, now: 1, ..Answer::default() })
}

/// op and flags of each call.
fn calls(stage: &Stage) -> Vec<(u32, u32)> {
    stage.asked.borrow().iter().map(|request| (request.op, request.flags)).collect()
}

#[test]
fn the_pair_is_asked_first_and_both_are_told_the_result() {
    let stage = Stage::new([
        answer(verdict::PAIR),
        admitted(7, 2_000_000_000),
        admitted(9, 0),
        answer(verdict::DONE),
        answer(verdict::DONE),
    ]);
    assert_eq!(authenticate(&stage), status::IGNORE);
    assert_eq!(calls(&stage), [(op::ADMIT, 0), (op::ADMIT, ask::PAIR), (op::ADMIT, ask::PAIRED)]);
    assert_eq!(stage.slept.get(), Duration::from_secs(2), "the longer of the two delays");
    let attempt = stage.armed.take()[0];
    stage.asked.borrow_mut().clear();
    module::resolve(&stage, attempt, status::AUTH_ERR);
    let told: Vec<_> =
        stage.asked.borrow().iter().map(|told| (told.flags, told.entry.token, told.arg)).collect();
    assert_eq!(told, [(0, 9, outcome::FAIL), (ask::PAIR, 7, outcome::FAIL)]);
}

#[test]
fn a_source_that_is_shut_out_costs_the_account_nothing() {
    let locked = Answer { verdict: verdict::LOCKED, flags: flag::PAIR, now: 1, ..Answer::default() };
    let stage = Stage::new([answer(verdict::PAIR), Ok(locked)]);
    assert_eq!(authenticate(&stage), status::AUTH_ERR);
    assert!(stage.told.borrow()[0].contains("from here"));
    assert_eq!(calls(&stage).len(), 2, "the account was not asked for a guess");
}

#[test]
fn what_the_pair_reserved_is_returned_when_the_account_refuses() {
    let refusals =
        [answer(verdict::LOCKED), answer(verdict::BUSY), answer(verdict::UNCOUNTED), Err(Error::Foreign)];
    for refusal in refusals {
        let stage = Stage::new([answer(verdict::PAIR), admitted(7, 0), refusal, answer(verdict::DONE)]);
        let options = Options { wait: Duration::ZERO, ..Options::default() };
        module::authenticate(&stage, &options);
        let asked = stage.asked.borrow();
        let last = asked.last().unwrap();
        assert_eq!(
            (last.op, last.flags & ask::PAIR, last.entry.token, last.arg),
            (op::RESOLVE, ask::PAIR, 7, outcome::VOID),
            "{refusal:?}"
        );
        assert!(stage.armed.borrow().is_empty());
    }
}

#[test]
fn without_room_for_the_pair_the_accounts_limit_holds() {
    let stage = Stage::new([answer(verdict::PAIR), answer(verdict::UNCOUNTED), admitted(9, 0)]);
    // What is not counted has no token.
    stage.answers.borrow_mut()[1] = Ok(Answer { verdict: verdict::UNCOUNTED, now: 1, ..Answer::default() });
    assert_eq!(authenticate(&stage), status::IGNORE);
    assert_eq!(stage.armed.borrow()[0].pair, 0);
}

#[test]
fn one_wait_is_for_both() {
    let busy = (0..10_000).map(|_| answer(verdict::BUSY));
    let stage =
        Stage::new([answer(verdict::PAIR), answer(verdict::BUSY), admitted(7, 0)].into_iter().chain(busy));
    stage.answers.borrow_mut().truncate(200);
    assert_eq!(authenticate(&stage), status::AUTH_ERR);
    assert!(stage.slept.get() <= Duration::from_secs(11), "{:?}", stage.slept.get());
}

#[test]
fn a_login_is_confirmed_and_looked_at_for_both() {
    let pairs = |verdict| Ok(Answer { verdict, flags: flag::PAIRS, now: 1, ..Answer::default() });
    let stage = Stage::new([pairs(verdict::NOTHING), answer(verdict::DONE)]);
    module::set_credentials(&stage, true);
    assert_eq!(calls(&stage), [(op::CONFIRM, 0), (op::CONFIRM, ask::PAIR)]);
    let locked =
        Answer { verdict: verdict::DONE, flags: flag::PAIR, locked_until: 9, now: 1, ..Answer::default() };
    let stage = Stage { service: b"sshd", ..Stage::new([pairs(verdict::DONE), Ok(locked)]) };
    assert_eq!(module::account::account(&stage, &Options::default()), status::PERM_DENIED);
    assert_eq!(calls(&stage), [(op::CHECK, ask::LOGON), (op::CHECK, ask::LOGON | ask::PAIR)]);
}
