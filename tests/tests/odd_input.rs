//! Names, hosts and terminals that nobody should have: they lock nothing, and steer no terminal and no log.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::ledger;
use portcullis_tests::pamtester::login;
use portcullis_tests::stack::without_delays;
use portcullis_tests::su::{self, JON, KON};
use portcullis_tests::system::{password, run};

/// No shadow lock, and `deny` as high as it goes: one for each pair of odd items, and one more.
const CONFIG: &str = r#"
break_glass = "admin"
[default]
deny = 16
unlock_time = "10m"
shadow_lock = false
"#;
const DENY: u32 = 16;

/// What a client may claim as its name and a program as its terminal.
fn odd() -> Vec<Vec<u8>> {
    let list: [&[u8]; 14] = [
        b"\x1b]0;owned\x07\x1b[2J",
        b"\x01\x02\x7f\r\x08",
        b"192.0.2.1\nportcullis forged line",
        b"\xff\xfe\x80not UTF-8",
        "\u{202e}gnp.exe\u{9b}2J".as_bytes(),
        b"-",
        b"--json",
        b"$(touch /run/owned)`touch /run/owned`;touch /run/owned|'\"",
        b"fe80::1%eth0",
        b"fe80::1%../../x;touch /run/owned",
        b"::ffff:192.0.2.7",
        b"0177.0.0.1",
        b"../../../etc/passwd",
        b"%s%n%x\\x1b{}",
    ];
    let mut list: Vec<Vec<u8>> = list.iter().map(|text| text.to_vec()).collect();
    list.push(vec![b'x'; 300]);
    list
}

/// Fails where a byte would steer a terminal, break a line or is not UTF-8.
fn harmless(what: &str, text: &[u8]) {
    let text = std::str::from_utf8(text);
    assert!(text.is_ok(), "{what}: {text:?}");
    let text = text.unwrap();
    for line in text.split('\n') {
        assert!(!line.trim_start().starts_with("portcullis forged"), "{what}: a line of its own: {line:?}");
        let bad = line.chars().find(|letter| letter.is_control() || "\u{202e}\u{feff}".contains(*letter));
        assert!(bad.is_none(), "{what} holds {bad:?}: {line:?}");
    }
}

/// Everything that tells people or programs about attempts.
fn every_output_is_harmless() {
    let commands: [&[&str]; 9] = [
        &["portcullis", "explain", "jon"],
        &["portcullis", "explain", "jon", "--json"],
        &["portcullis", "accounts"],
        &["portcullis", "accounts", "--json"],
        &["portcullis", "status"],
        &["portcullis", "events"],
        &["portcullis", "events", "--json"],
        &["curl", "--silent", "--fail", "http://127.0.0.1:9456/metrics"],
        &["cat", "/var/log/portcullisd.log"],
    ];
    for command in commands {
        let (program, arguments) = command.split_first().unwrap();
        let output = std::process::Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
        assert!(!output.stdout.is_empty(), "{command:?} printed nothing");
        harmless(&command.join(" "), &output.stdout);
        harmless(&command.join(" "), &output.stderr);
    }
}

#[test]
fn odd_hosts_and_terminals_count_and_steer_nothing() {
    let setup = Setup { config: Some(CONFIG), ..Setup::default() };
    if !enter("odd_hosts_and_terminals_count_and_steer_nothing", &setup) {
        return;
    }
    without_delays().unwrap();
    let mut failures = 0;
    for text in odd() {
        let items: [(&str, &[u8]); 2] = [("rhost", &text), ("tty", &text)];
        let (ok, output) = login("sshd", "jon", &items, &["authenticate"], "wrong").unwrap();
        assert!(!ok, "{text:?}: {output}");
        failures += 1;
        // Counted like any other failure: no more, no less.
        let books = ledger::of(JON).unwrap();
        assert_eq!((books.failures, books.locked_until), (failures, 0), "{text:?}");
    }
    assert_eq!(failures, DENY - 1);
    // The terminal is in there, spelled out; the host is an address or not known.
    let (_, events) = run("portcullis", &["events", "--json"]).unwrap();
    assert!(events.contains(r"\\x1b]0;owned\\x07"), "{events}");
    assert!(events.contains("192.0.2.7"), "{events}");
    every_output_is_harmless();
    let (ok, _) = login("sshd", "jon", &[("rhost", b"\x1b[2J")], &["authenticate"], "wrong").unwrap();
    assert!(!ok && ledger::locked(JON).unwrap());
    every_output_is_harmless();
    assert!(!Path::new("/run/owned").exists());
}

#[test]
fn odd_names_lock_nobody() {
    if !enter("odd_names_lock_nobody", &Setup::short()) {
        return;
    }
    without_delays().unwrap();
    let long = "x".repeat(300);
    let names: [&[u8]; 12] = [
        b"a\x01b\x7f",
        long.as_bytes(),
        b"../../etc/passwd",
        b"-rf",
        "j\u{f6}n".as_bytes(),
        b"jo\xffn",
        b"\xff\xfe",
        b"jon\nroot",
        b"jon\n",
        b"jon ",
        b"\x1b[2J",
        b"",
    ];
    for name in names {
        // As often as would lock. su's own stack lets root pass without a password: sshd's does not.
        for _ in 0..3 {
            let steps = ["authenticate"];
            let (ok, text) = login("sshd", OsStr::from_bytes(name), &[], &steps, "wrong").unwrap();
            assert!(!ok, "{name:?}: {text}");
        }
    }
    let books = ledger::of(JON).unwrap();
    assert_eq!((books.failures, books.trips, books.locked_until), (0, 0, 0));
    assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
    every_output_is_harmless();
}
