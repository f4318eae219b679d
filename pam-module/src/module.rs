//! What the module decides.
//!
//! * auth: let the password be entered, reserve a guess, go on (PAM_IGNORE) or refuse (PAM_AUTH_ERR after a delay).
//! * setcred: confirm the pass, which clears the failures.
//! * [`factor`]: the line that has another factor asked for.
//! * [`account`]: refuse a locked account in logon services.
//! * [`change`]: passwd's question for the current password.
//! * [`conversation`]: for stacks whose modules ask themselves, charge at the first answer.

pub mod account;
pub mod change;
pub mod conversation;
mod factor;
mod reserve;
mod trouble;
mod who;

use std::time::Duration;

use libc::c_int;
use portcullis_common::abi::{Answer, Request, UNKNOWN, ask, flag, op, outcome, verdict};
use portcullis_common::ledger::NEVER;
use portcullis_common::link::Link;

use crate::options::{Charge, Options};
use crate::status;
use crate::world::{Attempt, Level, World};
use trouble::{Trouble, unreachable_gate};

/// Delay of a refusal: what pam_unix asks for after a wrong password (pam_fail_delay(3)).
const REFUSAL_DELAY: Duration = Duration::from_secs(2);
/// What a user whose account is locked is told.
const LOCKED: &str = "The account is locked after too many failed logons.";
/// What a user is told whose source is locked out of the account.
const LOCKED_HERE: &str = "Too many failed logons to this account from here.";
/// The longest delay before a guess is checked, whatever the gate says.
const LONGEST_DELAY: Duration = Duration::from_secs(300);
/// pam_sm_authenticate.
pub fn authenticate(world: &impl World, options: &Options) -> c_int {
    complain(world, options);
    if options.factor {
        return factor::ask_for(world, options);
    }
    let user = match world.user() {
        Ok(user) => user,
        Err(code) => return paused(code),
    };
    match options.charge {
        // Without our own prompt pam_unix would ask, and the guess would go uncharged: an error ends the stack.
        Charge::Submit => {
            if let Err(code) = world.password() {
                if code != status::CONV_AGAIN {
                    abandoned(world, &user);
                }
                return paused(code);
            }
        }
        // What an earlier module left there will be tried without a prompt: it was submitted already.
        Charge::Conversation if !world.has_password() => return conversation::begin(world, options, user),
        Charge::Conversation | Charge::Begin => {}
    }
    match charge(world, options, &user) {
        Charged::Attempt(attempt) => go_on(world, attempt),
        Charged::Nothing => status::IGNORE,
        Charged::Refused(code) => code,
    }
}

/// pam_sm_setcred: only establishing and reinitializing credentials confirms a login.
///
/// The account is the one that this handle admitted, not PAM_USER: sudo has put its target there by now. PAM_USER counts
/// where the attempt was on another handle, in sshd's keyboard-interactive child.
pub fn set_credentials(world: &impl World, establishes: bool) -> c_int {
    let named = || world.user().ok().and_then(|user| world.uid(&user).ok().flatten());
    // Who is not root has no confirmation to give: any program could give it.
    if establishes
        && !cfg!(feature = "mutation-skip-confirm")
        && world.effective_uid() == 0
        && let Some(uid) = world.kept_account().or_else(named)
    {
        let mut request = Request::new(op::CONFIRM, u64::from(uid));
        request.entry.detail = who::detail(world);
        // login(1) opens the session first, whose pam_loginuid has named the new user by now: not who asked.
        if request.entry.detail.uid == uid && world.real_uid() == 0 {
            request.entry.detail.uid = 0;
        }
        // No answer clears nothing: the failures age.
        let confirmed = world.ask(&request).and_then(|answer| {
            if answer.flags & flag::PAIRS == 0 {
                return Ok(answer);
            }
            request.flags = ask::PAIR;
            world.ask(&request)
        });
        if let Err(error) = confirmed {
            world.log(
                Level::Warning,
                &format!("login not confirmed, its earlier failures stay on the books: {error}"),
            );
        }
    }
    status::IGNORE
}

/// The stack has ended with `status`: tells the gate.
pub fn resolve(world: &impl World, mut attempt: Attempt, status: c_int) {
    reserve::tell_all(world, &mut attempt, status::outcome_of(status), status);
    attempt.link.close();
}

/// What came of an attempt to charge a guess.
#[derive(Clone, Copy, Debug)]
enum Charged {
    /// A guess is reserved (or the account is exempt): to be resolved.
    Attempt(Attempt),
    /// Go on, uncounted.
    Nothing,
    /// Refuse, with this code.
    Refused(c_int),
}

/// Reserves a guess for `user`, or says why not.
fn charge(world: &impl World, options: &Options, user: &[u8]) -> Charged {
    let uncounted = |trouble: &Trouble| match unreachable_gate(world, options, user, trouble) {
        status::IGNORE => Charged::Nothing,
        code => Charged::Refused(code),
    };
    let account = match who::account_of(world, user) {
        Ok(account) => account,
        Err(trouble) => return uncounted(&trouble),
    };
    let mut request = Request::new(op::ADMIT, account);
    request.flags = if options.offers_factor { ask::FACTOR } else { 0 };
    request.entry.detail = who::detail(world);
    let mut link = Link::NONE;
    let (answer, pair) = match reserve::reserve(world, &mut request, &mut link, options.wait) {
        Ok(reserved) => reserved,
        Err(trouble) => return uncounted(&Trouble::Gate(trouble)),
    };
    if answer.verdict == verdict::ADMITTED {
        if let Ok(uid) = u32::try_from(account) {
            world.keep_account(uid);
        }
        // The price of the failures on the books. The guess is out meanwhile: many at once gain nothing.
        world.sleep(Duration::from_nanos(answer.delay).min(LONGEST_DELAY));
        return Charged::Attempt(Attempt { request, pair, link });
    }
    link.close();
    match answer.verdict {
        verdict::LOCKED | verdict::BUSY => Charged::Refused(refuse(world, options, account, &answer)),
        // A table of invented names that is full: no such user can log in.
        verdict::UNCOUNTED if account & UNKNOWN != 0 => Charged::Nothing,
        other => uncounted(&Trouble::Verdict(other)),
    }
}

/// Nobody answered the prompt (Ctrl-D): nothing is charged, but told, so that the program's failed end has its record.
fn abandoned(world: &impl World, user: &[u8]) {
    if world.effective_uid() != 0 {
        return;
    }
    let Ok(account) = who::account_of(world, user) else { return };
    let mut request = Request::new(op::CHECK, account);
    request.flags = ask::ABANDONED;
    request.entry.detail = who::detail(world);
    if let Err(error) = world.ask(&request) {
        world.log(Level::Notice, &format!("a prompt that nobody answered is not told of: {error}"));
    }
}

fn go_on(world: &impl World, attempt: Attempt) -> c_int {
    match world.arm(attempt) {
        Ok(()) if cfg!(feature = "mutation-grant") => status::SUCCESS,
        Ok(()) => status::IGNORE,
        Err(code) => {
            give_back(world, attempt);
            world.log(Level::Error, &format!("attempt refused: libpam took no delay function (code {code})"));
            status::AUTH_ERR
        }
    }
}

/// Only lack of memory gets here. Nothing was checked, so nothing is charged; the caller may have caused it, so nothing
/// is let through.
fn give_back(world: &impl World, mut attempt: Attempt) {
    reserve::tell_all(world, &mut attempt, outcome::VOID, 0);
    attempt.link.close();
}

fn refuse(world: &impl World, options: &Options, account: u64, answer: &Answer) -> c_int {
    let locked = answer.verdict != verdict::BUSY;
    let pair = answer.flags & flag::PAIR != 0;
    let who = if account & UNKNOWN == 0 { format!("uid {account}") } else { "unknown user".to_owned() };
    let who = if pair { format!("{who}, from this source,") } else { who };
    let text = if locked && answer.locked_until == NEVER {
        format!("{who} refused: locked until an administrator releases it (portcullis unlock)")
    } else if locked {
        let left = answer.locked_until.saturating_sub(answer.now).div_ceil(1_000_000_000);
        format!("{who} refused: locked for another {left} s")
    } else {
        format!(
            "{who} refused: {} guesses are under way and none ended within the wait (deny = {})",
            answer.reservations, answer.deny
        )
    };
    world.log(Level::Notice, &text);
    if !options.silent {
        world.tell(if locked && pair {
            LOCKED_HERE
        } else if locked {
            LOCKED
        } else {
            "Too many logons to this account at once. Try again."
        });
    }
    world.fail_delay(REFUSAL_DELAY);
    status::AUTH_ERR
}

/// Words of the line that were not understood.
fn complain(world: &impl World, options: &Options) {
    for word in &options.unknown {
        world.log(
            Level::Error,
            &format!(
                "option \"{word}\" is not known and was passed over: correct the pam_portcullis.so line (see pam_portcullis(8))"
            ),
        );
    }
}

/// A prompt that will be answered later comes back as PAM_INCOMPLETE; an error without a code is PAM_SERVICE_ERR.
fn paused(code: c_int) -> c_int {
    match code {
        status::CONV_AGAIN => status::INCOMPLETE,
        status::SUCCESS | status::IGNORE => status::SERVICE_ERR,
        code => code,
    }
}
