//! `charge=conversation`: stacks whose modules ask for themselves, with the real pam_unix, pam_permit and pam_deny.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use portcullis_tests::inside::{DENY_3, enter};
use portcullis_tests::system::{number, password, run, write};

/// Puts these modules behind our line.
fn stack(behind: &[&str]) {
    let lines = [&["auth requisite pam_portcullis.so charge=conversation"], behind].concat();
    write(Path::new("/etc/pam.d/asks"), &(lines.join("\n") + "\n")).unwrap();
}

/// pamtester, at work.
fn start() -> Child {
    let mut child = Command::new("pamtester");
    child.args(["asks", "jon", "authenticate", "setcred"]);
    child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn ended(child: Child) -> (bool, String) {
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// One attempt with these answers, one a question.
fn attempt(answers: &[&str]) -> (bool, String) {
    let mut child = start();
    let text: String = answers.iter().map(|answer| format!("{answer}\n")).collect();
    // Whoever is refused at once reads nothing.
    let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
    ended(child)
}

fn failures() -> u64 {
    number("jon", "failures").unwrap()
}

#[test]
fn a_stack_that_asks_itself_is_charged_at_the_first_answer() {
    if !enter("a_stack_that_asks_itself_is_charged_at_the_first_answer", &DENY_3) {
        return;
    }
    let right = password("jon");
    stack(&["auth required pam_unix.so"]);
    assert!(!attempt(&["wrong"]).0);
    assert_eq!(failures(), 1);
    // Nobody answers: nothing is charged.
    assert!(!attempt(&[]).0);
    assert_eq!(failures(), 1);
    assert!(attempt(&[&right]).0);
    assert_eq!(failures(), 0, "a confirmed pass clears");
    // Two questions, one attempt. pam_ftp asks by itself, and is never content with jon: a right first factor with a
    // wrong second one clears nothing.
    stack(&["auth required pam_unix.so", "auth required pam_ftp.so"]);
    let (let_in, text) = attempt(&[&right, "wrong"]);
    assert!(!let_in && text.matches("assword").count() == 2, "{text}");
    assert_eq!(failures(), 1);
    // Nothing asked, nothing charged, nothing cleared.
    stack(&["auth required pam_deny.so"]);
    assert!(!attempt(&[]).0);
    stack(&["auth required pam_permit.so"]);
    assert!(attempt(&[]).0);
    assert_eq!(failures(), 1);
    // A password that an earlier module left is tried without a question.
    let lines = "auth optional pam_unix.so\nauth requisite pam_portcullis.so charge=conversation\n\
                 auth required pam_unix.so use_first_pass\n";
    write(Path::new("/etc/pam.d/asks"), lines).unwrap();
    assert!(!attempt(&["wrong"]).0);
    assert_eq!(failures(), 2);
    stack(&["auth required pam_unix.so"]);
    assert!(!attempt(&["wrong"]).0);
    // Locked: nothing is asked any more.
    let (let_in, text) = attempt(&[&right]);
    assert!(!let_in && !text.contains("Password:") && text.contains("locked"), "{text}");
}

#[test]
fn an_answer_that_comes_after_the_lock_reaches_nobody() {
    if !enter("an_answer_that_comes_after_the_lock_reaches_nobody", &DENY_3) {
        return;
    }
    stack(&["auth required pam_unix.so"]);
    let mut child = start();
    let mut prompt = Vec::new();
    let mut byte = [0];
    while !prompt.ends_with(b"assword: ") {
        assert_ne!(child.stderr.as_mut().unwrap().read(&mut byte).unwrap(), 0, "no prompt");
        prompt.extend(byte);
    }
    assert!(run("portcullis", &["lock", "jon"]).unwrap().0);
    writeln!(child.stdin.take().unwrap(), "{}", password("jon")).unwrap();
    let (let_in, text) = ended(child);
    assert!(!let_in, "{text}");
    let (_, log) = run("cat", &["/var/log/auth.log"]).unwrap();
    assert!(log.contains("refused: locked until an administrator releases it"), "{log}");
    // pam_unix got no password to be wrong about.
    assert!(!log.contains("authentication failure; logname="), "{log}");
}
