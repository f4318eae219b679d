//! Calls of the running gate, by the real client, and what they must answer. `deny` is 3 (tests/demo.toml).

use portcullis_common::abi::{Answer, Detail, Request, flag, op, outcome, source, verdict};
use portcullis_common::client::Gate;
use std::time::{Duration, Instant};

/// A uid that nobody has.
const ACCOUNT: u64 = 1_000_001;
/// The account whose guess is left alone.
const LEFT_ALONE: u64 = 1_000_002;
/// Who guesses.
const ACTOR: u32 = 1_000_003;
const PROCESS: u32 = 4711;
const DENY: u32 = 3;
/// A dead task is counted when the kernel ends it, a moment after others can know.
const PATIENCE: Duration = Duration::from_secs(20);

/// Calls in a row to measure one.
const CALLS: u32 = 1_000;

type Checked<T> = Result<T, String>;

/// One call that must be answered with `wanted`.
fn ask(gate: &Gate, what: &str, request: &Request, wanted: u32) -> Checked<Answer> {
    let answer = gate.call(request).map_err(|error| format!("{what}: {error}"))?;
    if answer.verdict == wanted {
        Ok(answer)
    } else {
        Err(format!("{what}: expected verdict {wanted}, got {answer:?}"))
    }
}

fn see(what: &str, seen: bool, answer: &Answer) -> Checked<()> {
    if seen { Ok(()) } else { Err(format!("{what}: {answer:?}")) }
}

fn request(op: u32, account: u64, arg: u32, token: u64) -> Request {
    let mut request = Request::new(op, account);
    request.arg = arg;
    request.entry.token = token;
    request.entry.detail = Detail { source: source::LOCAL, uid: ACTOR, pid: PROCESS, ..Detail::EMPTY };
    request
}

fn guess(gate: &Gate, result: u32) -> Checked<Answer> {
    let admitted = ask(gate, "admit", &request(op::ADMIT, ACCOUNT, 0, 0), verdict::ADMITTED)?;
    ask(gate, "resolve", &request(op::RESOLVE, ACCOUNT, result, admitted.token), verdict::DONE)
}

/// Every op once: three failures lock, unlock frees, a confirmed pass clears, a lock locks, an idle row goes.
/// Tells what a call takes.
pub fn sequence() -> Checked<String> {
    let gate = Gate::open().map_err(|error| error.to_string())?;
    for count in 1..DENY {
        let answer = guess(&gate, outcome::FAIL)?;
        see("a failure is counted", answer.failures == count && answer.locked_until == 0, &answer)?;
    }
    let answer = guess(&gate, outcome::FAIL)?;
    see(
        "the third failure locks",
        answer.flags & flag::TRIPPED != 0 && answer.locked_until > answer.now,
        &answer,
    )?;
    ask(&gate, "admit while locked", &request(op::ADMIT, ACCOUNT, 0, 0), verdict::LOCKED)?;
    ask(&gate, "unlock", &Request::new(op::UNLOCK, ACCOUNT), verdict::DONE)?;
    let answer = guess(&gate, outcome::FAIL)?;
    see("after the unlock it counts anew", answer.failures == 1, &answer)?;
    let answer = guess(&gate, outcome::PASS)?;
    see("a pass alone clears nothing", answer.failures == 1, &answer)?;
    let answer = ask(&gate, "confirm", &request(op::CONFIRM, ACCOUNT, 0, 0), verdict::DONE)?;
    see("a confirmed pass clears", answer.failures == 0, &answer)?;
    let mut lock = Request::new(op::LOCK, ACCOUNT);
    lock.until = u64::MAX;
    ask(&gate, "lock", &lock, verdict::DONE)?;
    let answer = ask(&gate, "check", &Request::new(op::CHECK, ACCOUNT), verdict::DONE)?;
    see("a lock without an end stays", answer.locked_until == u64::MAX, &answer)?;
    ask(&gate, "admit under that lock", &request(op::ADMIT, ACCOUNT, 0, 0), verdict::LOCKED)?;
    ask(&gate, "unlock again", &Request::new(op::UNLOCK, ACCOUNT), verdict::DONE)?;
    ask(&gate, "forget", &Request::new(op::FORGET, ACCOUNT), verdict::DONE)?;
    ask(&gate, "check what is gone", &Request::new(op::CHECK, ACCOUNT), verdict::NOTHING)?;
    let started = Instant::now();
    for _ in 0..CALLS {
        ask(&gate, "check", &Request::new(op::CHECK, ACCOUNT), verdict::NOTHING)?;
    }
    Ok(format!("{} µs each", started.elapsed().as_micros() / u128::from(CALLS)))
}

/// A task that ends with a guess out has failed, at once: long before its maximum age.
pub fn death() -> Checked<String> {
    let task = std::thread::spawn(|| {
        let gate = Gate::open().map_err(|error| error.to_string())?;
        ask(&gate, "admit", &request(op::ADMIT, LEFT_ALONE, 0, 0), verdict::ADMITTED)
    });
    task.join().map_err(|_| "the guessing thread panicked".to_owned())??;
    let gate = Gate::open().map_err(|error| error.to_string())?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask(&gate, "check", &Request::new(op::CHECK, LEFT_ALONE), verdict::DONE)?;
        if answer.failures == 1 && answer.reservations == 0 {
            return Ok(String::new());
        }
        see("a dead task's guess is a failure", Instant::now() < deadline, &answer)?;
        std::thread::yield_now();
    }
}
