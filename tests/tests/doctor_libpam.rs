//! The doctor's reading of PAM stacks held against the real libpam: every stack below is run by pamtester with each of
//! its modules succeeding and failing, and a trace of what really ran.
//!
//! Where our line would stand is a program that leaves a trace, as are the modules that would check a secret: pam_exec
//! with the name as its last word. It returns success where ours returns PAM_IGNORE, so its control field says
//! `success=` where ours says `ignore=`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::collections::BTreeSet;
use std::path::Path;

use portcullis_agent::doctor::pam::load::{Handler, Kind, What, service};
use portcullis_agent::doctor::pam::walk;
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::stack::must;
use portcullis_tests::system::{portcullis, read, run, write};

/// Modules that check secrets, for the doctor.
const SECRETS: [&str; 3] = ["pam_unix", "pam_sss", "pam_ldap"];
const STEP: &str = "pam_exec.so quiet seteuid /usr/local/sbin/step";
const STEPS: &str = "/run/steps";

/// Files that the stacks include.
const PARTS: [(&str, &str); 4] = [
    (
        "guarded",
        "auth requisite pam_portcullis.so\nauth sufficient pam_unix.so\nauth requisite pam_deny.so\n",
    ),
    ("early", "auth sufficient STEP early\nauth requisite pam_portcullis.so\n"),
    (
        "outer",
        "auth [success=1 default=ignore] STEP outer\nauth substack guarded\nauth required pam_ldap.so\n",
    ),
    ("resets", "auth required STEP first\nauth [success=ok default=reset] STEP second\n"),
];

/// Name, stack, and whether it is wrong: a secret is checked without our line (`open`), or after its refusal (`on`).
const STACKS: [(&str, &str, &str); 27] = [
    (
        "debian",
        "auth requisite pam_portcullis.so\nauth [success=1 default=ignore] pam_unix.so nullok\nauth requisite \
                pam_deny.so\nauth required pam_permit.so\nauth optional STEP last\n",
        "",
    ),
    ("none", "auth required pam_unix.so\nauth optional pam_sss.so\n", "open"),
    ("below", "auth [success=ok default=die] pam_unix.so\nauth requisite pam_portcullis.so\n", "open"),
    (
        "below2",
        "auth sufficient pam_unix.so\nauth requisite pam_portcullis.so\nauth required pam_sss.so\n",
        "open",
    ),
    ("required", "auth required pam_portcullis.so\nauth required pam_unix.so\n", "on"),
    ("optional", "auth optional pam_portcullis.so\nauth required pam_unix.so\n", "on"),
    ("sufficient", "auth sufficient pam_portcullis.so\nauth required pam_unix.so\n", "on"),
    ("sure", "auth sufficient STEP a\nauth requisite pam_portcullis.so\nauth required pam_unix.so\n", ""),
    (
        "jump1",
        "auth [success=1 default=ignore] STEP a\nauth requisite pam_portcullis.so\nauth required pam_unix.so\n",
        "open",
    ),
    (
        "jump2",
        "auth [success=2 default=ignore] STEP a\nauth requisite pam_portcullis.so\nauth required pam_unix.so\n\
               auth required pam_permit.so\n",
        "",
    ),
    (
        "jump9",
        "auth [success=9 default=ignore] STEP a\nauth requisite pam_portcullis.so\nauth required pam_unix.so\n",
        "",
    ),
    (
        "always",
        "auth [default=1] STEP a\nauth requisite pam_portcullis.so\nauth required pam_unix.so\n",
        "open",
    ),
    (
        "tosub",
        "auth [success=1 default=ignore] STEP a\nauth substack guarded\nauth required pam_sss.so\n",
        "open on",
    ),
    (
        "toinc",
        "auth [success=1 default=ignore] STEP a\nauth include guarded\nauth required pam_sss.so\n",
        "open",
    ),
    ("inc", "auth required STEP a\nauth include guarded\nauth required pam_sss.so\n", ""),
    ("sub", "auth substack guarded\nauth required STEP a\n", ""),
    ("early1", "auth substack early\nauth required pam_unix.so\n", "open on"),
    ("nested", "auth substack outer\nauth optional STEP a\n", "open on"),
    (
        "deep",
        "auth optional STEP a\nauth [success=1 default=ignore] STEP b\nauth substack outer\n@include guarded\n",
        "open on",
    ),
    (
        "reset",
        "auth substack resets\nauth sufficient STEP a\nauth requisite pam_portcullis.so\nauth required pam_unix.so\n",
        "",
    ),
    (
        "lines",
        "# auth required pam_sss.so\nAUTH \\\n  # not the end\n\n  Requisite \\\n pam_portcullis.so # x \\\nauth\t[ success = 1\tdefault=ignore ]\tpam_unix.so [x\\]y z]\n\
               @INCLUDE guarded\n-auth required pam_permit.so",
        "",
    ),
    (
        "gone",
        "-auth [module_unknown=1 default=ignore] pam_not_there.so\nauth requisite pam_portcullis.so\nauth required \
              pam_unix.so\n",
        "open",
    ),
    (
        "odd",
        "auht required pam_permit.so\nauth sometimes STEP a\nauth\nauth required\nauth include not-there\n\
             auth requisite pam_portcullis.so\nauth sufficient pam_unix.so\n",
        "",
    ),
    (
        "over",
        "auth [ignore=1 default=die] pam_portcullis.so\nauth requisite pam_deny.so\nauth required pam_unix.so\n",
        "",
    ),
    (
        "soft",
        "auth [ignore=ignore default=1] pam_portcullis.so\nauth required pam_unix.so\nauth required pam_sss.so\n",
        "on",
    ),
    (
        "faillock",
        "auth requisite pam_portcullis.so\nauth [success=1 default=bad] pam_unix.so\nauth [default=die] STEP a\n\
                  auth sufficient STEP b\nauth requisite pam_deny.so\n",
        "",
    ),
    ("account", "account required STEP a\naccount include guarded\n", ""),
];
/// What stands in for the services without auth lines, or without a file.
const OTHER: &str = "auth required pam_sss.so\n";

/// The text that libpam gets.
fn real(text: &str) -> String {
    let mut text = text.replace("STEP", STEP);
    for secret in SECRETS {
        text = text.replace(&format!("{secret}.so"), &format!("{STEP} {secret}"));
    }
    let ours = |line: &str| {
        let fields = [
            ("requisite", "[success=ignore default=die]"),
            ("Requisite", "[success=ignore default=die]"),
            ("required", "[success=ignore default=bad]"),
            ("optional", "[success=ignore default=ignore]"),
            ("sufficient", "[success=ignore default=ignore]"),
            ("[ignore=", "[success="),
        ];
        let mut line = line.to_owned();
        if line.contains("pam_portcullis.so") || line.trim() == "Requisite \\" {
            for (field, traced) in fields {
                line = line.replace(field, traced);
            }
        }
        line.replace("pam_portcullis.so", &format!("{STEP} ours"))
    };
    text.split_inclusive('\n').map(ours).collect()
}

/// The name under which a module leaves its trace, or that of the module.
fn name(handler: &Handler) -> String {
    match &handler.what {
        What::Module { words, .. } if handler.module() == "pam_exec" => {
            // Words of the line that stood for another module come behind the name.
            let place = words.iter().position(|word| word.ends_with(b"step")).unwrap();
            String::from_utf8(words[place + 1].clone()).unwrap()
        }
        _ => handler.module(),
    }
}

/// What libpam really ran, in order, and whether pamtester was let in.
fn ran(service: &str) -> (Vec<String>, bool) {
    write(Path::new(STEPS), "").unwrap();
    let (let_in, _) = run("pamtester", &[service, "jon", "authenticate"]).unwrap();
    (read(Path::new(STEPS)).unwrap().lines().map(str::to_owned).collect(), let_in)
}

#[test]
fn the_doctor_walks_stacks_as_libpam_does() {
    if !enter("the_doctor_walks_stacks_as_libpam_does", &Setup { bare: true, ..Setup::default() }) {
        return;
    }
    let step = "#!/bin/sh\necho \"$1\" >> /run/steps\nexec test ! -e \"/run/fails/$1\"\n";
    write(Path::new("/usr/local/sbin/step"), step).unwrap();
    must("sh", &["-c", "chmod 755 /usr/local/sbin/step; mkdir -p /run/fails /srv/root/etc/pam.d"]).unwrap();
    let stacks = STACKS.map(|(name, text, _)| (name, text));
    for (name, text) in PARTS.iter().chain(&stacks).chain(&[("other", OTHER)]) {
        write(&Path::new("/etc/pam.d").join(name), &real(text)).unwrap();
        write(&Path::new("/srv/root/etc/pam.d").join(name), &text.replace("STEP", STEP)).unwrap();
    }
    let load = |path: &str| std::fs::read(path).ok();

    let findings = portcullis(&["doctor", "--root", "/srv/root"]).unwrap();
    let findings = findings.as_array().unwrap();
    let said = |service: &str, checks: &[&str]| {
        findings.iter().any(|finding| {
            let of = finding["services"].as_array().unwrap().iter().any(|name| name == service);
            of && checks.iter().any(|check| finding["check"] == *check)
        })
    };
    let mut runs = 0;
    for (service_name, _, expected) in STACKS {
        let own = service(service_name, &load).unwrap().stack(Kind::Auth);
        let stack = if own.is_empty() { service("other", &load).unwrap().stack(Kind::Auth) } else { own };
        let names: Vec<String> = stack.iter().map(name).collect();
        let traced: BTreeSet<&String> = stack
            .iter()
            .zip(&names)
            .filter(|(handler, _)| handler.module() == "pam_exec")
            .map(|(_, name)| name)
            .collect();
        let traced: Vec<&String> = traced.into_iter().collect();
        let (mut open, mut on) = (false, false);
        for choice in 0..1_u32 << traced.len() {
            let fails = |name: &String| {
                traced.iter().position(|traced| *traced == name).is_some_and(|bit| choice >> bit & 1 == 1)
            };
            for name in &traced {
                let path = Path::new("/run/fails").join(name);
                if fails(name) {
                    write(&path, "").unwrap();
                } else {
                    let _ = std::fs::remove_file(&path);
                }
            }
            let (trace, let_in) = ran(service_name);
            runs += 1;
            // The same way, as the doctor walks it.
            let (walked, walked_in) = walk::run(&stack, |at| match names[at].as_str() {
                "pam_permit" => 0,
                "pam_deny" => 7,
                "pam_not_there" => 28,
                _ if fails(&names[at]) => 4,
                _ => 0,
            });
            let leaves = |at: &&usize| traced.contains(&&names[**at]);
            let walked: Vec<&str> = walked.iter().filter(leaves).map(|at| names[*at].as_str()).collect();
            let failing: Vec<_> = traced.iter().filter(|name| fails(name)).collect();
            assert_eq!(trace, walked, "{service_name}, failing: {failing:?}");
            assert_eq!(let_in, walked_in, "{service_name}, failing: {failing:?}; ran {trace:?}");
            let ours = trace.iter().position(|name| name == "ours");
            for (at, _) in trace.iter().enumerate().filter(|(_, name)| SECRETS.contains(&name.as_str())) {
                match ours.filter(|ours| *ours < at) {
                    None => open = true,
                    Some(_) if fails(&"ours".to_owned()) => on = true,
                    Some(_) => {}
                }
            }
        }
        // What was really seen, what this page expects, and what the doctor says of the stack with our line in it.
        let seen = [(open, "open"), (on, "on")].into_iter().filter(|(seen, _)| *seen).map(|(_, word)| word);
        let seen = seen.collect::<Vec<_>>().join(" ");
        if service_name != "account" {
            assert_eq!(seen, expected, "{service_name}, as it really ran");
            assert_eq!(
                said(service_name, &["auth-missing", "auth-below", "auth-around"]),
                open,
                "{service_name}"
            );
            assert_eq!(said(service_name, &["auth-goes-on"]), on, "{service_name}: {findings:?}");
        } else {
            assert!(open && said("other", &["auth-missing"]), "without auth lines those of other");
        }
    }
    assert!(runs > 200, "{runs}");
    // Names: lower case is asked for, folders are cut off, what has no file is other.
    for asked in ["DEBIAN", "x/debian"] {
        assert_eq!(ran(asked), ran("debian"), "{asked}");
    }
    assert_eq!(ran("no-such-service").0, ["pam_sss"]);
}
