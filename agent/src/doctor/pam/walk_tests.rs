//! Ways through stacks, by the rules of pam.conf(5).

use super::super::load::{Kind, service};
use super::super::modules::{Nature, nature};
use super::*;

fn role(handler: &Handler) -> Role {
    match nature(handler) {
        Nature::Ours => Role::Ours,
        Nature::Permit => Role::Permit,
        Nature::Deny => Role::Deny,
        nature if nature.secret() => Role::Secret,
        _ => Role::Other,
    }
}

/// Modules that check a secret and are reached in that state, with the line of the entry that led around ours.
fn reached(text: &str, passed: Passed) -> Vec<(String, Option<usize>)> {
    let inner = "auth requisite pam_portcullis.so\nauth sufficient pam_unix.so\nauth required pam_deny.so\n";
    let files = |path: &str| match path {
        "/etc/pam.d/x" => Some(text.as_bytes().to_vec()),
        "/etc/pam.d/inner" => Some(inner.as_bytes().to_vec()),
        _ => None,
    };
    let stack = service("x", &files).unwrap().stack(Kind::Auth);
    let seen = walk(&stack, &role);
    assert!(!seen.gave_up);
    let secret = |at: usize| role(&stack[at]) == Role::Secret;
    let found = seen.of(passed, &secret);
    found.map(|(at, around)| (stack[at].module(), around.map(|at| stack[at].place.line))).collect()
}

fn names(text: &str, passed: Passed) -> String {
    reached(text, passed).into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" ")
}

const DEBIAN: &str = "\
auth requisite pam_portcullis.so
auth [success=1 default=ignore] pam_unix.so nullok
auth requisite pam_deny.so
auth required pam_permit.so
";

#[test]
fn debians_stack_is_guarded() {
    assert_eq!(names(DEBIAN, Passed::Admitted), "pam_unix");
    assert_eq!(names(DEBIAN, Passed::Not), "");
    assert_eq!(names(DEBIAN, Passed::Refused), "");
    let root = format!("auth sufficient pam_rootok.so\n{DEBIAN}");
    assert_eq!(names(&root, Passed::Not), "", "what ends the stack above us asks for nothing");
}

#[test]
fn a_line_that_is_missing_or_below_guards_nothing() {
    assert_eq!(names("auth required pam_unix.so\n", Passed::Not), "pam_unix");
    assert_eq!(
        names("auth required pam_unix.so\nauth requisite pam_portcullis.so\n", Passed::Not),
        "pam_unix"
    );
    assert_eq!(
        names(
            "auth sufficient pam_sss.so\nauth requisite pam_portcullis.so\nauth required pam_unix.so\n",
            Passed::Not
        ),
        "pam_sss"
    );
}

#[test]
fn jumps_lead_around_the_line() {
    let jump = "auth [success=1 default=ignore] pam_succeed_if.so user = x\nauth requisite pam_portcullis.so\n\
                auth required pam_unix.so\n";
    assert_eq!(reached(jump, Passed::Not), [("pam_unix".to_owned(), Some(1))]);
    let far = jump.replace("success=1", "success=2");
    assert_eq!(names(&far, Passed::Not), "", "it skips pam_unix too");
    // A substack counts as one entry, an include as what it holds.
    let over =
        "auth [success=1 default=ignore] pam_succeed_if.so\nauth KIND inner\nauth required pam_unix.so\n";
    assert_eq!(reached(&over.replace("KIND", "substack"), Passed::Not), [("pam_unix".to_owned(), Some(1))]);
    assert_eq!(names(&over.replace("KIND", "include"), Passed::Not), "pam_unix pam_unix");
}

#[test]
fn only_requisite_stops_a_refused_attempt() {
    for (control, goes_on) in [
        ("requisite", false),
        ("required", true),
        ("optional", true),
        ("sufficient", true),
        ("[success=ok ignore=ignore default=die]", false),
        ("[ignore=ignore default=bad]", true),
        ("[auth_err=die ignore=ignore default=ignore]", true),
    ] {
        let text = format!("auth {control} pam_portcullis.so\nauth required pam_unix.so\n");
        assert_eq!(names(&text, Passed::Refused) == "pam_unix", goes_on, "{control}");
    }
    // A substack that ends so ends alone.
    assert_eq!(names("auth substack inner\nauth required pam_sss.so\n", Passed::Refused), "pam_sss");
    assert_eq!(names("auth include inner\nauth required pam_sss.so\n", Passed::Refused), "");
}

#[test]
fn done_needs_a_good_impression_and_reset_takes_it_back() {
    let ways = |text: &str, codes: &[usize]| {
        let stack = service("x", &|path| (path == "/etc/pam.d/x").then(|| text.as_bytes().to_vec()));
        let mut codes = codes.iter().copied();
        run(&stack.unwrap().stack(Kind::Auth), |_| codes.next().unwrap())
    };
    let text = "auth required pam_a.so\nauth sufficient pam_b.so\nauth required pam_c.so\n";
    assert_eq!(ways(text, &[0, 0]), (vec![0, 1], true));
    assert_eq!(ways(text, &[7, 0, 0]), (vec![0, 1, 2], false), "what was bad stays bad");
    let text = "auth required pam_a.so\nauth [default=reset] pam_b.so\nauth required pam_c.so\n";
    assert_eq!(ways(text, &[7, 0, 0]), (vec![0, 1, 2], true));
    let text = "auth [success=3 default=ignore] pam_a.so\nauth required pam_b.so\n";
    assert_eq!(ways(text, &[0]), (vec![0], false), "a jump over the end is bad");
    assert_eq!(ways("auth optional pam_a.so\n", &[7]), (vec![0], false), "nothing good at all");
    assert_eq!(ways("auth required pam_a.so\n", &[12]), (vec![0], true), "a password to be renewed");
    assert_eq!(ways("auth [default=ok] pam_a.so\nauth required pam_b.so\n", &[7, 0]), (vec![0, 1], false));
}

#[test]
fn a_line_that_stands_twice_is_seen() {
    let text = format!("auth requisite pam_portcullis.so\n{DEBIAN}");
    let stack = service("x", &|path| (path == "/etc/pam.d/x").then(|| text.as_bytes().to_vec()));
    assert_eq!(walk(&stack.unwrap().stack(Kind::Auth), &role).twice, [1]);
}
