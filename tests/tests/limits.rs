//! What a caller brings along: resource limits, closed descriptors. su and sudo inherit them; whoever is let in under
//! them has been counted, and a lock holds.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use portcullis_tests::books::{Books, entries};
use portcullis_tests::inside::{DENY_3, enter};
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::su::{JON, KON, Su};
use portcullis_tests::system::{password, write};

/// The programs: by whom, what, for jon's password.
const PROGRAMS: [(u32, &str); 2] = [(KON, "su jon -c true"), (JON, "sudo -S -k -p '' true")];

/// What a shell does before it becomes the program.
fn burdens() -> Vec<String> {
    let shells = |limit: &str, values: &[u32]| -> Vec<String> {
        values.iter().map(|value| format!("ulimit {limit} {value}")).collect()
    };
    // From what lets nothing start to what lets everything work (-v and -d in KiB).
    let mut list = shells("-n", &[3, 5, 6, 7, 8, 10, 12, 14]);
    list.extend(shells("-v", &[3_000, 6_000, 12_000, 18_000, 24_000, 36_000]));
    list.extend(shells("-d", &[0, 400, 1_000, 4_000]));
    list.extend(["-f 0", "-p 1", "-l 0", "-s 128"].map(|limit| format!("ulimit {limit}")));
    list.extend(["exec >&-", "exec 2>&-", "exec >&- 2>&-", "exec <&-"].map(str::to_owned));
    list
}

/// Starts `program` as `uid` under the burden and has the password ready for it.
fn start(burden: &str, (uid, program): (u32, &str), password: &str) -> Su {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{burden}; exec {program}")]).uid(uid).gid(uid).current_dir("/");
    let mut su = Su::spawn(shell).unwrap();
    // It may have ended already, without having read.
    let _ = su.submit(password);
    su
}

#[test]
fn whoever_is_let_in_under_a_limit_has_been_counted() {
    if !enter("whoever_is_let_in_under_a_limit_has_been_counted", &DENY_3) {
        return;
    }
    without_delays().unwrap();
    write(Path::new("/etc/sudoers.d/jon"), "jon ALL=(ALL) ALL\n").unwrap();
    let right = password("jon");
    let mut books = Books::open("jon").unwrap();
    // su that has no descriptor left for the gate (-n 3 to 7) is refused without a record, here and while it is locked.
    books.expect_alarms([8, 0, 0]);
    let mut worked = Vec::new();
    for program in PROGRAMS {
        for burden in burdens() {
            let verdict = start(&burden, program, &right).verdict().unwrap();
            let page = books.take().unwrap();
            let [pass, cleared] = ["pass", "cleared"].map(|kind| entries(&page, kind));
            println!("{:24} {burden:16} let in: {}; {page}", program.1, verdict.let_in);
            if verdict.let_in {
                assert_eq!((pass, cleared), (1, 1), "{program:?} {burden}: {page} {}", verdict.output);
                worked.push((program, burden));
            }
        }
    }
    assert!(
        worked.iter().any(|(program, burden)| program.0 == KON && burden == "ulimit -n 14"),
        "{worked:?}"
    );

    // Where a right one got in, wrong ones are counted and lock.
    for (program, burden) in &worked {
        let wrong: Vec<Su> = (0..3).map(|_| start(burden, *program, "wrong")).collect();
        for su in wrong {
            assert!(!su.verdict().unwrap().let_in, "{program:?} {burden}");
        }
        let page = books.take().unwrap();
        assert!(entries(&page, "fail") == 3 && page.ends_with("locked"), "{program:?} {burden}: {page}");
    }

    // While it is locked nobody gets in, whatever he brings along.
    must("portcullis", &["lock", "jon"]).unwrap();
    let all = PROGRAMS.iter().flat_map(|program| burdens().into_iter().map(move |burden| (*program, burden)));
    let refused: Vec<_> =
        all.map(|(program, burden)| (start(&burden, program, &right), program, burden)).collect();
    for (su, program, burden) in refused {
        let verdict = su.verdict().unwrap();
        assert!(!verdict.let_in, "{program:?} {burden}: {}", verdict.output);
    }
    let page = books.take().unwrap();
    assert!(page.ends_with("locked") && entries(&page, "pass") == 0, "{page}");
    assert!(entries(&page, "refused") >= worked.len(), "{page}");
}
