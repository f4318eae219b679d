//! What the module decides.
//!
//! * auth: let the password be entered, reserve a guess, go on (PAM_IGNORE) or refuse (PAM_AUTH_ERR after a delay).
//! * setcred: confirm the pass, which clears the failures.
//! * account: refuse a locked account in logon services; a lock is no obstacle to cron, root's su or a user manager.

use std::net::IpAddr;
use std::time::Duration;

use libc::c_int;
use portcullis_common::abi::{Answer, Detail, Request, UNKNOWN, ask, op, outcome, source, verdict};
use portcullis_common::client::Error;
use portcullis_common::ledger::NEVER;
use siphasher::sip::SipHasher24;
use std::hash::Hasher as _;

use crate::options::{Charge, OnError, Options};
use crate::status;
use crate::world::{Attempt, Level, World};

/// Delay of a refusal: what pam_unix asks for after a wrong password (pam_fail_delay(3)).
const REFUSAL_DELAY: Duration = Duration::from_secs(2);
/// What a user whose account is locked is told.
const LOCKED: &str = "The account is locked after too many failed logons.";
/// First and longest pause between two tries for a reservation.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(80));
/// Services whose account phase refuses a locked account, whoever calls.
const LOGON_SERVICES: [&[u8]; 15] = [
    b"sshd",
    b"login",
    b"remote",
    b"rlogin",
    b"rsh",
    b"ftp",
    b"vsftpd",
    b"gdm-password",
    b"gdm-fingerprint",
    b"gdm-smartcard",
    b"lightdm",
    b"sddm",
    b"xdm",
    b"greetd",
    b"cockpit",
];
/// Services that refuse only when their caller is not root himself.
const SWITCH_SERVICES: [&[u8]; 3] = [b"su", b"su-l", b"doas"];

/// pam_sm_authenticate.
pub fn authenticate(world: &impl World, options: &Options) -> c_int {
    for word in &options.unknown {
        world.log(
            Level::Error,
            &format!(
                "option \"{word}\" is not known and was passed over: correct the pam_portcullis.so line (see pam_portcullis(8))"
            ),
        );
    }
    let user = match world.user() {
        Ok(user) => user,
        Err(code) => return paused(code),
    };
    if options.charge == Charge::Submit {
        // Without our own prompt pam_unix would ask, and the guess would go uncharged: an error ends the stack.
        if let Err(code) = world.password() {
            return paused(code);
        }
    }
    let account = match account_of(world, &user) {
        Ok(account) => account,
        Err(trouble) => return unreachable_gate(world, options, &user, &trouble),
    };
    let mut request = Request::new(op::ADMIT, account);
    request.entry.detail = detail(world);
    let answer = match admit(world, &mut request, options.wait) {
        Ok(answer) => answer,
        Err(trouble) => return unreachable_gate(world, options, &user, &Trouble::Gate(trouble)),
    };
    match answer.verdict {
        verdict::ADMITTED => {
            request.entry.token = answer.token;
            if let Ok(uid) = u32::try_from(account) {
                world.keep_account(uid);
            }
            go_on(world, request)
        }
        verdict::LOCKED | verdict::BUSY => refuse(world, options, account, &answer),
        // A table of invented names that is full: no such user can log in.
        verdict::UNCOUNTED if account & UNKNOWN != 0 => status::IGNORE,
        other => unreachable_gate(world, options, &user, &Trouble::Verdict(other)),
    }
}

/// pam_sm_setcred: only establishing and reinitializing credentials confirms a login.
///
/// The account is the one that this handle admitted, not PAM_USER: sudo has put its target there by now. PAM_USER counts
/// where the attempt was on another handle, in sshd's keyboard-interactive child.
pub fn set_credentials(world: &impl World, establishes: bool) -> c_int {
    let named = || world.user().ok().and_then(|user| world.uid(&user).ok().flatten());
    if establishes && let Some(uid) = world.kept_account().or_else(named) {
        let mut request = Request::new(op::CONFIRM, u64::from(uid));
        request.entry.detail = detail(world);
        // No answer clears nothing: the failures age.
        if let Err(error) = world.gate(&request) {
            world.log(
                Level::Warning,
                &format!("login not confirmed, its earlier failures stay on the books: {error}"),
            );
        }
    }
    status::IGNORE
}

/// pam_sm_acct_mgmt.
pub fn account(world: &impl World, options: &Options) -> c_int {
    let service = world.service();
    let here = LOGON_SERVICES.contains(&service.as_slice())
        || (SWITCH_SERVICES.contains(&service.as_slice()) && world.real_uid() != 0);
    if !here {
        return status::IGNORE;
    }
    let Ok(user) = world.user() else {
        return status::IGNORE;
    };
    let uid = match world.uid(&user) {
        Ok(Some(uid)) => uid,
        Ok(None) => return status::IGNORE,
        Err(errno) => return unreachable_gate(world, options, &user, &Trouble::Users(errno)),
    };
    let mut request = Request::new(op::CHECK, u64::from(uid));
    request.entry.detail = detail(world);
    match world.gate(&request) {
        Ok(answer) if matches!(answer.verdict, verdict::DONE | verdict::NOTHING) => {
            if answer.locked_until == 0 {
                return status::IGNORE;
            }
            world.log(
                Level::Notice,
                &format!("uid {uid} refused in the account phase: the account is locked"),
            );
            if !options.silent {
                world.tell(LOCKED);
            }
            status::PERM_DENIED
        }
        Ok(answer) => unreachable_gate(world, options, &user, &Trouble::Verdict(answer.verdict)),
        Err(error) => unreachable_gate(world, options, &user, &Trouble::Gate(error)),
    }
}

/// The stack has ended with `status`: tells the gate.
pub fn resolve(world: &impl World, attempt: Attempt, status: c_int) {
    let mut request = attempt.request;
    request.op = op::RESOLVE;
    request.arg = status::outcome_of(status);
    request.entry.detail.status = status;
    if let Err(error) = world.gate(&request) {
        // The reservation becomes a failure by its age, if the gate comes back.
        world.log(Level::Warning, &format!("result of an attempt not recorded: {error}"));
    }
}

/// Why the gate could not be asked.
#[derive(Debug)]
enum Trouble {
    /// The user database failed.
    Users(i32),
    /// The gate failed.
    Gate(Error),
    /// The gate gave an answer that is none.
    Verdict(u32),
}

impl Trouble {
    fn is_callers(&self) -> bool {
        match self {
            Self::Users(errno) => Error::Open(*errno).is_callers(),
            Self::Gate(error) => error.is_callers(),
            Self::Verdict(_) => false,
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Users(errno) => write!(f, "the user database failed: errno {errno}"),
            Self::Gate(error) => write!(f, "{error}"),
            Self::Verdict(verdict::MOVED) => write!(f, "the gate is being replaced"),
            Self::Verdict(verdict::UNCOUNTED) => {
                write!(
                    f,
                    "the gate keeps no row for this account: no configuration loaded, or its table is full"
                )
            }
            Self::Verdict(other) => write!(f, "the gate answered {other}: restart portcullis-gate.service"),
        }
    }
}

/// Asks for a reservation until there is one, the account is locked, or the wait is over.
fn admit(world: &impl World, request: &mut Request, wait: Duration) -> Result<Answer, Error> {
    let mut waited = Duration::ZERO;
    let mut pause = PAUSE.0;
    // Processes that were refused at the same moment come back at different ones.
    let spread = Duration::from_micros(u64::from(request.entry.detail.pid % 16) * 250);
    loop {
        if waited >= wait {
            request.flags = ask::LAST_TRY;
        }
        let answer = world.gate(request)?;
        if answer.verdict != verdict::BUSY || waited >= wait {
            return Ok(answer);
        }
        let time = (pause + spread).min(wait.saturating_sub(waited)).max(Duration::from_millis(1));
        world.sleep(time);
        waited += time;
        pause = (pause * 3 / 2).min(PAUSE.1);
    }
}

fn go_on(world: &impl World, request: Request) -> c_int {
    match world.arm(Attempt { request }) {
        Ok(()) => status::IGNORE,
        Err(code) => {
            // Only lack of memory gets here. Nothing was checked, so nothing is charged; the caller may have caused it,
            // so nothing is let through.
            let mut back = request;
            back.op = op::RESOLVE;
            back.arg = outcome::VOID;
            let _ = world.gate(&back);
            world.log(Level::Error, &format!("attempt refused: libpam took no delay function (code {code})"));
            status::AUTH_ERR
        }
    }
}

fn refuse(world: &impl World, options: &Options, account: u64, answer: &Answer) -> c_int {
    let locked = answer.verdict == verdict::LOCKED;
    let who = if account & UNKNOWN == 0 { format!("uid {account}") } else { "unknown user".to_owned() };
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
        world.tell(if locked { LOCKED } else { "Too many logons to this account at once. Try again." });
    }
    world.fail_delay(REFUSAL_DELAY);
    status::AUTH_ERR
}

/// The documented choice of fail-open or fail-closed.
fn unreachable_gate(world: &impl World, options: &Options, user: &[u8], trouble: &Trouble) -> c_int {
    if trouble.is_callers() {
        world.log(Level::Error, &format!("attempt refused (the caller may have caused this): {trouble}"));
        return status::AUTH_ERR;
    }
    if world.switched_off() {
        return status::IGNORE;
    }
    let local_root = || world.rhost().is_empty() && matches!(world.uid(user), Ok(Some(0)));
    match options.on_error {
        OnError::Ignore => {
            world.log(Level::Warning, &format!("attempt not counted (on_error=ignore): {trouble}"));
            status::IGNORE
        }
        OnError::Deny if local_root() => {
            world.log(Level::Warning, &format!("attempt not counted (root on a local terminal): {trouble}"));
            status::IGNORE
        }
        OnError::Deny => {
            world.log(Level::Error, &format!("attempt refused (on_error=deny): {trouble}"));
            world.fail_delay(REFUSAL_DELAY);
            status::AUTH_ERR
        }
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

/// Accounts are keyed by uid, since directory services take several spellings of a name; names that no user has go by a
/// keyed hash into a table of their own.
fn account_of(world: &impl World, user: &[u8]) -> Result<u64, Trouble> {
    if let Some(uid) = world.uid(user).map_err(Trouble::Users)? {
        return Ok(u64::from(uid));
    }
    let [k0, k1] = world.hash_key().map_err(Trouble::Gate)?;
    let mut hash = SipHasher24::new_with_keys(k0, k1);
    hash.write(user);
    Ok(hash.finish() | UNKNOWN)
}

/// Who asks, from where. RHOST and TTY are a claim unless the caller is root.
fn detail(world: &impl World) -> Detail {
    let (pid, parent) = world.process();
    let mut detail = Detail { uid: world.real_uid(), pid, parent, source: source::LOCAL, ..Detail::EMPTY };
    let trusted = world.effective_uid() == 0;
    copy(&mut detail.service, &world.service());
    if trusted {
        let tty = world.tty();
        copy(&mut detail.tty, tty.strip_prefix(b"/dev/").unwrap_or(&tty));
        let rhost = world.rhost();
        if !rhost.is_empty() {
            detail.source = source::NONE;
            locate(&mut detail, &rhost);
        }
    }
    detail
}

/// Takes a literal address; names are never resolved, so they stay `source::NONE`. IPv4 mapped into IPv6 is IPv4.
fn locate(detail: &mut Detail, rhost: &[u8]) {
    let literal = std::str::from_utf8(rhost).unwrap_or_default();
    let literal = literal.split_once('%').map_or(literal, |(address, _zone)| address);
    match literal.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => {
            detail.source = source::IPV4;
            copy(&mut detail.address, &address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            detail.source = source::IPV6;
            detail.address = address.octets();
        }
        Err(_) => {}
    }
}

fn copy<const N: usize>(to: &mut [u8; N], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}
