//! The line that has another factor asked for, and what the other lines say about it.

use super::*;

fn line() -> Options {
    Options { factor: true, ..Options::default() }
}

fn check(flags: u32, locked_until: u64) -> Result<Answer, Error> {
    Ok(Answer { verdict: verdict::DONE, flags, locked_until, now: 1, ..Answer::default() })
}

#[test]
fn another_factor_is_asked_for_on_the_gates_word_alone() {
    let soft = flag::SOFT | flag::OPEN;
    for (answer, code) in [
        (check(0, 0), status::CRED_UNAVAIL),
        (answer(verdict::NOTHING), status::CRED_UNAVAIL),
        (check(soft | flag::FACTOR, 9), status::IGNORE),
        // From a listed place.
        (check(soft, 9), status::CRED_UNAVAIL),
        (check(soft | flag::FACTOR | flag::MONITORED, 9), status::CRED_UNAVAIL),
        // Locked for all since the first line: no jump over what asks.
        (check(0, 9), status::AUTH_ERR),
        (check(flag::SOFT, 9), status::AUTH_ERR),
    ] {
        let stage = Stage::new([answer]);
        assert_eq!(module::authenticate(&stage, &line()), code, "{answer:?}");
        assert_eq!(stage.asked.borrow()[0].flags, ask::FACTOR);
        assert_eq!(stage.kept_factor.get(), code == status::IGNORE);
        assert!(stage.prompts.get() == 0 && stage.armed.borrow().is_empty());
    }
}

#[test]
fn without_the_gate_the_factor_line_goes_by_on_error() {
    let gone = || Err(Error::Open(libc::ENOENT));
    let stage = Stage::new([gone()]);
    assert_eq!(module::authenticate(&stage, &line()), status::CRED_UNAVAIL);
    let stage = Stage::new([gone()]);
    let deny = Options { on_error: OnError::Deny, ..line() };
    assert_eq!(module::authenticate(&stage, &deny), status::AUTH_ERR);
    let stage = Stage::new([Err(Error::Open(libc::EMFILE))]);
    assert_eq!(module::authenticate(&stage, &line()), status::AUTH_ERR, "the caller may have caused it");
}

#[test]
fn a_soft_lock_is_open_to_stacks_that_say_so() {
    for (offers, flags) in [(true, ask::FACTOR), (false, 0)] {
        let stage = Stage::new([answer(verdict::ADMITTED)]);
        module::authenticate(&stage, &Options { offers_factor: offers, ..Options::default() });
        assert_eq!(stage.asked.borrow()[0].flags, flags);
    }
    // The account phase: by the handle that asked for it, and by no other.
    for (kept, flags) in [(true, ask::LOGON | ask::FACTOR), (false, ask::LOGON)] {
        let stage = Stage { service: b"sshd", ..Stage::new([check(0, 0)]) };
        stage.kept_factor.set(kept);
        module::account::account(&stage, &Options::default());
        assert_eq!(stage.asked.borrow()[0].flags, flags);
    }
}
