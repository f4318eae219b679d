//! Commands that are told of events, the file and the journal: with real programs, and by the order in which things happen.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use portcullis_tests::inside::{Kind, Setup, enter, enter_a};
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::su::{self, JON, KON};
use portcullis_tests::system::{Hold, password, portcullis, read, run, shadow_locked, wait_for, write};
use serde_json::Value;

/// What commands leave behind.
const TOLD: &str = "/run/told";
/// What the agent of the sandbox writes on standard error.
const LOG: &str = "/var/log/portcullisd.log";

fn script(name: &str, text: &str) {
    let path = format!("/usr/local/sbin/{name}");
    write(Path::new(&path), &format!("#!/bin/sh\n{text}\n")).unwrap();
    must("chmod", &["755", &path]).unwrap();
}

fn told() -> String {
    read(Path::new(TOLD)).unwrap_or_default()
}

fn log_says(words: &str) -> bool {
    read(Path::new(LOG)).unwrap().contains(words)
}

/// Commands that ended so.
fn commands(result: &str) -> u64 {
    let (_, page) = run("curl", &["-s", "http://127.0.0.1:9456/metrics"]).unwrap();
    let start = format!("portcullis_notify_commands_total{{result=\"{result}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok()).unwrap_or(0)
}

fn wrong(who: u32, user: &str, times: usize) {
    for _ in 0..times {
        assert!(!su::attempt(who, user, "wrong").unwrap().let_in);
    }
}

const WORDS: &str = r#"
break_glass = "admin"
[default]
deny = 2
[notify]
parallel = 1
[[notify.command]]
events = ["lock"]
argv = ["/usr/local/sbin/told", "$(touch /run/shell)", "`touch /run/shell`", "; touch /run/shell", "a b"]
"#;

/// What a shell, a terminal or a log would stumble over; a colon and a line's end alone cannot be in a name.
const ODD: &str = "o$(touch /run/shell)`touch /run/shell`;'\"|&\\ \u{1b}[2J%s";

#[test]
fn a_users_odd_name_reaches_a_command_as_data() {
    let setup = Setup { config: Some(WORDS), ..Setup::default() };
    if !enter("a_users_odd_name_reaches_a_command_as_data", &setup) {
        return;
    }
    without_delays().unwrap();
    script(
        "told",
        "{ tr '\\0' '|' < /proc/$$/cmdline; echo; tr '\\0' '|' < /proc/$$/environ; echo; cat; } >> /run/told",
    );
    for (file, line) in [
        ("/etc/passwd", format!("{ODD}:x:2050:2050::/:/bin/sh")),
        ("/etc/shadow", format!("{ODD}:*:19000::::::")),
    ] {
        let mut file = OpenOptions::new().append(true).open(file).unwrap();
        writeln!(file, "{line}").unwrap();
    }
    wrong(KON, ODD, 2);
    wait_for("the command", 20, || Ok(told().contains("\"tripped\""))).unwrap();
    let text = told();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "/bin/sh|/usr/local/sbin/told|$(touch /run/shell)|`touch /run/shell`|; touch /run/shell|a b|",
        "the arguments are those of the file, word by word"
    );
    assert_eq!(lines[1], "LC_ALL=C|PATH=/usr/sbin:/usr/bin:/sbin:/bin|", "and no more in its environment");
    let event: Value = serde_json::from_str(lines[2]).unwrap();
    let name = "o$(touch /run/shell)`touch /run/shell`;'\"|&\\\\ \\x1b[2J%s";
    assert_eq!(event["account"]["name"], name, "{event}");
    assert_eq!(event["account"]["uid"], 2050);
    assert!(!Path::new("/run/shell").exists(), "a shell looked at a name or a word");
}

const HELD: &str = r#"
break_glass = "admin"
[default]
deny = 16
[[class]]
name = "short"
users = ["kon"]
deny = 2
shadow_lock = true
[notify]
parallel = 2
queue = 3
timeout = "1h"
[[notify.command]]
events = ["fail"]
argv = ["/usr/local/sbin/held"]
"#;

/// How many ran at once, at most, by what they wrote.
fn most_at_once() -> usize {
    let (mut now, mut most) = (0_usize, 0);
    for line in told().lines() {
        now = if line == "begun" { now + 1 } else { now - 1 };
        most = most.max(now);
    }
    most
}

#[test]
fn commands_that_hang_hold_up_no_lock_and_have_a_limit() {
    let setup = Setup { config: Some(HELD), ..Setup::default() };
    if !enter("commands_that_hang_hold_up_no_lock_and_have_a_limit", &setup) {
        return;
    }
    without_delays().unwrap();
    script("held", &format!("echo begun >> {TOLD}\n{}\necho ended >> {TOLD}", Hold::WAIT));
    let hold = Hold::begin().unwrap();
    // Two run, three wait, two find no room.
    wrong(KON, "jon", 7);
    wait_for("the limits", 20, || Ok(commands("dropped") == 2)).unwrap();
    wait_for("the commands", 20, || Ok(told().lines().count() == 2)).unwrap();
    assert!(log_says("3 commands wait, those for further events are not run"));
    // Lock and shadow lock come while they hang.
    wrong(JON, "kon", 2);
    assert!(!su::attempt(JON, "kon", &password("kon")).unwrap().let_in, "not locked");
    wait_for("the shadow lock", 20, || shadow_locked("kon")).unwrap();
    assert_eq!(told(), "begun\nbegun\n", "and both hang still");
    assert_eq!(commands("dropped"), 4);
    hold.end().unwrap();
    wait_for("what waited", 20, || Ok(commands("done") == 5)).unwrap();
    assert_eq!(told().lines().filter(|line| *line == "begun").count(), 5);
    assert_eq!(most_at_once(), 2, "more ran at once than notify.parallel says");
    wait_for("how many were not run", 10, || Ok(log_says("4 commands were not run"))).unwrap();
}

const FAILING: &str = r#"
break_glass = "admin"
[default]
deny = 2
unlock_time = "10m"
[notify]
timeout = "1s"
[[notify.command]]
events = ["tripped"]
argv = ["/usr/local/sbin/hangs"]
[[notify.command]]
events = ["tripped"]
argv = ["/usr/local/sbin/fails"]
[[notify.command]]
events = ["tripped"]
argv = ["/usr/local/sbin/absent"]
"#;

#[test]
fn commands_that_hang_fail_or_are_not_there_are_told() {
    let setup = Setup { config: Some(FAILING), ..Setup::default() };
    if !enter("commands_that_hang_fail_or_are_not_there_are_told", &setup) {
        return;
    }
    without_delays().unwrap();
    script("hangs", &format!("(echo begun >> {TOLD}; exec sleep 7777) &\nwait"));
    script("fails", "echo 'no route to the pager' >&2; exit 3");
    wrong(KON, "jon", 2);
    wait_for("the ends", 30, || Ok(commands("timeout") == 1 && commands("failed") == 2)).unwrap();
    assert_eq!(told(), "begun\n");
    wait_for("the end of what it started", 10, || Ok(!run("pgrep", &["-f", "^sleep 7777$"])?.0)).unwrap();
    let log = read(Path::new(LOG)).unwrap();
    let said = |words: &[&str]| {
        log.lines().any(|line| {
            line.contains("notify.command for tripped") && words.iter().all(|word| line.contains(word))
        })
    };
    assert!(said(&["/usr/local/sbin/hangs", "longer than 1s", "killed", "notify.timeout"]), "{log}");
    assert!(said(&["/usr/local/sbin/fails", "exit status: 3", "no route to the pager", "by hand"]), "{log}");
    assert!(said(&["/usr/local/sbin/absent", "No such file", "installed"]), "{log}");
    // It is said before it is needed, too.
    let (good, text) = run("portcullis", &["config", "check"]).unwrap();
    let wanted = "portcullis.toml:16: notify.command.argv: /usr/local/sbin/absent";
    assert!(good && text.contains(wanted) && text.contains("install"), "{text}");
    assert!(!text.contains("/usr/local/sbin/fails"), "{text}");
}

#[test]
fn the_journal_has_the_fields_of_events() {
    let config = "break_glass = \"admin\"\n[default]\ndeny = 3\n";
    let setup = Setup { config: Some(config), ..Setup::default() };
    if !enter_a(Kind::Systemd, "the_journal_has_the_fields_of_events", &setup) {
        return;
    }
    without_delays().unwrap();
    wrong(KON, "jon", 3);
    let found = |fields: &[&str]| -> Vec<Value> {
        let (_, text) = run("journalctl", &[&["-o", "json", "--quiet"], fields].concat()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    wait_for("the failures", 20, || {
        Ok(found(&["PORTCULLIS_EVENT=fail", "PORTCULLIS_ACCOUNT=jon"]).len() == 3)
    })
    .unwrap();
    wait_for("the trip", 20, || Ok(!found(&["PORTCULLIS_EVENT=tripped"]).is_empty())).unwrap();
    let fail = &found(&["PORTCULLIS_EVENT=fail"])[2];
    for (field, value) in [
        ("PORTCULLIS_UID", "2002"),
        ("PORTCULLIS_ACTOR_UID", "2001"),
        ("PORTCULLIS_SERVICE", "su"),
        ("SYSLOG_IDENTIFIER", "portcullisd"),
        ("_SYSTEMD_UNIT", "portcullisd.service"),
        ("PRIORITY", "4"),
    ] {
        assert_eq!(fail[field], value, "{field} of {fail}");
    }
    // The message is the event, as it is shown elsewhere.
    let (_, shown) = run("portcullis", &["events", "--json"]).unwrap();
    let shown: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let message: Value = serde_json::from_str(fail["MESSAGE"].as_str().unwrap()).unwrap();
    assert!(shown.contains(&message), "{message}");
}

const EVERYTHING: &str = r#"
break_glass = "admin"
[default]
deny = 2
unlock_time = "2s"
shadow_lock = true
[[class]]
name = "pairs"
users = ["kon"]
scope = "pair"
account_deny = 3
[breaker]
failing_accounts = 2
[notify]
file = "/var/log/portcullis/events.json"
"#;

/// The first column of the tables of docs/events.md whose header there is this word: the names between backticks.
fn documented(column: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in include_str!("../../docs/events.md").lines() {
        match line.split('|').nth(1).map(str::trim) {
            None => inside = false,
            Some(header) if header == column => inside = true,
            Some(cell) if inside => names.extend(cell.split('`').skip(1).step_by(2).map(str::to_owned)),
            Some(_) => {}
        }
    }
    names
}

/// Whether a value is of the kind that docs/events.md gives the field.
fn is_as_documented(field: &str, value: &Value) -> bool {
    let time = |value: &Value| {
        value.as_str().is_some_and(|text| text.len() >= 20 && text.contains('T') && text.ends_with('Z'))
    };
    let keys = |value: &Value, known: &[&str]| {
        value.as_object().is_some_and(|object| object.keys().all(|key| known.contains(&key.as_str())))
    };
    match field {
        "time" => time(value),
        "event" | "service" | "tty" | "detail" => value.is_string(),
        "account" => keys(value, &["uid", "name"]) && (value["uid"].is_null() || value["uid"].is_u64()),
        "actor" => match value["kind"].as_str() {
            Some("local") => keys(value, &["kind", "uid", "name"]) && value["uid"].is_u64(),
            Some("remote") => keys(value, &["kind", "address"]) && value["address"].is_string(),
            Some("unknown") => keys(value, &["kind"]),
            _ => false,
        },
        "failures" | "deny" => value.is_u64(),
        "tripped" => value.is_boolean(),
        "locked_until" => time(value) || value == "never",
        "result" => ["verified", "failed", "already_locked", "foreign"].iter().any(|word| value == word),
        _ => false,
    }
}

#[test]
fn every_line_of_the_file_is_as_documented() {
    let setup = Setup { config: Some(EVERYTHING), ..Setup::default() };
    if !enter("every_line_of_the_file_is_as_documented", &setup) {
        return;
    }
    without_delays().unwrap();
    std::fs::create_dir_all("/var/log/portcullis").unwrap();
    must("portcullis", &["reload"]).unwrap();
    let lines = || -> Vec<Value> {
        let text = read(Path::new("/var/log/portcullis/events.json")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let seen = |event: &str| lines().iter().any(|line| line["event"] == event);
    assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
    wrong(KON, "jon", 2);
    assert!(!su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
    wait_for("the end of the lock", 40, || Ok(seen("shadow_unlock"))).unwrap();
    wrong(JON, "kon", 2);
    assert!(!su::attempt(JON, "kon", &password("kon")).unwrap().let_in);
    must("portcullis", &["lock", "jon", "--for", "1h"]).unwrap();
    must("portcullis", &["unlock", "jon"]).unwrap();
    must("sh", &["-c", "echo wrong | pamtester login nosuch authenticate; true"]).unwrap();
    wait_for("the breaker", 20, || Ok(seen("breaker_open"))).unwrap();
    for event in [
        "pass",
        "cleared",
        "fail",
        "tripped",
        "refused",
        "shadow_lock",
        "released",
        "shadow_unlock",
        "pair_tripped",
        "locked",
        "unlocked",
        "breaker_open",
    ] {
        wait_for(event, 20, || Ok(seen(event))).unwrap();
    }
    let (events, fields) = (documented("event"), documented("field"));
    assert!(
        events.len() > 40 && fields.len() > 10,
        "the tables are not found any more: {events:?} {fields:?}"
    );
    for line in lines() {
        assert!(events.contains(line["event"].as_str().unwrap()), "no such event is documented: {line}");
        for (field, value) in line.as_object().unwrap() {
            assert!(
                fields.contains(field) && is_as_documented(field, value),
                "{field} is not as documented: {line}"
            );
        }
    }
    let told = lines();
    let (_, shown) = run("portcullis", &["events", "--json"]).unwrap();
    for line in told {
        let known = shown.lines().any(|shown| serde_json::from_str::<Value>(shown).unwrap() == line);
        assert!(known, "the file and the stream differ: {line}");
    }
    assert!(portcullis(&["status"]).unwrap()["gate"] == true);
}
