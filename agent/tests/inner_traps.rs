//! What would lock everybody out is an error of the configuration, which names the key and the line.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step is a failed test"
)]

mod host;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use host::{Town, error, parse, root, warnings};
use portcullis_agent::config::{CLASS_BREAK_GLASS, Host, parse_on};

#[test]
fn a_way_back_in_is_asked_for() {
    assert!(error("[default]\ndeny = 3\n").contains("break_glass: is missing"));
    for (name, words) in [
        ("nobody-here", "adduser"),
        ("robot", "nologin"),
        ("locked", "passwd locked"),
        ("empty", "empty password"),
        ("odd", "/etc/shells"),
        ("gone", "does not exist"),
        ("expired", "has expired"),
    ] {
        let text = error(&format!("# who\nbreak_glass = \"{name}\"\n"));
        assert!(text.starts_with("p.toml:2: break_glass: ") && text.contains(words), "{text}");
    }
    assert!(warnings("break_glass = \"remote\"\n")[0].contains("no line in /etc/shadow"));
    let trap = "break_glass = false\n[root]\neven_deny_root = true\nroot_unlock_time = \"never\"\nrestrict = false\n";
    assert!(error(trap).starts_with("p.toml:3: root.even_deny_root: locks everybody out"), "{}", error(trap));
}

#[test]
fn several_accounts_can_be_break_glass_and_each_is_looked_at() {
    let config = parse("break_glass = [\"admin\", \"jon\"]\n").unwrap().config;
    for uid in [1000, 1001] {
        assert_eq!(config.class_of(&Town::new(), uid).unwrap(), CLASS_BREAK_GLASS);
        assert!(config.members(&Town::new()).unwrap().contains(&(uid, CLASS_BREAK_GLASS)));
    }
    // Each of them that is wrong is told, by its name.
    let text = error("break_glass = [\"admin\", \"robot\", \"nobody-here\", \"expired\"]\n");
    assert_eq!(text.lines().count(), 3, "{text}");
    for (line, name) in text.lines().zip(["robot", "nobody-here", "expired"]) {
        assert!(line.starts_with("p.toml:1: break_glass: ") && line.contains(name), "{line}");
    }
    for list in ["[]", "[\"admin\", 5]", "[\"\"]", "[false]"] {
        assert!(
            error(&format!("break_glass = {list}\n")).starts_with("p.toml:1: break_glass: must be"),
            "{list}"
        );
    }
    let class = error("break_glass = [\"admin\", \"jon\"]\n[[class]]\nname = \"a\"\nusers = [\"jon\"]\n");
    assert!(class.starts_with("p.toml:4: class \"a\".users: jon is a break_glass account"), "{class}");
}

#[test]
fn a_break_glass_account_without_a_password_has_a_key() {
    let root = root();
    let ssh = root.path().join("home/locked/.ssh");
    std::fs::create_dir_all(&ssh).unwrap();
    let town = Town::new();
    let parsed = || {
        let host = Host { directory: &town, root: root.path() };
        parse_on(Path::new("p.toml"), "break_glass = \"locked\"\n", &host)
    };
    std::fs::write(ssh.join("authorized_keys"), "# none yet\n\n").unwrap();
    let text = parsed().unwrap_err().to_string();
    assert!(text.contains("no key") && text.contains("passwd locked"), "{text}");
    std::fs::write(ssh.join("authorized_keys"), "ssh-ed25519 AAAA admin\n").unwrap();
    let warnings = parsed().unwrap().warnings;
    assert!(warnings[0].to_string().contains("with its key alone"), "{warnings:?}");
    // As systemd shows homes to a unit that has no business there.
    let home = root.path().join("home");
    std::fs::rename(home.join("locked"), home.join("moved")).unwrap();
    std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o000)).unwrap();
    let warnings = parsed().unwrap().warnings;
    assert!(warnings[0].to_string().contains("cannot be seen"), "{warnings:?}");
    std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn no_class_locks_the_way_back_in() {
    let named = error("break_glass = \"admin\"\n[[class]]\nname = \"a\"\nusers = [\"admin\"]\n");
    assert!(named.starts_with("p.toml:4: class \"a\".users: ") && named.contains("break_glass"), "{named}");
    // As a member of a group he is exempt all the same.
    let text =
        "break_glass = \"admin\"\n[[class]]\nname = \"a\"\ngroups = [\"wheel\"]\nexpire_after_trips = 1\n";
    let config = parse(text).unwrap().config;
    assert_eq!(config.class_of(&Town::new(), 1000).unwrap(), CLASS_BREAK_GLASS);
    assert!(config.class_infos()[CLASS_BREAK_GLASS as usize].exempt);
    assert_eq!(config.class_infos()[CLASS_BREAK_GLASS as usize].expire_after_trips, 0);
}

/// The third trap: whoever reaches a prompt could keep root out.
#[test]
fn not_every_address_may_lock_root() {
    let of = |rest: &str| format!("break_glass = \"admin\"\n[root]\n{rest}even_deny_root = true\n");
    let text = error(&of(""));
    assert!(text.starts_with("p.toml:3: root.even_deny_root: lets every address lock root"), "{text}");
    assert!(error(&of("restrict = { hours = \"08:00-18:00\" }\n")).contains("every address"));
    for way in [
        "restrict = { networks = [\"192.0.2.0/24\"] }\n",
        "restrict = { ttys = [\"tty1\"] }\n",
        "scope = \"pair\"\n",
        "factor_deny = 3\n",
        "restrict = false\n",
    ] {
        assert!(parse(&of(way)).is_ok(), "{way}");
    }
    // What [default] says holds for root too.
    let inherited = "break_glass = \"admin\"\n[default]\nscope = \"pair\"\n[root]\neven_deny_root = true\n";
    assert!(parse(inherited).is_ok());
}

/// Each trap, with what it is made of: the key, its line, and words of what to do.
#[test]
fn every_lock_out_trap_is_an_error_with_its_key_and_its_line() {
    let root = "break_glass = \"admin\"\n[root]\neven_deny_root = true\n";
    let traps: &[(&str, String, Option<usize>, &str, &str)] = &[
        ("no word about break_glass", "[default]\ndeny = 3\n".into(), None, "break_glass", "break_glass = false"),
        ("neither a name nor a refusal", "break_glass = true\n".into(), Some(1), "break_glass", "false to have none"),
        ("an empty list", "break_glass = []\n".into(), Some(1), "break_glass", "list of such names"),
        ("one of a list is nobody", "break_glass = [\"admin\", \"x\"]\n".into(), Some(1), "break_glass", "adduser x"),
        ("does not exist", "break_glass = \"x\"\n".into(), Some(1), "break_glass", "adduser x"),
        ("a shell that lets nobody in", "break_glass = \"robot\"\n".into(), Some(1), "break_glass", "usermod -s"),
        ("a shell that is not there", "break_glass = \"gone\"\n".into(), Some(1), "break_glass", "usermod -s"),
        ("a shell that is not listed", "break_glass = \"odd\"\n".into(), Some(1), "break_glass", "/etc/shells"),
        ("a locked password", "break_glass = \"locked\"\n".into(), Some(1), "break_glass", "passwd locked"),
        ("an empty password", "break_glass = \"empty\"\n".into(), Some(1), "break_glass", "passwd empty"),
        ("an account that expired", "break_glass = \"expired\"\n".into(), Some(1), "break_glass", "chage -E -1"),
        (
            "break-glass in a class that locks",
            "break_glass = \"admin\"\n[[class]]\nname = \"a\"\nusers = [\"jon\", \"admin\"]\n".into(),
            Some(4),
            "class \"a\".users",
            "take it out",
        ),
        (
            "break-glass with a lock",
            "break_glass = \"admin\"\n[break_glass_limits]\nunlock_time = \"1m\"\n".into(),
            Some(3),
            "break_glass_limits.unlock_time",
            "take it out",
        ),
        (
            "break-glass with an upper rung",
            "break_glass = \"admin\"\n[break_glass_limits]\nshadow_lock = true\n".into(),
            Some(3),
            "break_glass_limits.shadow_lock",
            "take it out",
        ),
        ("every address may lock root", root.into(), Some(3), "root.even_deny_root", "restrict = { networks"),
        (
            "at some hours every address may lock root",
            format!("{root}restrict = {{ hours = \"08:00-18:00\" }}\n"),
            Some(3),
            "root.even_deny_root",
            "restrict = { networks",
        ),
        (
            "root locked by a rung that no timer of the gate ends",
            "break_glass = \"admin\"\n[root]\nshadow_lock = true\n".into(),
            Some(3),
            "root.shadow_lock",
            "take it out",
        ),
        (
            "root expires",
            "break_glass = \"admin\"\n[root]\nexpire_after_trips = 1\n".into(),
            Some(3),
            "root.expire_after_trips",
            "take it out",
        ),
        (
            "root is logged out",
            "break_glass = \"admin\"\n[root]\nend_sessions_after_trips = 1\n".into(),
            Some(3),
            "root.end_sessions_after_trips",
            "take it out",
        ),
        (
            "root is break-glass and denied",
            "break_glass = \"root\"\n[root]\neven_deny_root = true\n".into(),
            Some(3),
            "root.even_deny_root",
            "take one of the two out",
        ),
        (
            "everybody for ever",
            "break_glass = false\n[root]\neven_deny_root = true\nroot_unlock_time = \"never\"\nrestrict = false\n"
                .into(),
            Some(3),
            "root.even_deny_root",
            "change one of the three",
        ),
        (
            "one source locks the account before it is shut out",
            "break_glass = \"admin\"\n[default]\nscope = \"pair\"\ndeny = 5\naccount_deny = 5\n".into(),
            Some(5),
            "account_deny",
            "must be more than deny",
        ),
        (
            "a second break-glass account that could start no su",
            "break_glass = [\"admin\", \"jon\"]\n[observer]\ndeny_exec = true\n[sc5]\nlocal = \"refuse\"\n".into(),
            Some(3),
            "observer.deny_exec",
            "name one",
        ),
        (
            "guesses fail while they wait",
            "break_glass = \"admin\"\nreservation_max_age = \"10s\"\n[default]\ndelay = \"1s\"\nmax_delay = \"9s\"\n"
                .into(),
            Some(5),
            "max_delay",
            "at most half of reservation_max_age",
        ),
    ];
    for (trap, text, line, key, next) in traps {
        let told = error(text);
        let at = line.map_or_else(|| "p.toml".to_owned(), |line| format!("p.toml:{line}"));
        assert!(told.lines().any(|told| told.starts_with(&format!("{at}: {key}: "))), "{trap}: {told}");
        assert!(told.contains(next), "{trap} does not say what to do ({next}): {told}");
    }
}
