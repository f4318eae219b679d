//! Each finding about a stack, from the text that provokes it.

use super::*;
use crate::doctor::finding::Level;

const COMMON: [(&str, &str); 3] = [
    (
        "common-auth",
        "auth requisite pam_portcullis.so\nauth [success=1 default=ignore] pam_unix.so nullok\n\
         auth requisite pam_deny.so\nauth required pam_permit.so\nauth optional pam_cap.so\n",
    ),
    (
        "common-account",
        "account required pam_portcullis.so\naccount [success=1 new_authtok_reqd=done default=ignore] pam_unix.so\n\
         account requisite pam_deny.so\naccount required pam_permit.so\n",
    ),
    ("su", "auth sufficient pam_rootok.so\n@include common-auth\n@include common-account\n"),
];

fn judged(files: &[(&str, &str)]) -> Judged {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (name, text) in COMMON.iter().chain(files) {
        all.insert(format!("/etc/pam.d/{name}"), (*text).to_owned());
    }
    let names = all.keys().filter_map(|path| path.rsplit('/').next()).map(str::to_owned).collect();
    judge(&names, &|path| all.get(path).map(|text| text.clone().into_bytes()))
}

/// `check service place` of what is not good, but for missing password lines.
fn wrong(files: &[(&str, &str)]) -> Vec<String> {
    let found = judged(files).findings.into_iter().filter(|finding| finding.level > Level::Ok);
    let mut texts: Vec<String> = found
        .map(|finding| {
            assert!(finding.next.is_some(), "{finding:?}");
            let place = finding.place.unwrap_or_default().replace("/etc/pam.d/", "");
            format!("{} {} {place}", finding.check.name(), finding.services.join(",")).trim_end().to_owned()
        })
        .collect();
    texts.sort();
    texts
}

#[test]
fn debians_stacks_are_good() {
    assert_eq!(wrong(&[]), [""; 0]);
    let judged = judged(&[("runuser", "auth sufficient pam_rootok.so\nsession required pam_unix.so\n")]);
    let texts: Vec<String> = judged
        .findings
        .iter()
        .map(|finding| format!("{} {}", finding.services.join(","), finding.what))
        .collect();
    assert_eq!(
        texts,
        ["runuser asks for no secret", "su stands above pam_unix", "su refuses a locked account"]
    );
    assert_eq!(judged.account.get("su"), Some(&true));
}

#[test]
fn a_line_that_does_not_guard_is_told() {
    for (text, expected) in [
        ("auth required pam_unix.so\n", "auth-missing x x:1"),
        ("auth required pam_unix.so\nauth requisite pam_portcullis.so\n", "auth-below x x:2"),
        ("auth required pam_portcullis.so\nauth required pam_unix.so\n", "auth-goes-on x x:1"),
        (
            "auth [success=1 default=ignore] pam_succeed_if.so\nauth requisite pam_portcullis.so\nauth required pam_unix.so\n",
            "auth-around x x:1",
        ),
        ("auth requisite pam_portcullis.so\n@include common-auth\n", "auth-twice x common-auth:1"),
        ("auth [default=die] pam_portcullis.so\nauth required pam_unix.so\n", "auth-admits-nobody x x:1"),
        ("auth required pam_own.so\n@include common-auth\n", "auth-unknown-module x x:1"),
        ("auth requisite pam_portcullis.so\nauth required pam_oath.so\n", "auth-charge x x:1"),
        (
            "auth requisite pam_portcullis.so charge=submit\nauth required pam_sss.so\n",
            "auth-charge-mixed x x:1",
        ),
        ("auth requisite pam_portcullis.so debug\nauth required pam_unix.so\n", "line-words x x:1"),
        ("auth requisite /opt/pam_portcullis.so\nauth required pam_unix.so\n", "module-path x x:1"),
        ("auth required pam_faillock.so preauth\n@include common-auth\n", "two-counters x x:1"),
        ("auth include nowhere\n@include common-auth\n", "stack-fault x x:1"),
        ("@include nowhere\n", "stack-broken x x:1"),
    ] {
        assert_eq!(wrong(&[("x", text)]), [expected], "{text}");
    }
    assert_eq!(wrong(&[("README", "auth required pam_unix.so")]), ["stack-never-read README"]);
    assert_eq!(wrong(&[("x.dpkg-old", "auth required pam_unix.so")]), [""; 0]);
    let asks = "auth requisite pam_portcullis.so charge=conversation\nauth required pam_oath.so\n";
    assert_eq!(wrong(&[("x", asks)]), [""; 0]);
}

#[test]
fn the_account_line_is_looked_at_where_it_refuses() {
    let open = "@include common-auth\naccount required pam_unix.so\n";
    assert_eq!(wrong(&[("sshd", open)]), ["account-missing sshd"]);
    assert_eq!(wrong(&[("cron", open)]), [""; 0], "no logon");
    let sshd = |account: &str| wrong(&[("sshd", &format!("@include common-auth\n{account}"))]);
    assert_eq!(
        sshd("account sufficient pam_localuser.so\naccount required pam_portcullis.so\n"),
        ["account-around sshd sshd:3"]
    );
    assert_eq!(
        sshd("account optional pam_portcullis.so\naccount required pam_unix.so\n"),
        ["account-no-effect sshd sshd:2"]
    );
    // Without account lines those of `other` stand in.
    let other = ("other", "@include common-auth\n@include common-account\n");
    assert_eq!(wrong(&[("sshd", "@include common-auth\n"), other]), [""; 0]);
    assert_eq!(wrong(&[("sshd", "@include common-auth\n")]), ["account-missing sshd"]);
}

#[test]
fn passwds_question_is_counted_or_not() {
    assert_eq!(wrong(&[("passwd", "password required pam_unix.so\n")]), ["password-missing passwd"]);
    let passwd = |control: &str| {
        wrong(&[(
            "passwd",
            &format!("password {control} pam_portcullis.so\npassword required pam_unix.so\n"),
        )])
    };
    assert_eq!(passwd("requisite"), [""; 0]);
    assert_eq!(passwd("required"), ["password-open passwd passwd:1"]);
}

#[test]
fn one_fault_in_a_shared_file_is_one_finding() {
    let common = ("common-auth", "auth requisite pam_portcullis.so debug\nauth required pam_unix.so \\\n");
    assert_eq!(
        wrong(&[common]),
        [
            "line-words common-auth,su common-auth:1",
            "stack-broken common-auth common-auth:2",
            "stack-broken su su:2"
        ]
    );
    assert_eq!(judge(&BTreeSet::new(), &|_| None).findings[0].check, Check::StackNone);
}

#[test]
fn the_line_for_another_factor_must_not_leave_it_out() {
    let stack = |first: &str, control: &str, behind: &str| {
        format!(
            "auth requisite pam_portcullis.so {first}\nauth [success=1 default=ignore] pam_unix.so\n\
             auth requisite pam_deny.so\nauth {control} pam_portcullis.so factor\n{behind}auth required pam_permit.so\n"
        )
    };
    let good = "[cred_unavail=1 ignore=ignore default=die]";
    let oath = "auth requisite pam_oath.so usersfile=/etc/users.oath\n";
    let of = |text: &str| wrong(&[("common-auth", text)]);
    assert_eq!(of(&stack("offers_factor", good, oath)), [""; 0]);
    assert_eq!(of(&stack("", good, oath))[1..], ["factor-unused su common-auth:1"]);
    for control in [
        "[cred_unavail=1 ignore=1 default=die]",
        "[cred_unavail=1 ignore=ignore default=ignore]",
        "[cred_unavail=1 ignore=ignore default=1]",
        "[default=1 ignore=ignore]",
        "required",
        "requisite",
        "sufficient",
        "optional",
    ] {
        let found = of(&stack("offers_factor", control, oath));
        assert!(found.contains(&"factor-line su common-auth:4".to_owned()), "{control}: {found:?}");
    }
    let found = of(&stack("offers_factor", good, ""));
    assert!(found.contains(&"factor-line su common-auth:4".to_owned()), "{found:?}");
    let alone = "auth requisite pam_portcullis.so offers_factor\nauth required pam_unix.so\n";
    assert_eq!(of(alone), ["factor-line su common-auth:1"]);
}
