//! Crowds of every size, on one account and on several, by one service and by many: no more than `deny` wrong guesses are
//! checked, right ones all get in, and every process ends with a verdict that is on the books.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use portcullis_tests::books::{Books, entries};
use portcullis_tests::crowd::Crowd;
use portcullis_tests::inside::{DENY_3, enter};
use portcullis_tests::ssh::Sshd;
use portcullis_tests::stack::{edit, service, without_delays};
use portcullis_tests::su::{JON, KON, Su};
use portcullis_tests::system::{Counter, password, write};
use portcullis_tests::terminal::Terminal;

const DENY: usize = 3;

/// Crowds of each size: wrong only, one right among wrong ones, right only.
fn every_mix(sizes: &[usize]) {
    without_delays().unwrap();
    let counter = Counter::install("").unwrap();
    let mut books = Books::open("jon").unwrap();
    let right = password("jon");
    for &size in sizes {
        for right_ones in [0, 1, size] {
            let before = counter.guesses().unwrap();
            let mut crowd = Crowd::at_the_prompt(size).unwrap();
            let is_right = |n| right_ones == size || (right_ones == 1 && n == size / 2);
            crowd.submit_each(|n| if is_right(n) { &right } else { "wrong" }).unwrap();
            let let_in = crowd.let_in().unwrap();
            let checked = counter.guesses().unwrap() - before;

            let page = books.take().unwrap();
            let [pass, fail, refused, busy, cleared] =
                ["pass", "fail", "refused", "busy", "cleared"].map(|kind| entries(&page, kind));
            let locked = page.ends_with("locked");
            let seen = format!(
                "{size} at once, {right_ones} right: {let_in} let in, {checked} checked, {pass} pass, {fail} fail, \
                 {refused} refused, {busy} busy, {cleared} cleared, locked: {locked}"
            );
            println!("{seen}");
            // One that passed and found the account locked meanwhile is refused by the account line, too.
            assert_eq!(pass + fail + refused + busy, size + pass - let_in, "each is on the books: {seen}");
            assert_eq!(checked, pass + fail, "{seen}");
            assert_eq!(busy, 0, "{seen}");
            if right_ones == 0 {
                assert_eq!((let_in, fail, locked), (0, size.min(DENY), size >= DENY), "{seen}");
            } else if right_ones == size {
                assert_eq!((let_in, pass, fail, locked), (size, size, 0, false), "{seen}");
            } else {
                // What failed before the right one was confirmed is forgiven, at most deny - 1; then deny lock.
                assert!(fail <= DENY + cleared.min(1) * (DENY - 1), "{seen}");
                assert!(pass <= 1 && let_in <= pass && cleared <= let_in, "{seen}");
                assert_eq!(locked, fail >= DENY && size > DENY, "{seen}");
            }
        }
    }
}

#[test]
fn crowds_of_2_10_and_50_wrong_right_and_mixed() {
    if enter("crowds_of_2_10_and_50_wrong_right_and_mixed", &DENY_3) {
        every_mix(&[2, 10, 50]);
    }
}

#[test]
fn crowds_of_200_wrong_right_and_mixed() {
    if enter("crowds_of_200_wrong_right_and_mixed", &DENY_3) {
        // 200 right ones of one actor, two at a time, take longer than the 10 s that a logon waits by default.
        edit("common-auth", |line| {
            if line.contains("pam_portcullis.so") { format!("{line} wait=120") } else { line.into() }
        })
        .unwrap();
        every_mix(&[200]);
    }
}

/// How many entries of `kind` a page has about this account: "" for the book's own, " for NAME" for another.
fn about(page: &str, kind: &str, whose: &str) -> usize {
    let list = page.split(" → ").next().unwrap_or_default().split(", ");
    list.filter(|entry| {
        let (own, other) = entry.split_once(" for ").map_or((*entry, ""), |(own, other)| (own, other));
        own.starts_with(kind) && other == whose
    })
    .count()
}

#[test]
fn a_crowd_on_several_users_is_counted_each_for_itself() {
    if !enter("a_crowd_on_several_users_is_counted_each_for_itself", &DENY_3) {
        return;
    }
    without_delays().unwrap();
    let counter = Counter::install("").unwrap();
    let right = password("admin");
    let mut books = Books::open("jon").unwrap();
    let start = |n: usize| match n % 3 {
        0 => Su::start(KON, "jon"),
        1 => Su::start(JON, "kon"),
        _ => Su::start(KON, "admin"),
    };
    let mut crowd = Crowd::of((0..60).map(start)).unwrap();
    crowd.submit_each(|n| if n % 3 == 2 { &right } else { "wrong" }).unwrap();
    assert_eq!(crowd.let_in().unwrap(), 20, "admin's right ones, all of them");
    assert_eq!(counter.guesses().unwrap(), 20 + 2 * DENY);
    let page = books.take().unwrap();
    for user in ["", "kon"] {
        let counts = ["fail", "refused", "busy"].map(|kind| about(&page, kind, user));
        assert_eq!(counts, [DENY, 20 - DENY, 0], "{user}: {page}");
    }
    let counts = ["pass", "fail", "refused", "busy"].map(|kind| about(&page, kind, "admin"));
    assert_eq!(counts, [20, 0, 0, 0], "admin: {page}");
}

/// Five attempts each by su, sudo, sshd and a service of its own, all for jon, all at their prompts before the first is
/// answered. How many were let in.
fn by_four_services(sshd: &Sshd, secret: &str) -> usize {
    let start = |n: usize| match n % 3 {
        0 => Su::start(KON, "jon"),
        1 => {
            let mut sudo = Command::new("sudo");
            sudo.args(["-S", "-k", "-p", "Password: ", "id", "-un"]).uid(JON).gid(JON).current_dir("/");
            Su::spawn(sudo)
        }
        _ => {
            let mut tester = Command::new("pamtester");
            tester.args(["second", "jon", "authenticate", "acct_mgmt", "setcred"]);
            Su::spawn(tester)
        }
    };
    let mut remote: Vec<Terminal> = (0..5).map(|_| sshd.at_terminal("jon", "password", 1).unwrap()).collect();
    for ssh in &mut remote {
        ssh.wait("assword:").unwrap();
    }
    let mut local = Crowd::of((0..15).map(start)).unwrap();
    for ssh in &mut remote {
        ssh.line(secret).unwrap();
    }
    local.submit(secret).unwrap();
    let let_in = local.let_in().unwrap();
    // The prompt is behind us: a line that says nothing but the name is the command's.
    let in_by_ssh = |ssh: Terminal| ssh.rest().unwrap().lines().any(|line| line.trim() == "jon");
    let_in + remote.into_iter().map(|ssh| usize::from(in_by_ssh(ssh))).sum::<usize>()
}

#[test]
fn a_crowd_by_several_services_is_counted_together() {
    if !enter("a_crowd_by_several_services_is_counted_together", &DENY_3) {
        return;
    }
    without_delays().unwrap();
    service("second", "@include common-auth\n@include common-account\n").unwrap();
    write(Path::new("/etc/sudoers.d/jon"), "jon ALL=(ALL) ALL\n").unwrap();
    let sshd = Sshd::start(2201, "PasswordAuthentication yes\nMaxStartups 100").unwrap();
    let counter = Counter::install("").unwrap();
    let mut books = Books::open("jon").unwrap();

    assert_eq!(by_four_services(&sshd, "wrong"), 0);
    assert_eq!(counter.guesses().unwrap(), DENY);
    let page = books.take().unwrap();
    let counts = ["fail", "refused", "pass", "busy", "died"].map(|kind| entries(&page, kind));
    assert_eq!(counts, [DENY, 20 - DENY, 0, 0, 0], "{page}");

    assert_eq!(by_four_services(&sshd, &password("jon")), 20);
    assert_eq!(counter.guesses().unwrap(), DENY + 20);
    let page = books.take().unwrap();
    let counts = ["fail", "refused", "pass", "busy", "died"].map(|kind| entries(&page, kind));
    assert_eq!(counts, [0, 0, 20, 0, 0], "{page}");
    for service in ["su", "sudo", "sshd", "second"] {
        assert_eq!(entries(&page, &format!("pass {service} ")), 5, "{service}: {page}");
    }
}
