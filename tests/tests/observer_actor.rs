//! Who answers for a local attempt, with real programs: kon comes in by the real sshd, so that he has a login uid, goes
//! on to another user by su, and guesses at jon from there.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime};

use portcullis_tests::inside::{Setup, enter, xtask};
use portcullis_tests::ssh::{Sshd, make_key};
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::su::{self, JON, KON};
use portcullis_tests::system::{number, password, portcullis, run, wait_for};
use portcullis_tests::terminal::Terminal;
use portcullis_tests::watched::{wait_end, wait_loaded, wait_program};
use serde_json::Value;

/// admin's uid in the sandbox.
const ADMIN: u32 = 2003;

/// kon's session, as sshd's stack in Debian makes it.
fn session() -> (Terminal, u16) {
    make_key().unwrap();
    let sshd = Sshd::start(2222, "").unwrap();
    let mut shell = sshd.session("kon").unwrap();
    shell.line("PS1=; echo login=$(cat /proc/self/loginuid).").unwrap();
    shell.wait(&format!("login={KON}.")).unwrap();
    (shell, 2222)
}

/// The newest attempt at jon that failed.
fn failure() -> Value {
    let found = portcullis(&["explain", "jon"]).unwrap();
    let attempts = found["attempts"].as_array().unwrap();
    attempts.iter().find(|attempt| attempt["outcome"] == "fail").cloned().unwrap_or_default()
}

#[test]
fn the_actor_is_who_logged_in_through_any_number_of_su() {
    if !enter("the_actor_is_who_logged_in_through_any_number_of_su", &Setup::short()) {
        return;
    }
    without_delays().unwrap();
    wait_loaded().unwrap();
    let (mut shell, _) = session();
    // At once, with claims that must not matter.
    shell.line("PAM_RUSER=mallory LOGNAME=mallory USER=mallory su jon").unwrap();
    shell.answer("wrong").unwrap();
    shell.wait("failure").unwrap();
    wait_for("a failure", 10, || Ok(number("jon", "failures")? == 1)).unwrap();
    let seen =
        wait_program("su's end", |seen| seen["target"] == "jon" && seen["result"] == "exit 1").unwrap();
    assert_eq!((&seen["uid"], &seen["login_uid"]), (&KON.into(), &KON.into()), "{seen}");
    let tty = seen["tty"].as_str().unwrap().to_owned();
    let told = failure();
    assert_eq!(told["actor"]["uid"], KON, "{told}");
    assert_eq!(told["chain"], format!("kon on {tty} → bash → su"), "{told}");
    // On to a third user, whose own the next guess seems to be.
    shell.line("su admin").unwrap();
    shell.answer(&password("admin")).unwrap();
    shell.wait("admin@portcullis").unwrap();
    shell.line("su jon").unwrap();
    shell.answer("wrong").unwrap();
    wait_for("another failure", 10, || Ok(number("jon", "failures")? == 2)).unwrap();
    let seen = wait_program("su's end", |seen| {
        seen["target"] == "jon" && seen["uid"] == ADMIN && seen["result"] == "exit 1"
    });
    assert_eq!(seen.unwrap()["login_uid"], KON);
    let told = failure();
    assert_eq!(told["actor"]["uid"], KON, "not admin: {told}");
    assert_eq!(told["chain"], format!("kon on {tty} → bash → su → bash → su"), "{told}");
    let (_, shown) = run("portcullis", &["explain", "jon"]).unwrap();
    assert!(shown.contains("→ bash → su → bash → su"), "{shown}");
    // Nobody logged in here: the real uid.
    assert!(!su::attempt(ADMIN, "jon", "wrong").unwrap().let_in);
    wait_for("admin's failure", 10, || Ok(failure()["actor"]["uid"] == ADMIN)).unwrap();
}

#[test]
fn who_logged_in_outside_is_nobody_in_a_sandbox() {
    let script = format!(
        "echo {KON} > /proc/self/loginuid && exec \"$0\" sandbox --quiet --bare -- cat /proc/self/loginuid"
    );
    assert_eq!(must("sh", &["-c", &script, xtask().unwrap().to_str().unwrap()]).unwrap(), "4294967295");
}

/// A line of /proc/PID/status.
fn field(pid: u64, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

fn text(pid: u64, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap().trim_end_matches('\n').to_owned()
}

/// Field `at` of /proc/PID/stat, counted from 1 as in proc(5).
fn stat(pid: u64, at: usize) -> u64 {
    let line = text(pid, "stat");
    // The second is the name in parentheses.
    line.rsplit_once(") ").unwrap().1.split(' ').nth(at - 3).unwrap().parse().unwrap()
}

#[test]
fn what_is_told_of_a_program_is_what_proc_has_of_it() {
    if !enter("what_is_told_of_a_program_is_what_proc_has_of_it", &Setup::short()) {
        return;
    }
    without_delays().unwrap();
    wait_loaded().unwrap();
    let (mut shell, _) = session();
    shell.line("/bin/su jon; echo status=$?").unwrap();
    let seen = wait_program("su's start", |seen| seen["target"] == "jon" && seen["program"] == "su").unwrap();
    let pid = seen["pid"].as_u64().unwrap();
    assert_eq!(seen["result"], Value::Null, "it runs: {seen}");
    assert_eq!(text(pid, "comm"), "su");
    assert_eq!(text(pid, "cmdline"), "/bin/su\0jon\0");
    assert_eq!(seen["path"], "/bin/su");
    assert_eq!(seen["uid"].to_string(), field(pid, "Uid"));
    assert_eq!(seen["login_uid"].to_string(), text(pid, "loginuid"));
    assert_eq!(seen["session"].to_string(), text(pid, "sessionid"));
    assert_ne!(seen["session"], Value::Null, "sshd's stack made one");
    let parent: u64 = field(pid, "PPid").parse().unwrap();
    assert_eq!((&seen["parent"], &seen["parent_comm"]), (&parent.into(), &text(parent, "comm").into()));
    // The terminal: device 136:N is pts/N (console(4), Documentation/admin-guide/devices.txt).
    let device = stat(pid, 7);
    assert_eq!((device >> 8) & 0xfff, 136);
    assert_eq!(seen["tty"], format!("pts/{}", (device & 0xff) | ((device >> 12) & 0xfff00)));
    // The id of a cgroup is the inode of its folder, in the hierarchy that the kernel tells of (v2).
    must("mount", &["-t", "cgroup2", "none", "/mnt"]).unwrap();
    let group = text(pid, "cgroup");
    let group = group.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
    assert_eq!(seen["cgroup"], fs::metadata(format!("/mnt{group}")).unwrap().ino());
    // It was made in the same moment that it became su, by a shell.
    let ticks: f64 = must("getconf", &["CLK_TCK"]).unwrap().trim().parse().unwrap();
    let up = fs::read_to_string("/proc/uptime").unwrap();
    let up: f64 = up.split(' ').next().unwrap().parse().unwrap();
    let made = SystemTime::now() - Duration::from_secs_f64(up - stat(pid, 22) as f64 / ticks);
    let made = made.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let at = |name: &str, of: &Value| -> f64 {
        must("date", &["-d", of[name].as_str().unwrap(), "+%s.%N"]).unwrap().trim().parse().unwrap()
    };
    assert!((at("started", &seen) - made).abs() < 1.0, "{made}: {seen}");
    // Its end, as its parent has it.
    shell.answer("wrong").unwrap();
    shell.wait("status=1").unwrap();
    let seen = wait_end("su", pid.try_into().unwrap()).unwrap();
    assert_eq!(seen["result"], "exit 1");
    let length = at("ended", &seen) - at("started", &seen);
    assert!((seen["duration_ms"].as_f64().unwrap() / 1000.0 - length).abs() < 0.1, "{seen}");
    assert!(at("ended", &seen) - made < length + 1.0, "{seen}");
}

#[test]
fn a_login_uid_that_guesses_at_many_is_refused_and_they_stay_usable() {
    let config = "break_glass = \"admin\"\n[default]\ndeny = 3\n[sc5]\nlocal = \"refuse\"\ndeny = 4\naccounts = 3\n\
                  drop_time = \"10s\"\n";
    let setup = Setup { config: Some(config), ..Setup::default() };
    if !enter("a_login_uid_that_guesses_at_many_is_refused_and_they_stay_usable", &setup) {
        return;
    }
    without_delays().unwrap();
    let (mut shell, port) = session();
    for (round, account) in ["jon", "admin", "root"].into_iter().enumerate() {
        shell.line(&format!("su {account}; echo round{round} $?")).unwrap();
        shell.answer("wrong").unwrap();
        shell.wait(&format!("round{round} 1")).unwrap();
    }
    let refused = || Ok(run("portcullis", &["sources"])?.1.contains("refused"));
    wait_for("the refusal", 10, refused).unwrap();
    shell.line("su jon; echo refused $?").unwrap();
    shell.answer(&password("jon")).unwrap();
    shell.wait("refused 1").unwrap();
    // The victims go on: jon by the same sshd, and others at them.
    let sshd = Sshd::at(port);
    assert!(sshd.logon("jon", "password", &password("jon")).unwrap());
    assert!(su::attempt(JON, "admin", &password("admin")).unwrap().let_in);
    assert!(refused().unwrap(), "still");
    wait_for("the end of the refusal", 20, || Ok(!refused()?)).unwrap();
    shell.line("su jon -c 'echo in as $(id -un)'").unwrap();
    shell.answer(&password("jon")).unwrap();
    shell.wait("in as jon").unwrap();
}
