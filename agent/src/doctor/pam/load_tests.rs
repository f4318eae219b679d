//! Files are put together as libpam does it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::walk::{self, Passed, Role};
use super::*;

/// Files by name in /etc/pam.d, or by path.
fn load(files: &[(&str, &str)], name: &str) -> Option<Stacks> {
    let files: BTreeMap<String, &str> = files
        .iter()
        .map(|(name, text)| {
            (if name.starts_with('/') { (*name).to_owned() } else { format!("/etc/pam.d/{name}") }, *text)
        })
        .collect();
    service(name, &|path| files.get(path).map(|text| text.as_bytes().to_vec()))
}

/// Level and module of each entry.
fn shape(stacks: &Stacks, kind: Kind) -> String {
    let entries = stacks.stack(kind).into_iter().map(|handler| match handler.what {
        What::Module { .. } => format!("{}{}", handler.level, handler.module()),
        What::Substack => format!("{}(", handler.level),
        What::MustFail => format!("{}!", handler.level),
    });
    entries.collect::<Vec<_>>().join(" ")
}

#[test]
fn include_substack_and_debians_include() {
    let files = [
        ("sshd", "auth required pam_env.so\n@include common\naccount include common\nauth substack common\n"),
        (
            "common",
            "-auth [success=1 default=ignore] /lib/security/pam_unix.so x y\naccount required pam_a.so\n",
        ),
    ];
    let stacks = load(&files, "sshd").unwrap();
    assert_eq!(shape(&stacks, Kind::Auth), "0pam_env 0pam_unix 0( 1pam_unix");
    assert_eq!(shape(&stacks, Kind::Account), "0pam_a 0pam_a");
    assert!(stacks.faults.is_empty() && stacks.broken.is_none());
    let second = stacks.stack(Kind::Auth).remove(1);
    assert_eq!(second.place.to_string(), "/etc/pam.d/common:1");
    let words = vec![b"x".to_vec(), b"y".to_vec()];
    assert_eq!(second.what, What::Module { path: b"/lib/security/pam_unix.so".to_vec(), words });
    assert!(stacks.included.contains("/etc/pam.d/common"));
}

#[test]
fn etc_goes_before_usr_and_absolute_names_are_paths() {
    let files = [
        ("/usr/lib/pam.d/su", "auth required pam_usr.so"),
        ("/usr/lib/pam.d/polkit-1", "AUTH Required pam_usr.so\n@include /opt/stack\n@include shared"),
        ("/usr/lib/pam.d/shared", "auth required pam_shared.so"),
        ("/opt/stack", "auth required pam_opt.so"),
        ("su", "auth required pam_etc.so"),
    ];
    assert_eq!(shape(&load(&files, "su").unwrap(), Kind::Auth), "0pam_etc");
    let polkit = load(&files, "polkit-1").unwrap();
    assert_eq!(shape(&polkit, Kind::Auth), "0pam_usr 0pam_opt 0pam_shared");
    assert!(polkit.faults[0].what.contains("/usr/lib/pam.d only"), "{:?}", polkit.faults);
    assert_eq!(load(&files, "none"), None);
}

#[test]
fn what_libpam_cannot_use_fails_and_is_told() {
    let text =
        "auht required pam_unix.so\nauth\nauth required\nauth sometimes pam_a.so\nauth include nowhere\n";
    let stacks = load(&[("x", text)], "x").unwrap();
    assert_eq!(shape(&stacks, Kind::Auth), "0! 0! 0! 0pam_a 0!");
    let lines: Vec<usize> = stacks.faults.iter().map(|fault| fault.place.line).collect();
    assert_eq!(lines, [1, 2, 2, 3, 4, 5]);
}

#[test]
fn what_libpam_gives_up_is_broken() {
    for (text, line, why) in [
        ("auth required pam_a.so\n@include nowhere\n", 2, "cannot open nowhere"),
        ("auth required pam_a.so \\\n", 1, "backslash"),
        ("@include x\n@include x\n", 1, "loop"),
    ] {
        let broken = load(&[("x", text)], "x").unwrap().broken.unwrap();
        assert!(broken.place.line == line && broken.what.contains(why), "{broken:?}");
    }
    // With a type the failure stays in its stack.
    let stacks = load(&[("x", "auth include x\nauth required pam_a.so\n")], "x").unwrap();
    assert_eq!(stacks.broken, None);
    assert!(shape(&stacks, Kind::Auth).starts_with("0! 0pam_a"));
    assert!(stacks.faults[0].what.contains("loop"));
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("auth ".to_owned()),
        Just("-account ".to_owned()),
        Just("[success=1 default=die] ".to_owned()),
        Just("sufficient ".to_owned()),
        Just("requisite ".to_owned()),
        Just("[default=reset ignore=2] ".to_owned()),
        Just("auth include a\n".to_owned()),
        Just("auth substack b\n".to_owned()),
        Just("@include b\n".to_owned()),
        Just("pam_unix.so\n".to_owned()),
        Just("pam_portcullis.so\n".to_owned()),
        Just("pam_deny.so\n".to_owned()),
        Just("\\\n".to_owned()),
        Just("# ".to_owned()),
        "[\\x00-\\x7f]{0,6}",
    ]
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        proptest::collection::vec(piece(), 0..24).prop_map(|pieces| pieces.concat().into_bytes()),
    ]
}

fn role(handler: &Handler) -> Role {
    match handler.module().as_str() {
        "pam_portcullis" => Role::Ours,
        "pam_unix" => Role::Secret,
        "pam_deny" => Role::Deny,
        _ => Role::Other,
    }
}

proptest! {
    /// Whatever the files hold: it ends within its bounds, and no single way shows what the walk through all ways has not.
    #[test]
    fn any_bytes_end_and_no_way_is_missed(a in text(), b in text(), codes in proptest::collection::vec(0..31_usize, 64)) {
        let stacks = service("a", &|path| match path {
            "/etc/pam.d/a" => Some(a.clone()),
            "/usr/lib/pam.d/b" => Some(b.clone()),
            _ => None,
        }).unwrap();
        for kind in [Kind::Auth, Kind::Account, Kind::Password, Kind::Session] {
            let stack = stacks.stack(kind);
            prop_assert!(stack.len() <= MAX_HANDLERS);
            let seen = walk::walk(&stack, &role);
            let mut passed = Passed::Not;
            let mut codes = codes.iter().cycle();
            let mut missed = None;
            let (_, let_in) = walk::run(&stack, |at| {
                if !seen.reached.contains_key(&(passed, at)) {
                    missed = Some((passed, at));
                }
                let code = *codes.next().unwrap();
                match (role(&stack[at]), code % 2 == 0) {
                    (Role::Ours, true) => {
                        if passed == Passed::Not { passed = Passed::Admitted; }
                        25
                    }
                    (Role::Ours, false) => { passed = Passed::Refused; 7 }
                    (Role::Deny, _) => 7,
                    _ => code,
                }
            });
            if !seen.gave_up {
                prop_assert_eq!(missed, None);
                prop_assert!(!let_in || seen.lets_in.contains(&passed));
            }
        }
    }
}
