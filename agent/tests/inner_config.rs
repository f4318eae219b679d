//! Configuration files, right and wrong: every error names its key and its line and says what to do.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step is a failed test"
)]

mod host;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use host::{Town, error, parse, root, warnings};
use portcullis_agent::config::{
    BreakGlass, CLASS_BREAK_GLASS, CLASS_DEFAULT, CLASS_FIRST, CLASS_ROOT, Host, Loaded, Span, load_on,
};
use portcullis_common::abi::NOBODY;
use portcullis_common::ledger::{NEVER, rule_flag};

#[test]
fn an_almost_empty_file_has_the_defaults() {
    let Loaded { config, warnings } = parse("break_glass = \"admin\"\n").unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(config.break_glass, BreakGlass::Accounts(vec!["admin".to_owned()]));
    let rules = config.rules(0);
    assert_eq!(rules.len(), 3);
    assert_eq!((rules[0].deny, rules[0].flags), (3, 0));
    assert_eq!((rules[0].fail_interval, rules[0].unlock_time), (900_000_000_000, 600_000_000_000));
    assert_eq!((rules[0].max_age, rules[0].confirm_time), (60_000_000_000, 600_000_000_000));
    assert_eq!(rules[1].flags, rule_flag::EXEMPT);
    assert_eq!(rules[2].flags, rule_flag::EXEMPT);
    assert_eq!(config.metrics.listen.unwrap().to_string(), "127.0.0.1:9456");
    assert_eq!(config.agent.reconcile, Span::seconds(5));
    assert_eq!(config.agent.store, PathBuf::from("/var/lib/portcullis/portcullis.db"));
}

const FULL: &str = r#"
break_glass = false
reservation_max_age = "2s"
confirm_time = "3s"

[default]
deny = 5
fail_interval = "4s"
unlock_time = "never"
shadow_lock = true

[[class]]
name = "strict"
users = ["ron"]
groups = ["staff"]
deny = 1
unlock_time = "1s"

[[class]]
name = "mild"
groups = ["wheel"]
shadow_lock = false

[root]
even_deny_root = true
root_unlock_time = "7s"
restrict = { ttys = ["tty1"] }

[metrics]
listen = false

[agent]
socket = "/tmp/socket"
store = "/tmp/store"
reconcile = "1s"
passwd_timeout = "2s"
"#;

#[test]
fn every_key_counts_and_classes_inherit() {
    let config = parse(FULL).unwrap().config;
    let rules = config.rules(0);
    let second = 1_000_000_000;
    assert_eq!((rules[0].deny, rules[0].unlock_time), (5, NEVER));
    assert_eq!(
        (rules[1].deny, rules[1].flags, rules[1].unlock_time),
        (5, rule_flag::SOFT | rule_flag::RESTRICT, 7 * second)
    );
    assert_eq!((rules[3].deny, rules[3].unlock_time, rules[3].fail_interval), (1, second, 4 * second));
    assert_eq!((rules[4].deny, rules[4].unlock_time, rules[4].max_age), (5, NEVER, 2 * second));
    let infos = config.class_infos();
    let shadow: Vec<bool> = infos.iter().map(|info| info.shadow_lock).collect();
    assert_eq!(shadow, [true, false, false, true, false]);
    assert_eq!(config.metrics.listen, None);
}

#[test]
fn the_lower_rungs_are_read_and_inherited() {
    let text = "break_glass = \"admin\"\n[default]\nmode = \"monitor\"\ndelay = \"2s\"\nmax_delay = \"9s\"\n\
                delay_growth = \"exponential\"\nbackoff_window = \"1h\"\nmax_unlock_time = \"never\"\n\
                [[class]]\nname = \"strict\"\nusers = [\"jon\"]\nmode = \"enforce\"\ndelay = false\n";
    let config = parse(text).unwrap().config;
    let rules = config.rules(0);
    let second = 1_000_000_000;
    assert_eq!(rules[0].flags, rule_flag::MONITOR | rule_flag::DELAY_DOUBLES);
    assert_eq!((rules[0].delay, rules[0].max_delay), (2 * second, 9 * second));
    assert_eq!((rules[0].backoff_window, rules[0].max_unlock_time), (3600 * second, NEVER));
    assert_eq!((rules[3].flags, rules[3].delay), (rule_flag::DELAY_DOUBLES, 0));
    let monitor: Vec<bool> = config.class_infos().iter().map(|info| info.monitor).collect();
    assert_eq!(monitor, [true, true, true, false]);
    assert_eq!(parse(&config.to_toml().unwrap()).unwrap().config, config);
    let long = text.replace("\"9s\"", "\"31s\"");
    assert!(error(&long).contains("half of reservation_max_age"));
}

#[test]
fn what_is_shown_is_a_file_again() {
    for text in [FULL, "break_glass = \"admin\"\n"] {
        let config = parse(text).unwrap().config;
        let shown = config.to_toml().unwrap();
        assert_eq!(parse(&shown).unwrap().config, config, "{shown}");
    }
}

#[test]
fn the_first_class_that_matches_counts() {
    let text = FULL.replace("break_glass = false", "break_glass = \"admin\"");
    let config = parse(&text).unwrap().config;
    let town = Town::new();
    let class = |uid| config.class_of(&town, uid).unwrap();
    let (strict, mild) = (CLASS_FIRST, CLASS_FIRST + 1);
    // admin is in wheel, jon in staff, kon has staff as primary group, ron is named and in wheel.
    assert_eq!([class(0), class(1000), class(1001)], [CLASS_ROOT, CLASS_BREAK_GLASS, strict]);
    assert_eq!([class(1002), class(1003), class(1004)], [strict, strict, CLASS_DEFAULT]);
    assert_eq!(class(4_000_000), CLASS_DEFAULT);
    let members = config.members(&town).unwrap();
    assert_eq!(
        members,
        [(0, CLASS_ROOT), (1000, CLASS_BREAK_GLASS), (1001, strict), (1002, strict), (1003, strict)]
    );
    let swapped = text.replace("users = [\"ron\"]", "users = []");
    let config = parse(&swapped).unwrap().config;
    assert_eq!(config.class_of(&town, 1003).unwrap(), mild);
}

#[test]
fn errors_name_key_and_line() {
    let on_line_3 = |line: &str| error(&format!("break_glass = false\n[default]\n{line}\n"));
    for (line, key) in [
        ("deny = -1", "default.deny"),
        ("deny = 0", "default.deny"),
        ("deny = 17", "default.deny"),
        ("deny = 99999999999", "default.deny"),
        ("deny = \"3\"", "default.deny"),
        ("deny = 3.0", "default.deny"),
        ("mode = \"off\"", "default.mode"),
        ("delay_growth = true", "default.delay_growth"),
        ("backoff_window = true", "default.backoff_window"),
        ("delay = \"never\"", "default.delay"),
        ("fail_interval = \"0s\"", "default.fail_interval"),
        ("fail_interval = \"-5s\"", "default.fail_interval"),
        ("fail_interval = 900", "default.fail_interval"),
        ("fail_interval = \"never\"", "default.fail_interval"),
        ("unlock_time = \"11000d\"", "default.unlock_time"),
        ("unlock_time = [\"5m\"]", "default.unlock_time"),
        ("shadow_lock = \"yes\"", "default.shadow_lock"),
        ("denny = 3", "denny"),
        ("deny = 3\ndeny = 4", "deny"),
        ("deny = ", "default.deny"),
    ] {
        let text = on_line_3(line);
        let number = if line.contains('\n') { 4 } else { 3 };
        assert!(text.starts_with(&format!("p.toml:{number}: ")) && text.contains(key), "{line}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    assert!(on_line_3("fail_interval = 900").contains("900s"));
    assert!(on_line_3("deny = 17").contains("from 1 to 16"));
}

#[test]
fn errors_outside_of_the_limits() {
    for (text, at, key) in [
        ("break_glass = false\nmode = 1\n", 2, "mode"),
        ("break_glass = 5\n", 1, "break_glass"),
        ("break_glass = true\n", 1, "break_glass"),
        ("break_glass = \"-l\"\n", 1, "break_glass"),
        ("break_glass = false\nreservation_max_age = \"2d\"\n", 2, "reservation_max_age"),
        ("break_glass = false\n[metrics]\nlisten = \"localhost\"\n", 3, "metrics.listen"),
        ("break_glass = false\n[metrics]\nlisten = true\n", 3, "metrics.listen"),
        ("break_glass = false\n[agent]\nsocket = \"here\"\n", 3, "agent.socket"),
        ("break_glass = false\n[agent]\npasswd_timeout = \"1d\"\n", 3, "agent.passwd_timeout"),
        ("break_glass = false\n[gate]\nx = 1\n", 2, "gate"),
        ("break_glass = false\n[[class]]\nusers = [\"jon\"]\n", 2, "class.name"),
        ("break_glass = false\n[[class]]\nname = \"a b\"\nusers = [\"jon\"]\n", 3, "class.name"),
        ("break_glass = false\n[[class]]\nname = \"root\"\nusers = [\"jon\"]\n", 3, "class.name"),
        ("break_glass = false\n[[class]]\nname = \"a\"\n", 2, "class.users"),
        ("break_glass = false\n[[class]]\nname = \"a\"\nusers = \"jon\"\n", 4, "class \"a\".users"),
        ("break_glass = false\n[[class]]\nname = \"a\"\ngroups = [\"x:y\"]\n", 4, "class \"a\".groups"),
        ("break_glass = false\n[root]\neven_deny_root = 1\n", 3, "root.even_deny_root"),
    ] {
        let error = error(text);
        assert!(
            error.lines().any(|line| line.starts_with(&format!("p.toml:{at}: ")) && line.contains(key)),
            "{text}{error}"
        );
    }
    let twice = "break_glass = false\n[[class]]\nname = \"a\"\nusers = [\"jon\"]\n[[class]]\nname = \"a\"\nusers = [\"kon\"]\n";
    assert!(error(twice).starts_with("p.toml:6: class.name: "), "{}", error(twice));
    let mut many = String::from("break_glass = false\n");
    (0..30).for_each(|class| many.push_str(&format!("[[class]]\nname = \"c{class}\"\nusers = [\"jon\"]\n")));
    assert!(error(&many).contains("there can be 29"), "{}", error(&many));
}

#[test]
fn all_errors_are_told_at_once() {
    let text = error("break_glass = \"\"\n[default]\ndeny = 0\nunlock_time = \"1\"\n");
    assert_eq!(text.lines().count(), 3, "{text}");
}

#[test]
fn every_kind_of_account_can_be_a_class_of_its_own() {
    let text = "break_glass = \"admin\"\n[default]\ndeny = 9\n[root]\neven_deny_root = true\nroot_unlock_time = \"3m\"\n\
        deny = 5\nfail_interval = \"5m\"\nscope = \"pair\"\n[break_glass_limits]\ndeny = 6\nfail_interval = \"6m\"\ndelay = \"1s\"\n\
        [[class]]\nname = \"named\"\nusers = [\"jon\"]\ndeny = 1\nunlock_time = \"never\"\n\
        [[class]]\nname = \"group\"\ngroups = [\"staff\"]\ndeny = 2\nfail_interval = \"1m\"\n\
        [[class]]\nname = \"machine\"\nsystem = true\ndeny = 4\n\
        [[class]]\nname = \"nobody\"\nunknown = true\ndeny = 1\nfail_interval = \"1h\"\nunlock_time = \"2h\"\n";
    let config = parse(text).unwrap().config;
    let (town, rules) = (Town::new(), config.rules(0));
    for (uid, deny, because) in [
        (1001, 1, "class 1 of the file names the user"),
        (1002, 2, "class 2 of the file names the group staff"),
        (7, 4, "class 3 of the file takes system accounts"),
        (1003, 9, "no class of the file names it"),
        (1000, 6, "named by break_glass"),
        (4_000_000, 9, "no class of the file names it"),
        (NOBODY, 1, "class 4 of the file takes names no user has"),
    ] {
        let class = config.class_of(&town, uid).unwrap();
        assert_eq!(rules[class as usize].deny, deny, "{uid}");
        assert_eq!(config.because(&town, uid), because);
        let listed = config.members(&town).unwrap();
        let member =
            listed.iter().find(|(member, _)| *member == uid).map_or(CLASS_DEFAULT, |(_, class)| *class);
        assert_eq!(member, class, "{uid}");
    }
    assert_eq!(rules[CLASS_FIRST as usize].unlock_time, NEVER);
    let root = rules[CLASS_ROOT as usize];
    let minute = 60_000_000_000;
    assert_eq!((root.unlock_time, root.fail_interval, root.pair_deny), (3 * minute, 5 * minute, 5));
    let glass = rules[CLASS_BREAK_GLASS as usize];
    assert_eq!((glass.fail_interval, glass.delay, glass.flags), (6 * minute, minute / 60, rule_flag::EXEMPT));
    let nobody = rules[CLASS_FIRST as usize + 3];
    assert_eq!((nobody.fail_interval, nobody.unlock_time), (60 * minute, 120 * minute));
    // What is shown is a file again.
    assert_eq!(parse(&config.to_toml().unwrap()).unwrap().config, config);
}

/// With the default numbers, root's and names' without a user are [default]'s.
#[test]
fn limits_of_their_own_are_limits_that_were_written() {
    let config =
        parse("break_glass = \"admin\"\n[default]\ndeny = 7\n[[class]]\nname = \"x\"\nunknown = true\n");
    let Loaded { config, warnings } = config.unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert!(config.rules(0).iter().all(|rule| rule.deny == 7));
    let told = warnings_of_unknown("deny = 5");
    assert!(told.contains("class \"x\".unknown: ") && told.contains("which names exist"), "{told}");
    assert!(warnings_of_unknown("delay = \"1s\"").contains("which names exist"));
    for (text, at, words) in [
        ("break_glass = false\n[root]\nunlock_time = \"1m\"\n", 3, "root.unlock_time: has another name"),
        ("break_glass = false\n[root]\nshadow_lock = true\n", 3, "root.shadow_lock: has no meaning"),
        ("break_glass = \"admin\"\n[break_glass_limits]\nunlock_time = \"1m\"\n", 3, "never locked"),
        (
            "break_glass = false\n[[class]]\nname = \"x\"\nunknown = true\nrestrict = { ttys = [\"tty1\"] }\n",
            5,
            "no meaning",
        ),
        (
            "break_glass = false\n[[class]]\nname = \"x\"\nunknown = true\nshadow_lock = true\n",
            5,
            "no meaning",
        ),
    ] {
        let text = error(text);
        assert!(text.starts_with(&format!("p.toml:{at}: ")) && text.contains(words), "{text}");
    }
}

fn warnings_of_unknown(limit: &str) -> String {
    warnings(&format!("break_glass = \"admin\"\n[[class]]\nname = \"x\"\nunknown = true\n{limit}\n"))
        .join("\n")
}

#[test]
fn rungs_notify_and_breaker_are_checked() {
    let rung = error("break_glass = false\n[default]\nexpire_after_trips = 2\n");
    assert!(rung.starts_with("p.toml:3: expire_after_trips: ") && rung.contains("backoff_window"), "{rung}");
    assert!(
        error("break_glass = false\n[default]\nend_sessions_after_trips = 0\n").contains("from 1 to 1000")
    );
    for (rest, words) in [
        ("argv = [\"page\"]\nevents = [\"lock\"]", "absolute path"),
        ("argv = \"/bin/page\"\nevents = [\"lock\"]", "list of texts"),
        ("argv = [\"/bin/page\"]", "must name events"),
    ] {
        let text = error(&format!("break_glass = false\n[[notify.command]]\n{rest}\n"));
        assert!(text.contains(words), "{text}");
    }
    assert!(error("break_glass = false\n[breaker]\nlocked_percent = 0\n").contains("from 1 to 100"));
    let off = parse("break_glass = false\n[breaker]\nfailing_accounts = false\n").unwrap().config;
    assert_eq!(off.breaker.rules().accounts, 0);
}

#[test]
fn oddities_are_warnings() {
    let class = "break_glass = \"admin\"\n[[class]]\nname = \"a\"\n";
    let of = |rest: &str| warnings(&format!("{class}{rest}")).join("\n");
    assert!(of("users = [\"nobody-here\"]\n").starts_with("p.toml:4: class \"a\".users: no user is named"));
    assert!(of("groups = [\"nowhere\"]\n").starts_with("p.toml:4: class \"a\".groups: no group is named"));
    // A trip uses its failures up, so a lock shorter than the window opens nothing: as with faillock's defaults.
    assert_eq!(of("users = [\"jon\"]\nfail_interval = \"15m\"\nunlock_time = \"10m\"\n"), "");
    let again = of("users = [\"jon\"]\n[[class]]\nname = \"b\"\nusers = [\"jon\"]\n");
    assert!(again.starts_with("p.toml:7: ") && again.contains("\"a\" above"), "{again}");
    assert!(warnings("break_glass = false\n[metrics]\nlisten = \"0.0.0.0:1\"\n")[0].contains("loopback"));
    let denies = "break_glass = \"admin\"\n[observer]\ndeny_exec = true\n";
    assert!(
        warnings(denies)[0].starts_with("p.toml:3: observer.deny_exec: keeps nobody"),
        "{:?}",
        warnings(denies)
    );
    assert!(warnings(&format!("{denies}[sc5]\nlocal = \"refuse\"\n")).is_empty());
    assert_eq!(warnings(&format!("{denies}enabled = false\n[sc5]\nlocal = \"refuse\"\n")).len(), 1);
}

#[test]
fn files_that_are_none() {
    let root = root();
    let town = Town::new();
    let host = Host { directory: &town, root: root.path() };
    let path = root.path().join("p.toml");
    let text = load_on(&path, &host).unwrap_err().to_string();
    assert!(text.contains("p.toml") && text.contains("cannot be read"), "{text}");
    std::fs::write(&path, b"break_glass = \"\xff\"\n").unwrap();
    assert!(load_on(&path, &host).unwrap_err().to_string().contains("UTF-8"));
    std::fs::write(&path, vec![b'\n'; 2 << 20]).unwrap();
    assert!(load_on(&path, &host).unwrap_err().to_string().contains("1 MiB"));
    std::fs::write(&path, "break_glass = false\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(load_on(&path, &host).unwrap().warnings[0].to_string().contains("chmod 644"));
    // What an outsider wrote cannot steer a terminal.
    let odd = error("break_glass = false\n\"\\u001b[2J\" = 1\n");
    assert!(!odd.contains('\u{1b}') && odd.contains("p.toml:2"), "{odd:?}");
}

#[test]
fn the_sample_is_right_but_for_the_break_glass_account() {
    let sample = include_str!("../../packaging/portcullis.toml");
    let text = error(sample);
    assert!(text.contains("break_glass: is missing") && text.lines().count() == 1, "{text}");
    // With every key in use, and somebody in break_glass.
    let all: String = sample
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(key) if key.contains(" = ") || key.starts_with("[[") => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let Loaded { config: shown, warnings } = parse(&all).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let plain = parse(&format!("break_glass = \"admin\"\n{sample}")).unwrap().config;
    assert_eq!(shown.classes.len(), 1);
    assert_eq!(shown.default, plain.default, "the sample does not show the defaults");
    assert_eq!((shown.root, shown.metrics, shown.agent), (plain.root, plain.metrics, plain.agent));
}
