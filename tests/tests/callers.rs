//! Callers who may not open the gate themselves: a screen locker's way, by the agent's socket, for one's own account
//! only.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::{Uid, seteuid};
use portcullis_common::abi::{ABI, Answer, CALLERS, Detail, Request, op, outcome, source, verdict};
use portcullis_tests::inside::{DENY_3, Setup, enter};
use portcullis_tests::su::{self, JON, KON};
use portcullis_tests::system::{number, password, run, wait_for, write};

/// A screen locker's attempt: `user`'s own program, without any privilege, asks for `about`'s password.
fn locker(user: &str, about: &str, password: &str) -> (bool, String) {
    let mut child = Command::new("runuser")
        .args(["-u", user, "--", "pamtester", "locker", about, "authenticate"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn locker_stack(line: &str) {
    let stack =
        format!("auth requisite pam_portcullis.so {line}\nauth required pam_unix.so try_first_pass\n");
    write(Path::new("/etc/pam.d/locker"), &stack).unwrap();
}

#[test]
fn a_screen_locker_counts_for_its_own_user() {
    if !enter("a_screen_locker_counts_for_its_own_user", &DENY_3) {
        return;
    }
    locker_stack("on_error=deny");
    let right = password("kon");
    assert!(locker("kon", "kon", &right).0);
    assert_eq!(number("kon", "failures").unwrap(), 0);
    for expected in 1..=2 {
        assert!(!locker("kon", "kon", "wrong").0);
        assert_eq!(number("kon", "failures").unwrap(), expected);
    }
    // What a program of his own calls a success clears nothing.
    assert!(locker("kon", "kon", &right).0);
    assert_eq!(number("kon", "failures").unwrap(), 2);
    assert!(!locker("kon", "kon", "wrong").0);
    assert!(!locker("kon", "kon", &right).0, "locked");
    // Somebody else's account is not his to try: refused by on_error=deny, counted for nobody.
    assert!(!locker("kon", "jon", &password("jon")).0);
    assert_eq!(number("jon", "failures").unwrap(), 0);
    assert!(su::attempt(JON, "jon", &password("jon")).unwrap().let_in);
}

#[test]
fn without_the_agent_a_screen_locker_goes_by_on_error() {
    if !enter("without_the_agent_a_screen_locker_goes_by_on_error", &Setup { no_agent: true, ..DENY_3 }) {
        return;
    }
    let right = password("kon");
    locker_stack("on_error=ignore");
    assert!(locker("kon", "kon", &right).0);
    locker_stack("on_error=deny");
    assert!(!locker("kon", "kon", &right).0);
    let (_, log) = run("cat", &["/var/log/auth.log"]).unwrap();
    assert!(log.contains("attempt refused (on_error=deny): the gate"), "one clear line: {log}");
}

/// What the agent answers `uid`, asked as the ABI says.
fn asked(stream: &mut UnixStream, request: &Request) -> Answer {
    let place: *const u8 = std::ptr::from_ref(request).cast();
    // SAFETY: a request is integers without padding.
    let bytes = unsafe { std::slice::from_raw_parts(place, size_of::<Request>()) };
    stream.write_all(bytes).unwrap();
    let mut answer = Answer::default();
    let place: *mut u8 = (&raw mut answer).cast();
    // SAFETY: an answer is integers without padding, in which every bit pattern is valid.
    let bytes = unsafe { std::slice::from_raw_parts_mut(place, size_of::<Answer>()) };
    stream.read_exact(bytes).unwrap();
    answer
}

fn connect(uid: u32) -> UnixStream {
    seteuid(Uid::from_raw(uid)).unwrap();
    let stream = UnixStream::connect(CALLERS);
    seteuid(Uid::from_raw(0)).unwrap();
    stream.unwrap()
}

#[test]
fn one_user_can_neither_raise_nor_clear_nor_read_the_count_of_another() {
    if !enter("one_user_can_neither_raise_nor_clear_nor_read_the_count_of_another", &DENY_3) {
        return;
    }
    assert!(!su::attempt(JON, "jon", "wrong").unwrap().let_in);
    assert_eq!(number("jon", "failures").unwrap(), 1);
    // By the socket, with whatever is claimed.
    let mut stream = connect(KON);
    for op in 0..=op::LAPSE {
        let mut request = Request::new(op, JON.into());
        request.arg = outcome::PASS;
        request.entry.token = 1;
        request.entry.detail = Detail { uid: JON, source: source::LOCAL, pid: 1, parent: 1, ..Detail::EMPTY };
        let answer = asked(&mut stream, &request);
        assert_eq!(answer, Answer { verdict: verdict::NOT_YOURS, ..Answer::default() }, "op {op}");
    }
    // By the module, loaded with forged items in a program of his own.
    locker_stack("on_error=ignore");
    for _ in 0..4 {
        assert!(!locker("kon", "jon", "wrong").0);
    }
    assert_eq!(number("jon", "failures").unwrap(), 1);
    // By the pins.
    for path in ["/sys/fs/bpf/portcullis", "/sys/fs/bpf/portcullis/v1/gate"] {
        assert!(
            !run("runuser", &["-u", "kon", "--", "stat", path]).unwrap().0 || path.ends_with("portcullis")
        );
        assert!(!run("runuser", &["-u", "kon", "--", "ls", path]).unwrap().0, "{path}");
    }
    // By the command.
    for verb in ["explain", "lock", "unlock"] {
        let (done, text) = run("runuser", &["-u", "kon", "--", "portcullis", verb, "jon"]).unwrap();
        assert!(!done, "{verb}: {text}");
        assert!(!text.contains("failures"), "{verb}: {text}");
    }
    assert_eq!(number("jon", "failures").unwrap(), 1);
    assert_eq!(number("jon", "trips").unwrap(), 0);
}

#[test]
fn nobody_floods_the_log_by_claims() {
    if !enter("nobody_floods_the_log_by_claims", &DENY_3) {
        return;
    }
    let mut stream = connect(KON);
    let begin = Instant::now();
    for _ in 0..10 {
        let mut request = Request::new(op::ADMIT, KON.into());
        request.entry.detail = Detail { uid: KON, source: source::LOCAL, ..Detail::EMPTY };
        asked(&mut stream, &request);
    }
    // After each answer but the last he waits; a program of his that asks for a password does so anyway.
    assert!(begin.elapsed() >= Duration::from_millis(450), "{:?}", begin.elapsed());
}

#[test]
fn a_claim_clears_nothing_and_a_broken_connection_is_a_failure() {
    if !enter("a_claim_clears_nothing_and_a_broken_connection_is_a_failure", &DENY_3) {
        return;
    }
    assert!(!su::attempt(JON, "kon", "wrong").unwrap().let_in);
    let mut stream = connect(KON);
    let admit = Request::new(op::ADMIT, KON.into());
    let admitted = asked(&mut stream, &admit);
    assert_eq!((admitted.verdict, admitted.reservations), (verdict::ADMITTED, 1));
    // The token of somebody else's guess: what is resolved is his own.
    let mut resolve = Request::new(op::RESOLVE, KON.into());
    resolve.arg = outcome::PASS;
    resolve.entry.token = 1;
    assert_eq!(asked(&mut stream, &resolve).verdict, verdict::DONE);
    assert_eq!(asked(&mut stream, &Request::new(op::CONFIRM, KON.into())).verdict, verdict::NOT_YOURS);
    assert_eq!(number("kon", "failures").unwrap(), 1);
    // He hangs up with a guess out.
    assert_eq!(asked(&mut stream, &admit).verdict, verdict::ADMITTED);
    drop(stream);
    wait_for("the failure", 10, || Ok(number("kon", "failures")? == 2)).unwrap();
    // What is no request is not answered, and nothing is lost by it.
    let mut stream = connect(KON);
    stream.write_all(&[0xff; 64]).unwrap();
    drop(stream);
    let foreign = Request { abi: ABI + 1, ..admit };
    assert_eq!(asked(&mut connect(KON), &foreign).verdict, verdict::INVALID);
    assert_eq!(number("kon", "failures").unwrap(), 2);
}

#[test]
fn what_was_decided_without_the_gate_is_counted() {
    if !enter("what_was_decided_without_the_gate_is_counted", &DENY_3) {
        return;
    }
    std::fs::remove_dir_all("/sys/fs/bpf/portcullis").unwrap();
    assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in, "on_error=ignore");
    locker_stack("on_error=deny");
    assert!(!run("sh", &["-c", "echo wrong | pamtester locker jon authenticate"]).unwrap().0);
    let counted = || {
        let (_, page) = run("curl", &["-s", "http://127.0.0.1:9456/metrics"])?;
        let of = |answer: &str| {
            let start = format!("portcullis_gate_unreachable_total{{answer=\"{answer}\"}} ");
            page.lines().find_map(|line| line.strip_prefix(start.as_str()).map(str::to_owned))
        };
        // su asks in the account phase too, which is not counted once more.
        Ok(of("ignored").as_deref() == Some("1") && of("refused").as_deref() == Some("1"))
    };
    wait_for("the counts", 15, counted).unwrap();
}

#[test]
fn root_without_bpf_goes_by_the_agent() {
    if !enter("root_without_bpf_goes_by_the_agent", &DENY_3) {
        return;
    }
    locker_stack("on_error=deny");
    // As in a container: the pins are out of sight, and so are the capabilities for bpf(2).
    let hidden = "mount --bind /mnt /sys/fs/bpf && test ! -e /sys/fs/bpf/portcullis \
                  && exec setpriv --bounding-set=-bpf,-sys_admin --inh-caps=-all pamtester locker jon \"$@\"";
    let attempt = |password: &str, verbs: &[&str]| {
        let mut child = Command::new("unshare");
        child.args(["--mount", "sh", "-c", hidden, "sh"]).args(verbs);
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
        child.wait().unwrap().success()
    };
    for expected in 1..=2 {
        assert!(!attempt("wrong", &["authenticate"]));
        assert_eq!(number("jon", "failures").unwrap(), expected);
    }
    assert!(attempt(&password("jon"), &["authenticate", "setcred"]));
    assert_eq!(number("jon", "failures").unwrap(), 0, "root's own confirmation counts");
}
