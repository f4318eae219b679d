//! Reserves a guess: at the account, and in classes that count pairs at the pair of account and source first.
//!
//! Invariants: a guess goes on only with everything reserved that its class asks for; what was reserved for a guess that
//! does not go on is returned. The pair comes first: a program that is killed between the two has hurt its own pair alone.

use std::time::Duration;

use portcullis_common::abi::{Answer, Request, ask, flag, op, outcome, verdict};
use portcullis_common::client::Error;
use portcullis_common::link::Link;

use crate::world::{Attempt, Level, World};

/// First and longest pause between two tries for a reservation.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(80));

/// Waiting for one attempt's reservations.
struct Waiting {
    waited: Duration,
    most: Duration,
}

/// Asks for what a guess needs. The answer is that of the row that had the last word; `request` has the token, the second
/// number is that of the pair (0: none).
pub fn reserve(
    world: &impl World,
    request: &mut Request,
    link: &mut Link,
    wait: Duration,
) -> Result<(Answer, u64), Error> {
    let asked = request.flags;
    let mut waiting = Waiting { waited: Duration::ZERO, most: wait };
    let first = admit(world, request, link, &mut waiting)?;
    if first.verdict != verdict::PAIR {
        request.entry.token = first.token;
        return Ok((first, 0));
    }
    let mut pair = *request;
    pair.flags = asked | ask::PAIR;
    let at_pair = admit(world, &mut pair, link, &mut waiting)?;
    // No room for the pair, or a class that has none any more: the account's own limit holds.
    if !matches!(at_pair.verdict, verdict::ADMITTED | verdict::UNCOUNTED) {
        return Ok((at_pair, 0));
    }
    request.flags = asked | ask::PAIRED;
    let at_account = admit(world, request, link, &mut waiting);
    match at_account {
        Ok(mut answer) if answer.verdict == verdict::ADMITTED => {
            request.entry.token = answer.token;
            answer.delay = answer.delay.max(at_pair.delay);
            Ok((answer, at_pair.token))
        }
        refused => {
            if at_pair.token != 0 && !cfg!(feature = "mutation-keep-pair") {
                pair.entry.token = at_pair.token;
                tell(world, &mut pair, link, outcome::VOID);
            }
            refused.map(|answer| (answer, 0))
        }
    }
}

/// Tells what became of an attempt, to every row that holds a reservation of it.
pub fn tell_all(world: &impl World, attempt: &mut Attempt, outcome: u32, status: i32) {
    let mut request = attempt.request;
    request.entry.detail.status = status;
    request.flags = 0;
    tell(world, &mut request, &mut attempt.link, outcome);
    if attempt.pair != 0 {
        request.flags = ask::PAIR;
        request.entry.token = attempt.pair;
        tell(world, &mut request, &mut attempt.link, outcome);
    }
}

fn tell(world: &impl World, request: &mut Request, link: &mut Link, outcome: u32) {
    request.op = op::RESOLVE;
    request.arg = outcome;
    if let Err(error) = world.settled(request, link) {
        // The reservation becomes a failure by its age, if the gate comes back.
        world.log(Level::Warning, &format!("result of an attempt not recorded: {error}"));
    }
}

/// Asks about the account, and where its class counts pairs about the pair, too, unless the first answer is a lock.
pub fn ask_both(world: &impl World, request: &Request) -> Result<Answer, Error> {
    let answer = world.ask(request)?;
    if answer.flags & flag::PAIRS == 0 || answer.refuses() {
        return Ok(answer);
    }
    let mut pair = *request;
    pair.flags |= ask::PAIR;
    let at_pair = world.ask(&pair)?;
    Ok(if at_pair.refuses() { at_pair } else { answer })
}

/// Asks for a reservation until there is one, the row is locked, or the wait is over: for others' guesses to end, for a
/// gate that is being replaced, or for a row that is being deleted.
fn admit(
    world: &impl World,
    request: &mut Request,
    link: &mut Link,
    waiting: &mut Waiting,
) -> Result<Answer, Error> {
    let mut pause = PAUSE.0;
    // Processes that were refused at the same moment come back at different ones.
    let spread = Duration::from_micros(u64::from(request.entry.detail.pid % 16) * 250);
    loop {
        if waiting.waited >= waiting.most {
            request.flags |= ask::LAST_TRY;
        }
        let answer = world.gate(request, link)?;
        if !matches!(answer.verdict, verdict::BUSY | verdict::MOVED | verdict::AGAIN)
            || waiting.waited >= waiting.most
            || cfg!(feature = "mutation-no-wait")
        {
            return Ok(answer);
        }
        let left = waiting.most.saturating_sub(waiting.waited);
        let time = (pause + spread).min(left).max(Duration::from_millis(1));
        world.sleep(time);
        waiting.waited += time;
        pause = (pause * 3 / 2).min(PAUSE.1);
    }
}
