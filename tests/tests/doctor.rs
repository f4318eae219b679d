//! `portcullis doctor`: each finding provoked by really doing it, and its walk through PAM stacks held against libpam's.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::path::Path;
use std::process::{Command, Stdio};

use portcullis_tests::agent;
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::stack::{edit, must, service};
use portcullis_tests::system::{read, run, write};
use serde_json::Value;

const SSHD: &str = "/etc/ssh/sshd_config.d/portcullis-sandbox.conf";
const CONFIG: &str = "/etc/portcullis/portcullis.toml";
const PINS: &str = "/sys/fs/bpf/portcullis";

/// The exit status and the findings.
fn doctor(arguments: &[&str]) -> (i32, Vec<Value>) {
    let mut command = Command::new("portcullis");
    let output = command.args(["doctor", "--json"]).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let findings = serde_json::from_str(&text).unwrap_or_else(|error| {
        let said = String::from_utf8_lossy(&output.stderr);
        unreachable!("{error}: {text}{said}")
    });
    (output.status.code().unwrap(), findings)
}

fn text<'a>(finding: &'a Value, field: &str) -> &'a str {
    finding[field].as_str().unwrap_or_default()
}

/// `level check services` of what is not ok, sorted; each names a next step.
fn wrong() -> Vec<String> {
    let (status, findings) = doctor(&[]);
    let mut found = Vec::new();
    let mut worst = false;
    for finding in findings.iter().filter(|finding| finding["level"] != "ok") {
        assert!(!text(finding, "next").is_empty(), "{finding}");
        worst |= finding["level"] != "note";
        let services = finding["services"].as_array().unwrap();
        let services: Vec<&str> = services.iter().filter_map(Value::as_str).collect();
        let line = format!("{} {} {}", text(finding, "level"), text(finding, "check"), services.join(","));
        found.push(line.trim_end().to_owned());
    }
    assert_eq!(status, i32::from(worst), "{found:?}");
    found.sort();
    found
}

/// Fails unless these and no others are found, beside what every sandbox lacks.
fn assert_wrong(expected: &[&str], when: &str) {
    let mut expected: Vec<&str> = expected.iter().copied().chain(["note password-missing passwd"]).collect();
    expected.sort_unstable();
    assert_eq!(wrong(), expected, "{when}");
}

/// Changes a file, sees what the doctor finds, and puts it back.
fn with(path: &str, change: impl Fn(&str) -> String, expected: &[&str], when: &str) {
    let path = Path::new(path);
    let before = read(path).unwrap();
    write(path, &change(&before)).unwrap();
    assert_wrong(expected, when);
    write(path, &before).unwrap();
}

#[test]
fn the_doctor_finds_what_is_wrong_with_the_stacks() {
    if !enter("the_doctor_finds_what_is_wrong_with_the_stacks", &Setup::default()) {
        return;
    }
    assert_wrong(&[], "as it is installed");
    let (_, table) = run("portcullis", &["doctor"]).unwrap();
    assert!(
        table.contains("ok       auth-line") && table.contains("\n0 errors, 0 warnings, 1 note, "),
        "{table}"
    );

    // All services with the shared stack; which there are depends on the packages.
    let (_, findings) = doctor(&[]);
    let good = findings.iter().filter(|finding| finding["check"] == "auth-line");
    let services: Vec<&str> = good.filter_map(|finding| finding["services"][0].as_str()).collect();
    for service in ["sshd", "login", "su", "sudo", "cron", "other"] {
        assert!(services.contains(&service), "{service}: {services:?}");
    }
    let common = "/etc/pam.d/common-auth";
    let each =
        |check: &str| services.iter().map(|service| format!("error {check} {service}")).collect::<Vec<_>>();
    let ours = |line: &str| line.contains("pam_portcullis.so");
    let lines = |change: &dyn Fn(&str) -> Option<String>| {
        let text = read(Path::new(common)).unwrap();
        text.lines().filter_map(change).map(|line| line + "\n").collect::<String>()
    };
    let cases: [(&str, String, &str); 4] = [
        ("auth-missing", lines(&|line| (!ours(line)).then(|| line.into())), "the line is gone"),
        (
            "auth-below",
            lines(&|line| match line {
                _ if ours(line) => None,
                _ if line.contains("pam_unix.so") => Some(format!(
                    "{}\nauth requisite pam_portcullis.so",
                    line.replace("success=1", "success=2")
                )),
                _ => Some(line.into()),
            }),
            "the line below pam_unix",
        ),
        (
            "auth-goes-on",
            lines(&|line| Some(line.replace("requisite\tpam_port", "required\tpam_port"))),
            "required",
        ),
        (
            "auth-around",
            lines(&|line| {
                let jump = "auth [success=1 default=ignore] pam_succeed_if.so user = jon\n";
                Some(if ours(line) { format!("{jump}{line}") } else { line.into() })
            }),
            "a jump over the line",
        ),
    ];
    for (check, text, when) in cases {
        let expected = each(check);
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        with(common, |_| text.clone(), &expected, when);
    }
    assert_wrong(&[], "put back");

    // A service with a stack of its own.
    service("own", "auth required pam_unix.so\naccount required pam_unix.so\n").unwrap();
    assert_wrong(&["error auth-missing own"], "a stack without the shared one");
    // In a substack our refusal ends the substack alone.
    write(Path::new("/etc/pam.d/part"), "auth requisite pam_portcullis.so\nauth required pam_unix.so\n")
        .unwrap();
    service("own", "auth substack part\nauth required pam_userdb.so db=/none\n").unwrap();
    assert_wrong(&["error auth-goes-on own"], "a substack");
    service("own", "auth requisite pam_portcullis.so nonsense\nauth required pam_oath.so\n").unwrap();
    assert_wrong(&["warning auth-charge own", "warning line-words own"], "a code, and a word");
    service("own", "auth required pam_faillock.so preauth\n@include common-auth\n").unwrap();
    assert_wrong(&["warning two-counters own"], "pam_faillock");
    service("own", "@include nowhere\n").unwrap();
    assert_wrong(&["error stack-broken own"], "a file that is not there");
    service("own", "auth requisite pam_portcullis.so\n@include common-auth\n").unwrap();
    assert_wrong(&["warning auth-twice own"], "twice");
    std::fs::remove_file("/etc/pam.d/own").unwrap();
    std::fs::remove_file("/etc/pam.d/part").unwrap();

    // The account and the password line.
    let account = "/etc/pam.d/common-account";
    let without =
        |text: &str| text.lines().filter(|line| !ours(line)).map(|line| format!("{line}\n")).collect();
    let missing = ["login", "sshd", "su", "su-l"].map(|service| format!("warning account-missing {service}"));
    let mut missing: Vec<&str> = missing.iter().map(String::as_str).collect();
    missing.push("warning sshd-keys sshd");
    with(account, without, &missing, "no account line, and keys are taken");
    write(
        Path::new(SSHD),
        &read(Path::new(SSHD)).unwrap().replace("UsePAM", "PubkeyAuthentication no\nUsePAM"),
    )
    .unwrap();
    missing.pop();
    with(account, without, &missing, "no account line, and no keys");
    must("sed", &["-i", "/PubkeyAuthentication/d", SSHD]).unwrap();
    edit("common-password", |line| {
        let ours = if line.contains("pam_unix.so") { "password requisite pam_portcullis.so\n" } else { "" };
        format!("{ours}{line}")
    })
    .unwrap();
    assert_eq!(wrong(), [""; 0], "with the password line");
}

#[test]
fn the_doctor_finds_what_is_wrong_with_gate_sshd_and_accounts() {
    if !enter("the_doctor_finds_what_is_wrong_with_gate_sshd_and_accounts", &Setup::default()) {
        return;
    }
    for (set, check) in [("UsePAM no", "error sshd-use-pam sshd"), ("UseDNS yes", "warning sshd-dns sshd")] {
        let word = set.split(' ').next().unwrap();
        let change = |text: &str| {
            let kept = text.lines().filter(|line| !line.starts_with(word));
            kept.chain([set]).map(|line| format!("{line}\n")).collect()
        };
        with(SSHD, change, &[check], set);
    }
    with(
        SSHD,
        |text| format!("{text}Nonsense yes\n"),
        &["warning sshd-unreadable"],
        "a word sshd does not know",
    );
    with(
        SSHD,
        |text| format!("{text}Match User jon\nPasswordAuthentication no\n"),
        &["note sshd-match sshd"],
        "Match",
    );

    let gate = format!("{PINS}/v1/gate");
    for (path, mode, right) in
        [(PINS, "755", "700"), (&format!("{PINS}/v1"), "750", "700"), (&gate, "644", "600")]
    {
        must("chmod", &[mode, path]).unwrap();
        assert_wrong(&["error pins"], path);
        must("chmod", &[right, path]).unwrap();
    }
    must("chown", &["kon", &gate]).unwrap();
    assert_wrong(&["error pins"], "a pin of kon's");
    must("chown", &["root", &gate]).unwrap();
    std::fs::create_dir(format!("{PINS}/v999")).unwrap();
    assert_wrong(&["error other-versions"], "pins of another version");
    std::fs::remove_dir(format!("{PINS}/v999")).unwrap();
    let module = must("sh", &["-c", "ls /lib/*/security/pam_portcullis.so"]).unwrap();
    must("chmod", &["666", module.trim()]).unwrap();
    assert_wrong(&["error module"], "a module that everybody can write");
    must("chmod", &["644", module.trim()]).unwrap();

    // The break-glass account.
    let text = read(Path::new(CONFIG)).unwrap();
    must("chage", &["-E", "2001-01-01", "admin"]).unwrap();
    assert_wrong(&["error configuration"], "expired");
    must("chage", &["-E", "-1", "-d", "2001-01-01", "-M", "100", "admin"]).unwrap();
    assert_wrong(&["error break-glass"], "a password that has expired");
    must("chage", &["-d", "2001-01-01", "-M", "-1", "admin"]).unwrap();
    must("passwd", &["-l", "admin"]).unwrap();
    assert_wrong(&["error configuration"], "a locked password");
    must("passwd", &["-u", "admin"]).unwrap();
    must("usermod", &["-s", "/usr/sbin/nologin", "admin"]).unwrap();
    assert_wrong(&["error configuration"], "no shell");
    must("usermod", &["-s", "/bin/bash", "admin"]).unwrap();
    write(Path::new(CONFIG), &text.replace("break_glass = \"admin\"", "break_glass = false")).unwrap();
    assert_wrong(&["warning break-glass-none"], "none");
    write(Path::new(CONFIG), "deny = \n").unwrap();
    assert_wrong(&["error configuration"], "nonsense");
    write(Path::new(CONFIG), &text).unwrap();
    assert_wrong(&[], "all put back");

    // Programs.
    agent::kill_9().unwrap();
    assert_wrong(&["warning agent"], "no agent");
    std::fs::remove_file(format!("{PINS}/v1/exit_link")).unwrap();
    assert_wrong(&["warning agent", "warning exit-program"], "no exit program");
    std::fs::remove_dir_all(PINS).unwrap();
    assert_wrong(
        &["error gate", "error pins", "warning agent", "warning exit-program"],
        "the way out: no pins",
    );
    must("umount", &["/sys/fs/bpf"]).unwrap();
    assert_wrong(
        &["error bpffs", "error gate", "error pins", "warning agent", "warning exit-program"],
        "no bpffs",
    );
}

#[test]
fn the_doctor_looks_at_another_root() {
    if !enter("the_doctor_looks_at_another_root", &Setup { bare: true, ..Setup::default() }) {
        return;
    }
    let root = "/srv/image";
    must("sh", &["-c", "mkdir -p /srv/image/etc /srv/image/usr/lib/pam.d; cp -a /etc/pam.d /srv/image/etc"])
        .unwrap();
    service("on-the-host-only", "auth required pam_unix.so\n").unwrap();
    write(Path::new("/srv/image/usr/lib/pam.d/kiosk"), "auth required pam_unix.so\n").unwrap();
    let (status, findings) = doctor(&["--root", root]);
    assert_eq!(status, 1);
    let of = |level: &str| -> Vec<(&str, &str)> {
        let found = findings.iter().filter(|finding| finding["level"] == level);
        found
            .map(|finding| (text(finding, "check"), finding["services"][0].as_str().unwrap_or_default()))
            .collect()
    };
    assert_eq!(of("error"), [("module", ""), ("auth-missing", "kiosk"), ("configuration", "")]);
    assert!(of("ok").contains(&("auth-line", "sshd")) && of("warning").is_empty(), "{findings:?}");
    let (status, said) = run("portcullis", &["doctor", "--root", "/nowhere"]).unwrap();
    assert!(!status && said.contains("/nowhere is no folder"), "{said}");
}
