//! The module's decisions against a world made for the test: every answer of the gate, every trouble, every option.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Duration;

use libc::c_int;
use portcullis_common::abi::{
    Answer, Request, UNKNOWN, ask, flag, op, outcome, source, unreachable, verdict,
};
use portcullis_common::client::Error;
use portcullis_common::link::Link;

use crate::module::conversation::{Answered, Pending, answered};
use crate::options::{Charge, OnError, Options};
use crate::world::{Attempt, Level, World};
use crate::{module, status};

mod factor;
mod pair;

struct Stage {
    user: Result<Vec<u8>, c_int>,
    password: Result<(), c_int>,
    service: &'static [u8],
    rhost: &'static [u8],
    uid: Result<Option<u32>, i32>,
    real_uid: u32,
    login_uid: Option<u32>,
    effective_uid: u32,
    off: bool,
    answers: RefCell<VecDeque<Result<Answer, Error>>>,
    asked: RefCell<Vec<Request>>,
    armed: RefCell<Vec<Attempt>>,
    delayed: Cell<Duration>,
    slept: Cell<Duration>,
    prompts: Cell<u32>,
    log: RefCell<Vec<String>>,
    told: RefCell<Vec<String>>,
    kept: Cell<Option<u32>>,
    trouble: Cell<bool>,
    kept_factor: Cell<bool>,
    stacked: bool,
    noted: RefCell<Vec<u8>>,
    listening: RefCell<Vec<Pending>>,
}

impl Stage {
    fn new(answers: impl IntoIterator<Item = Result<Answer, Error>>) -> Self {
        Self {
            user: Ok(b"jon".to_vec()),
            password: Ok(()),
            service: b"su",
            rhost: b"",
            uid: Ok(Some(2002)),
            real_uid: 2001,
            login_uid: None,
            effective_uid: 0,
            off: false,
            answers: RefCell::new(answers.into_iter().collect()),
            asked: RefCell::default(),
            armed: RefCell::default(),
            delayed: Cell::default(),
            slept: Cell::default(),
            prompts: Cell::default(),
            log: RefCell::default(),
            told: RefCell::default(),
            kept: Cell::default(),
            trouble: Cell::default(),
            kept_factor: Cell::default(),
            stacked: false,
            noted: RefCell::default(),
            listening: RefCell::default(),
        }
    }
}

impl World for Stage {
    fn user(&self) -> Result<Vec<u8>, c_int> {
        self.user.clone()
    }
    fn password(&self) -> Result<(), c_int> {
        self.prompts.set(self.prompts.get() + 1);
        self.password
    }
    fn service(&self) -> Vec<u8> {
        self.service.to_vec()
    }
    fn tty(&self) -> Vec<u8> {
        b"/dev/pts/3".to_vec()
    }
    fn rhost(&self) -> Vec<u8> {
        self.rhost.to_vec()
    }
    fn uid(&self, _user: &[u8]) -> Result<Option<u32>, i32> {
        self.uid
    }
    fn hash_key(&self) -> Result<[u64; 2], Error> {
        Ok([1, 2])
    }
    fn real_uid(&self) -> u32 {
        self.real_uid
    }
    fn login_uid(&self) -> Option<u32> {
        self.login_uid
    }
    fn effective_uid(&self) -> u32 {
        self.effective_uid
    }
    fn process(&self) -> (u32, u32) {
        (100, 99)
    }
    fn switched_off(&self) -> bool {
        self.off
    }
    fn gate(&self, request: &Request, _link: &mut Link) -> Result<Answer, Error> {
        self.asked.borrow_mut().push(*request);
        self.answers.borrow_mut().pop_front().expect("one call of the gate too many")
    }
    fn keep_account(&self, uid: u32) {
        self.kept.set(Some(uid));
    }
    fn kept_account(&self) -> Option<u32> {
        self.kept.get()
    }
    fn keep_trouble(&self) {
        self.trouble.set(true);
    }
    fn trouble_kept(&self) -> bool {
        self.trouble.get()
    }
    fn keep_factor(&self) {
        self.kept_factor.set(true);
    }
    fn kept_factor(&self) -> bool {
        self.kept_factor.get()
    }
    fn arm(&self, attempt: Attempt) -> Result<(), c_int> {
        self.armed.borrow_mut().push(attempt);
        Ok(())
    }
    fn has_password(&self) -> bool {
        self.stacked
    }
    fn current_password(&self) -> Result<(), c_int> {
        self.prompts.set(self.prompts.get() + 1);
        self.password
    }
    fn listen(&self, pending: Pending) -> Result<(), c_int> {
        self.listening.borrow_mut().push(pending);
        Ok(())
    }
    fn note(&self, what: u8) {
        self.noted.borrow_mut().push(what);
    }
    fn passed(&self) {
        for attempt in self.armed.take() {
            module::resolve(self, attempt, status::SUCCESS);
        }
    }
    fn fail_delay(&self, delay: Duration) {
        self.delayed.set(delay);
    }
    fn sleep(&self, time: Duration) {
        self.slept.set(self.slept.get() + time);
    }
    fn log(&self, _level: Level, text: &str) {
        self.log.borrow_mut().push(text.to_owned());
    }
    fn tell(&self, text: &str) {
        self.told.borrow_mut().push(text.to_owned());
    }
}

fn answer(verdict: u32) -> Result<Answer, Error> {
    Ok(Answer { verdict, token: 42, now: 1, ..Answer::default() })
}

fn authenticate(stage: &Stage) -> c_int {
    module::authenticate(stage, &Options::default())
}

#[test]
fn an_admitted_guess_goes_on_and_is_armed_with_its_token() {
    let stage = Stage::new([answer(verdict::ADMITTED)]);
    assert_eq!(authenticate(&stage), status::IGNORE);
    let armed = stage.armed.borrow();
    assert_eq!(armed[0].request.entry.token, 42);
    let detail = armed[0].request.entry.detail;
    assert_eq!((detail.source, detail.uid, &detail.tty[..6]), (source::LOCAL, 2001, &b"pts/3\0"[..]));
}

#[test]
fn who_logged_in_at_first_answers_for_what_he_does_as_others() {
    let of = |stage: Stage| {
        authenticate(&stage);
        let armed = stage.armed.borrow();
        (armed[0].request.entry.detail.source, armed[0].request.entry.detail.uid)
    };
    let hop = |answers| Stage { login_uid: Some(2003), ..Stage::new(answers) };
    assert_eq!(of(hop([answer(verdict::ADMITTED)])), (source::LOCAL, 2003));
    // From elsewhere the address answers; who is not root may claim nothing.
    let remote = Stage { rhost: b"192.0.2.7", ..hop([answer(verdict::ADMITTED)]) };
    assert_eq!(of(remote), (source::IPV4, 2001));
    let claim = Stage { effective_uid: 2001, ..hop([answer(verdict::ADMITTED)]) };
    assert_eq!(of(claim), (source::LOCAL, 2001));
}

#[test]
fn a_prompt_without_an_answer_is_told_and_charges_nothing() {
    let stage = Stage { password: Err(status::CONV_ERR), ..Stage::new([answer(verdict::DONE)]) };
    assert_eq!(authenticate(&stage), status::CONV_ERR);
    let asked = stage.asked.borrow();
    assert_eq!((asked.len(), asked[0].op, asked[0].flags), (1, op::CHECK, ask::ABANDONED));
}

#[test]
fn a_locked_account_is_refused_after_the_prompt_with_a_delay() {
    let stage = Stage::new([answer(verdict::LOCKED)]);
    assert_eq!(authenticate(&stage), status::AUTH_ERR);
    assert_eq!(stage.prompts.get(), 1);
    assert_eq!(stage.delayed.get(), Duration::from_secs(2));
    assert!(stage.armed.borrow().is_empty());
    assert_eq!(stage.told.borrow().len(), 1);
    let silent = Stage::new([answer(verdict::LOCKED)]);
    module::authenticate(&silent, &Options { silent: true, ..Options::default() });
    assert!(silent.told.borrow().is_empty());
}

#[test]
fn busy_is_waited_for_within_bounds_and_the_last_try_says_so() {
    let stage = Stage::new([answer(verdict::BUSY), answer(verdict::BUSY), answer(verdict::ADMITTED)]);
    assert_eq!(authenticate(&stage), status::IGNORE);
    let stage = Stage::new((0..10_000).map(|_| answer(verdict::BUSY)));
    assert_eq!(authenticate(&stage), status::AUTH_ERR);
    assert_eq!(stage.slept.get(), Duration::from_secs(10));
    let asked = stage.asked.borrow();
    assert_eq!(asked.last().map(|request| request.flags), Some(ask::LAST_TRY));
    assert!(asked.iter().rev().skip(1).all(|request| request.flags == 0));
}

#[test]
fn a_gate_that_is_being_replaced_is_waited_for_within_bounds() {
    waited_for_within_bounds(|| answer(verdict::MOVED));
}

#[test]
fn a_row_that_is_being_deleted_is_waited_for_within_bounds() {
    waited_for_within_bounds(|| answer(verdict::AGAIN));
}

fn waited_for_within_bounds(moved: fn() -> Result<Answer, Error>) {
    let stage = Stage::new([moved(), moved(), answer(verdict::ADMITTED), moved(), answer(verdict::DONE)]);
    assert_eq!(authenticate(&stage), status::IGNORE);
    assert_eq!(stage.armed.borrow().len(), 1);
    // The result too.
    stage.passed();
    assert_eq!(stage.asked.borrow().last().map(|request| request.op), Some(op::RESOLVE));
    assert!(stage.answers.borrow().is_empty());
    let stage = Stage::new((0..10_000).map(|_| moved()));
    let deny = Options { on_error: OnError::Deny, ..Options::default() };
    assert_eq!(module::authenticate(&stage, &deny), status::AUTH_ERR);
    assert_eq!(stage.slept.get(), Duration::from_secs(10));
}

#[test]
fn an_aborted_prompt_costs_nothing_and_is_never_ignored() {
    for code in [19, 20, 26, status::SUCCESS, status::IGNORE] {
        let stage = Stage { password: Err(code), ..Stage::new([answer(verdict::DONE)]) };
        let result = authenticate(&stage);
        assert!(result != status::IGNORE && result != status::SUCCESS, "code {code} became {result}");
        // Told, not charged.
        let asked = stage.asked.borrow();
        assert!(asked.iter().all(|one| (one.op, one.flags) == (op::CHECK, ask::ABANDONED)), "code {code}");
    }
}

#[test]
fn begin_charges_without_a_prompt() {
    let stage = Stage::new([answer(verdict::ADMITTED)]);
    let options = Options { charge: Charge::Begin, ..Options::default() };
    assert_eq!(module::authenticate(&stage, &options), status::IGNORE);
    assert_eq!(stage.prompts.get(), 0);
}

#[test]
fn errors_a_caller_can_cause_always_refuse() {
    for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EINTR] {
        for error in [Error::Open(errno), Error::Run(errno)] {
            let stage = Stage::new([Err(error)]);
            assert_eq!(authenticate(&stage), status::AUTH_ERR, "{error:?}");
        }
        let stage = Stage { uid: Err(errno), ..Stage::new([]) };
        assert_eq!(authenticate(&stage), status::AUTH_ERR);
    }
}

#[test]
fn an_unreachable_gate_is_the_lines_choice() {
    let gone = || Stage::new([Err(Error::Open(libc::ENOENT))]);
    let deny = Options { on_error: OnError::Deny, ..Options::default() };
    let stage = gone();
    assert_eq!(authenticate(&stage), status::IGNORE);
    assert_eq!(stage.log.borrow().len(), 1, "fail-open is visible");
    assert_eq!(*stage.noted.borrow(), [unreachable::IGNORED]);
    let stage = gone();
    assert_eq!(module::authenticate(&stage, &deny), status::AUTH_ERR);
    assert_eq!(*stage.noted.borrow(), [unreachable::REFUSED]);
    let root = Stage { uid: Ok(Some(0)), ..gone() };
    assert_eq!(module::authenticate(&root, &deny), status::IGNORE, "root on a local terminal");
    let far = Stage { uid: Ok(Some(0)), rhost: b"192.0.2.1", ..gone() };
    assert_eq!(module::authenticate(&far, &deny), status::AUTH_ERR);
    let off = Stage { off: true, ..gone() };
    assert_eq!(module::authenticate(&off, &deny), status::IGNORE, "the word on the kernel command line");
}

#[test]
fn the_account_phase_does_not_repeat_what_the_attempt_said() {
    let gone = || Err(Error::Open(libc::ENOENT));
    let stage = Stage { service: b"sshd", ..Stage::new([gone(), gone()]) };
    assert_eq!(authenticate(&stage), status::IGNORE);
    assert_eq!(module::account::account(&stage, &Options::default()), status::IGNORE);
    assert_eq!((stage.log.borrow().len(), stage.noted.borrow().len()), (1, 1));
    // A logon by a key has no attempt before it.
    let stage = Stage { service: b"sshd", ..Stage::new([gone()]) };
    assert_eq!(module::account::account(&stage, &Options::default()), status::IGNORE);
    assert_eq!((stage.log.borrow().len(), stage.noted.borrow().len()), (1, 1));
}

#[test]
fn a_broken_user_database_is_the_lines_choice() {
    let broken = || Stage { uid: Err(libc::EIO), ..Stage::new([]) };
    let deny = Options { on_error: OnError::Deny, ..Options::default() };
    let stage = broken();
    assert_eq!(authenticate(&stage), status::IGNORE);
    assert!(stage.log.borrow()[0].contains("the user database failed: errno 5"), "{:?}", stage.log);
    assert_eq!(*stage.noted.borrow(), [unreachable::IGNORED]);
    let stage = broken();
    assert_eq!(module::authenticate(&stage, &deny), status::AUTH_ERR);
    assert_eq!(*stage.noted.borrow(), [unreachable::REFUSED]);
}

#[test]
fn unknown_names_go_by_a_hash_and_a_full_table_of_them_is_no_error() {
    let stage = Stage { uid: Ok(None), ..Stage::new([answer(verdict::UNCOUNTED)]) };
    assert_eq!(
        module::authenticate(&stage, &Options { on_error: OnError::Deny, ..Options::default() }),
        status::IGNORE
    );
    assert!(stage.asked.borrow()[0].entry.account & UNKNOWN != 0);
}

#[test]
fn sources_are_literal_addresses_of_root_callers_only() {
    let kind = |rhost: &'static [u8], effective_uid| {
        let stage = Stage { rhost, effective_uid, ..Stage::new([answer(verdict::ADMITTED)]) };
        authenticate(&stage);
        let detail = stage.asked.borrow()[0].entry.detail;
        (detail.source, detail.address)
    };
    let home = [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for rhost in [&b"127.0.0.1"[..], b"127.0.0.77", b"127.200.3.4", b"::1", b"::ffff:127.9.9.9"] {
        assert_eq!(kind(rhost, 0), (source::IPV4, home), "the host itself is one source");
    }
    let v4 = |a: u8| {
        let mut address = [0; 16];
        address[..4].copy_from_slice(&[192, 0, 2, a]);
        address
    };
    assert_eq!(kind(b"192.0.2.7", 0), (source::IPV4, v4(7)));
    assert_eq!(kind(b"::ffff:192.0.2.8", 0), (source::IPV4, v4(8)), "IPv4 in IPv6 is IPv4");
    assert_eq!(kind(b"fe80::1%eth0", 0).0, source::IPV6);
    assert_eq!(kind(b"attacker.example", 0).0, source::NONE, "names are never resolved");
    assert_eq!(kind(b"\xff\xfe\x01", 0).0, source::NONE);
    assert_eq!(kind(b"192.0.2.7", 2001).0, source::LOCAL, "a claim");
}

#[test]
fn the_result_is_told_with_its_status() {
    let stage = Stage::new([answer(verdict::DONE)]);
    let attempt = Attempt { request: Request::new(op::ADMIT, 2002), pair: 0, link: Link::NONE };
    module::resolve(&stage, attempt, status::AUTH_ERR);
    let asked = stage.asked.borrow();
    assert_eq!((asked[0].op, asked[0].arg, asked[0].entry.detail.status), (op::RESOLVE, outcome::FAIL, 7));
}

#[test]
fn every_status_has_an_outcome() {
    let passes = [0, 12, 13];
    let voids = [1, 2, 3, 4, 5, 9, 26, 28, 29];
    for code in -5..64 {
        let expected = if passes.contains(&code) {
            outcome::PASS
        } else if voids.contains(&code) {
            outcome::VOID
        } else {
            outcome::FAIL
        };
        assert_eq!(status::outcome_of(code), expected, "status {code}");
    }
}

#[test]
fn only_establishing_credentials_confirms() {
    let stage = Stage::new([answer(verdict::DONE)]);
    assert_eq!(module::set_credentials(&stage, false), status::IGNORE);
    assert!(stage.asked.borrow().is_empty());
    assert_eq!(module::set_credentials(&stage, true), status::IGNORE);
    assert_eq!(stage.asked.borrow()[0].op, op::CONFIRM);
}

#[test]
fn the_account_that_was_admitted_is_confirmed_whoever_pam_user_is_by_then() {
    let mut stage = Stage::new([answer(verdict::ADMITTED), answer(verdict::DONE)]);
    assert_eq!(authenticate(&stage), status::IGNORE);
    // What sudo does before setcred.
    stage.user = Ok(b"root".to_vec());
    stage.uid = Ok(Some(0));
    assert_eq!(module::set_credentials(&stage, true), status::IGNORE);
    assert_eq!(stage.asked.borrow()[1].entry.account, 2002);
    // Another handle than the one that carried the attempt: sshd's keyboard-interactive.
    let stage = Stage::new([answer(verdict::DONE)]);
    assert_eq!(module::set_credentials(&stage, true), status::IGNORE);
    assert_eq!(stage.asked.borrow()[0].entry.account, 2002);
}

#[test]
fn the_account_phase_refuses_logons_only() {
    let locked = || Ok(Answer { verdict: verdict::DONE, locked_until: 9, now: 1, ..Answer::default() });
    let code = |service: &'static [u8], real_uid, answers: Vec<Result<Answer, Error>>| {
        module::account::account(&Stage { service, real_uid, ..Stage::new(answers) }, &Options::default())
    };
    assert_eq!(code(b"sshd", 0, vec![locked()]), status::PERM_DENIED);
    assert_eq!(code(b"su", 2001, vec![locked()]), status::PERM_DENIED);
    assert_eq!(code(b"su", 0, vec![]), status::IGNORE, "root's su");
    assert_eq!(code(b"cron", 0, vec![]), status::IGNORE);
    assert_eq!(code(b"systemd-user", 0, vec![]), status::IGNORE);
    assert_eq!(code(b"sshd", 0, vec![answer(verdict::NOTHING)]), status::IGNORE);
}

#[test]
fn a_word_that_is_not_known_changes_nothing_but_the_log() {
    let words =
        [&b"on_eror=deny"[..], b"wait=2s", b"wait=-1", b"wait=99999999999999999999", b"silent", b"\xff"];
    let options = Options::parse(words.into_iter());
    assert_eq!(options.wait, Duration::from_secs(2));
    assert_eq!((options.on_error, options.silent, options.unknown.len()), (OnError::Ignore, true, 4));
}

/// A world with `charge=conversation`.
fn conversing(answers: impl IntoIterator<Item = Result<Answer, Error>>) -> (Stage, Options) {
    (Stage::new(answers), Options { charge: Charge::Conversation, ..Options::default() })
}

#[test]
fn a_conversation_is_charged_at_its_first_answer_and_not_before() {
    let (stage, options) = conversing([answer(verdict::NOTHING), answer(verdict::ADMITTED)]);
    assert_eq!(module::authenticate(&stage, &options), status::IGNORE);
    // We ask for nothing ourselves, and nothing is charged yet.
    assert_eq!((stage.prompts.get(), stage.armed.borrow().len()), (0, 0));
    assert_eq!(stage.asked.borrow()[0].op, op::CHECK);
    let pending = stage.listening.borrow_mut().pop().unwrap();
    let Answered::GoOn(Some(attempt)) = answered(&stage, &pending) else { panic!("not charged") };
    assert_eq!(attempt.request.entry.token, 42);
    assert_eq!(stage.asked.borrow()[1].op, op::ADMIT);
}

#[test]
fn a_conversation_with_a_locked_account_does_not_begin() {
    let locked = Answer { verdict: verdict::DONE, locked_until: 9, now: 1, ..Answer::default() };
    let (stage, options) = conversing([Ok(locked)]);
    assert_eq!(module::authenticate(&stage, &options), status::AUTH_ERR);
    assert!(stage.listening.borrow().is_empty());
    assert_eq!((stage.prompts.get(), stage.delayed.get()), (0, Duration::from_secs(2)));
}

#[test]
fn an_answer_without_a_guess_to_charge_reaches_nobody() {
    let (stage, options) = conversing([answer(verdict::DONE), answer(verdict::LOCKED)]);
    assert_eq!(module::authenticate(&stage, &options), status::IGNORE);
    let pending = stage.listening.borrow_mut().pop().unwrap();
    assert_eq!(answered(&stage, &pending), Answered::Refused);
}

#[test]
fn a_password_that_is_there_already_is_charged_at_once() {
    let (mut stage, options) = conversing([answer(verdict::ADMITTED)]);
    stage.stacked = true;
    assert_eq!(module::authenticate(&stage, &options), status::IGNORE);
    assert_eq!((stage.prompts.get(), stage.armed.borrow().len()), (0, 1));
}

#[test]
fn the_current_password_is_charged_at_the_check_and_passed_at_the_update() {
    let stage = Stage::new([answer(verdict::ADMITTED), answer(verdict::DONE)]);
    assert_eq!(module::change::check(&stage, &Options::default(), false), status::IGNORE);
    assert_eq!(stage.prompts.get(), 1);
    assert_eq!(module::change::update(&stage), status::IGNORE);
    let asked = stage.asked.borrow();
    assert_eq!((asked[0].op, asked[1].op, asked[1].arg), (op::ADMIT, op::RESOLVE, outcome::PASS));
}

#[test]
fn root_is_not_asked_for_the_current_password_unless_a_login_must_change_it() {
    let root = |answers: Vec<Result<Answer, Error>>| Stage { real_uid: 0, ..Stage::new(answers) };
    let stage = root(vec![]);
    assert_eq!(module::change::check(&stage, &Options::default(), false), status::IGNORE);
    assert_eq!(stage.prompts.get(), 0);
    let stage = root(vec![answer(verdict::LOCKED)]);
    assert_eq!(module::change::check(&stage, &Options::default(), true), status::AUTH_ERR);
    assert_eq!(stage.prompts.get(), 1);
}

#[test]
fn who_is_not_root_confirms_nothing() {
    let stage = Stage { effective_uid: 2001, ..Stage::new([]) };
    assert_eq!(module::set_credentials(&stage, true), status::IGNORE);
}

#[test]
fn the_gates_delay_is_waited_out_before_the_check() {
    let delayed =
        Answer { verdict: verdict::ADMITTED, token: 42, now: 1, delay: 1_500_000_000, ..Answer::default() };
    let stage = Stage::new([Ok(delayed)]);
    assert_eq!(authenticate(&stage), status::IGNORE);
    assert_eq!((stage.slept.get(), stage.armed.borrow().len()), (Duration::from_millis(1500), 1));
    // Bounded, whatever is answered.
    let stage = Stage::new([Ok(Answer { delay: u64::MAX, ..delayed })]);
    assert_eq!(authenticate(&stage), status::IGNORE);
    assert!(stage.slept.get() <= Duration::from_secs(300));
}

#[test]
fn in_monitor_mode_the_account_phase_refuses_nobody() {
    let locked = Answer {
        verdict: verdict::DONE,
        locked_until: 9,
        now: 1,
        flags: flag::MONITORED,
        ..Answer::default()
    };
    let stage = Stage { service: b"sshd", ..Stage::new([Ok(locked)]) };
    assert_eq!(module::account::account(&stage, &Options::default()), status::IGNORE);
}
