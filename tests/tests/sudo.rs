//! The real sudo: the caller is counted, locked and cleared, whoever the command runs as.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use std::path::Path;
use std::process::{Command, Stdio};

use portcullis_tests::inside::{DENY_3, enter};
use portcullis_tests::system::{number, password, write};

/// kon's `sudo id -un` with these passwords, one a line; what it printed.
fn sudo(passwords: &[&str]) -> String {
    let mut child = Command::new("runuser")
        .args(["-u", "kon", "--", "sudo", "-S", "-k", "id", "-un"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Where sudo gave up before the last line there is nobody to read it.
    let _ = std::io::Write::write_all(&mut stdin, (passwords.join("\n") + "\n").as_bytes());
    drop(stdin);
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn a_right_password_at_sudo_clears_the_callers_failures() {
    if !enter("a_right_password_at_sudo_clears_the_callers_failures", &DENY_3) {
        return;
    }
    write(Path::new("/etc/sudoers.d/kon"), "kon ALL=(ALL) ALL\n").unwrap();
    let right = password("kon");
    assert_eq!(sudo(&["wrong", "wrong", &right]), "root\n");
    assert_eq!(number("kon", "failures").unwrap(), 0);
    assert_eq!(sudo(&["wrong", "wrong", "wrong"]), "");
    assert_eq!(sudo(&[&right]), "", "locked");
}
