//! Sources, with real programs: ssh from another host, su by a local user.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::path::Path;
use std::process::{Command, Stdio};

use portcullis_tests::agent;
use portcullis_tests::drops::hosts;
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::siege::{Logon, Siege, is_dropped, source};
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::su::{self, JON, KON};
use portcullis_tests::system::{password, portcullis, run, wait_for, write};

const CONFIG: &str = r#"
break_glass = "admin"
[default]
deny = 3
scope = "pair"
[filter]
enabled = true
[sc5]
guess = "drop"
spray = "drop"
local = "refuse"
deny = 4
accounts = 3
drop_time = "10s"
"#;
const SETUP: Setup<'static> = Setup { config: Some(CONFIG), no_agent: false, bare: false };

#[test]
fn a_guessing_host_is_dropped_while_another_logs_on_and_comes_back() {
    if !enter("a_guessing_host_is_dropped_while_another_logs_on_and_comes_back", &SETUP) {
        return;
    }
    without_delays().unwrap();
    let siege = Siege::begin().unwrap();
    let right = password("jon");
    // Three wrong ones shut this host out of jon; the fourth is refused, and trips it: it may not see the answer.
    for _ in 0..3 {
        assert_eq!(siege.logon(&siege.attacker, "jon", "wrong").unwrap(), Logon::Refused);
        assert!(siege.attacker.pings().unwrap(), "it is not dropped yet");
    }
    assert_ne!(siege.logon(&siege.attacker, "jon", "wrong").unwrap(), Logon::LetIn);
    siege.wait_dropped(true).unwrap();
    assert_eq!(siege.logon(&siege.attacker, "kon", &password("kon")).unwrap(), Logon::NoAnswer);
    assert!(!siege.attacker.pings().unwrap());
    assert_eq!(siege.logon(&siege.innocent, "jon", &right).unwrap(), Logon::LetIn);
    let address = siege.attacker.addresses[0];
    let row = source(address).unwrap();
    assert_eq!((&row["answered"], &row["class"]), (&true.into(), &"guess".into()), "{row}");
    // It ends by itself.
    siege.wait_dropped(false).unwrap();
    wait_for("the attacker's way back", 10, || siege.attacker.pings()).unwrap();
    // Another account, since it is shut out of jon still; the second answer is twice as long.
    for _ in 0..4 {
        assert_ne!(siege.logon(&siege.attacker, "kon", "wrong").unwrap(), Logon::LetIn);
    }
    siege.wait_dropped(true).unwrap();
    let row = source(address).unwrap();
    assert_eq!(row["repeats"], 2, "{row}");
    let drops = portcullis(&["drops"]).unwrap();
    assert!(
        drops[0]["reason"].as_str().unwrap().starts_with("guess: 4 failed logons at 1 accounts"),
        "{drops}"
    );
}

#[test]
fn with_the_services_ports_the_rest_of_a_guessers_traffic_passes() {
    let config = CONFIG.replace("drop_time = \"10s\"", "ports = \"service\"");
    let setup = Setup { config: Some(&config), no_agent: false, bare: false };
    if !enter("with_the_services_ports_the_rest_of_a_guessers_traffic_passes", &setup) {
        return;
    }
    without_delays().unwrap();
    let siege = Siege::begin().unwrap();
    for _ in 0..4 {
        assert_ne!(siege.logon(&siege.attacker, "jon", "wrong").unwrap(), Logon::LetIn);
    }
    siege.wait_dropped(true).unwrap();
    let shown = || {
        let drops = portcullis(&["drops"]).unwrap();
        drops[0]["ports"].clone()
    };
    // The sandbox's own sshd listens, too.
    assert_eq!(shown(), serde_json::json!([22, 2323]));
    assert_eq!(siege.logon(&siege.attacker, "kon", &password("kon")).unwrap(), Logon::NoAnswer);
    assert!(siege.attacker.pings().unwrap());
    // It stays so over a restart, whoever listens then.
    agent::kill_9().unwrap();
    must("pkill", &["-x", "sshd"]).unwrap();
    let mut second = agent::start().unwrap();
    wait_for("the answer", 10, || Ok(source(siege.attacker.addresses[0])?["answered"] == true)).unwrap();
    assert_eq!(shown(), serde_json::json!([22, 2323]));
    assert!(siege.attacker.pings().unwrap());
    second.kill().unwrap();
    second.wait().unwrap();
}

#[test]
fn a_host_that_an_administrator_is_logged_on_from_is_not_dropped() {
    if !enter("a_host_that_an_administrator_is_logged_on_from_is_not_dropped", &SETUP) {
        return;
    }
    without_delays().unwrap();
    write(Path::new("/run/utmp"), "").unwrap();
    let siege = Siege::begin().unwrap();
    let host = &siege.attacker;
    // A terminal: sshd notes such sessions alone.
    let mut session = Command::new("ip")
        .args(["netns", "exec", host.name, "sshpass", "-p", &password("admin"), "ssh", "-tt", "-p2323"])
        .args(["-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-oLogLevel=ERROR"])
        .args([&format!("admin@{}", host.here[0]), "sleep 300"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the session's note", 20, || Ok(!std::fs::read("/run/utmp").unwrap().is_empty())).unwrap();
    let exempt = || Ok(run("portcullis", &["events"])?.1.contains("source_exempt"));
    for _ in 0..5 {
        assert_eq!(siege.logon(host, "jon", "wrong").unwrap(), Logon::Refused);
    }
    wait_for("the word that it is exempt", 10, exempt).unwrap();
    assert!(!is_dropped(host.addresses[0]).unwrap());
    session.kill().unwrap();
    session.wait().unwrap();
}

#[test]
fn guesses_from_this_host_itself_drop_nothing() {
    if !enter("guesses_from_this_host_itself_drop_nothing", &SETUP) {
        return;
    }
    without_delays().unwrap();
    let siege = Siege::begin().unwrap();
    let here = siege.attacker.here[0];
    // A local user, by way of the address that this host has on the wire.
    let target = format!("jon@{here}");
    let exempt = || Ok(run("portcullis", &["events"])?.1.contains("source_exempt"));
    for _ in 0..4 {
        let guess = [
            "-pwrong",
            "ssh",
            "-p2323",
            "-oStrictHostKeyChecking=no",
            "-oUserKnownHostsFile=/dev/null",
            "-oPubkeyAuthentication=no",
            "-oNumberOfPasswordPrompts=1",
            target.as_str(),
            "true",
        ];
        assert!(!run("sshpass", &guess).unwrap().0);
    }
    wait_for("the word that it is exempt", 10, exempt).unwrap();
    assert_eq!(portcullis(&["drops"]).unwrap(), serde_json::json!([]));
    let row = source(here).unwrap();
    assert_eq!(row["answered"], false, "{row}");
}

#[test]
fn a_user_who_tries_many_accounts_is_refused_and_they_stay_usable() {
    if !enter("a_user_who_tries_many_accounts_is_refused_and_they_stay_usable", &SETUP) {
        return;
    }
    without_delays().unwrap();
    for account in ["jon", "admin", "root"] {
        assert!(!su::attempt(KON, account, "wrong").unwrap().let_in);
    }
    let refused = || Ok(run("portcullis", &["sources"])?.1.contains("refused"));
    wait_for("the refusal", 10, refused).unwrap();
    assert!(
        !su::attempt(KON, "jon", &password("jon")).unwrap().let_in,
        "kon is refused, right password or wrong"
    );
    assert!(su::attempt(JON, "kon", &password("kon")).unwrap().let_in, "jon is not");
    assert!(portcullis(&["accounts"]).unwrap().as_array().unwrap().iter().all(|row| row["lock"].is_null()));
    wait_for("the end of the refusal", 20, || Ok(!refused()?)).unwrap();
    assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
}

#[test]
fn what_other_programs_report_counts() {
    if !enter("what_other_programs_report_counts", &SETUP) {
        return;
    }
    for _ in 0..4 {
        let report = ["report", "--source", "::ffff:198.51.100.7", "--service", "web"];
        assert!(run("portcullis", &report).unwrap().0);
    }
    let address = "198.51.100.7".parse().unwrap();
    wait_for("the drop", 10, || is_dropped(address)).unwrap();
    for wrong in [
        ["report", "--source", "example.org", "--service", "web"],
        ["report", "--source", "198.51.100.8", "--account=nobody-of-that-name", "--service=web"],
    ] {
        assert!(!run("portcullis", &wrong).unwrap().0, "{wrong:?}");
    }
    let as_kon = ["-u", "kon", "portcullis", "report", "--source", "198.51.100.9", "--service", "web"];
    assert!(!run("runuser", &as_kon).unwrap().0, "root only");
}

#[test]
fn many_dropped_members_drop_their_network_on_the_wire() {
    let config = CONFIG.replace("drop_time = \"10s\"", "escalate = 3");
    let setup = Setup { config: Some(&config), no_agent: false, bare: false };
    if !enter("many_dropped_members_drop_their_network_on_the_wire", &setup) {
        return;
    }
    let (attacker, innocent) = hosts().unwrap();
    // A network that this host is not in, behind the attacker.
    assert!(attacker.run("ip", &["addr", "add", "203.0.113.5/24", "dev", "e0"]).unwrap().0);
    must("ip", &["route", "add", "203.0.113.0/24", "via", "10.9.1.2"]).unwrap();
    let here = attacker.here[0].to_string();
    let member = || attacker.run("ping", &["-n", "-c1", "-W1", "-I", "203.0.113.5", &here]).unwrap().0;
    let dropped = |net: &str| {
        let drops = portcullis(&["drops"])?;
        Ok(drops.as_array().unwrap().iter().any(|drop| drop["net"] == net))
    };
    for last in 70..73 {
        assert!(member(), "no more than two of them are dropped");
        let from = format!("203.0.113.{last}");
        for _ in 0..4 {
            must("portcullis", &["report", "--source", &from, "--service", "web"]).unwrap();
        }
        wait_for("the member's drop", 10, || dropped(&from)).unwrap();
    }
    wait_for("the network's drop", 10, || dropped("203.0.113.0/24")).unwrap();
    assert!(!member(), "it is in that network");
    assert!(attacker.pings().unwrap() && innocent.pings().unwrap());
    must("portcullis", &["undrop", "203.0.113.0/24"]).unwrap();
    assert!(member());
    assert!(dropped("203.0.113.72").unwrap(), "the members stay");
}

/// The action file, as fail2ban fills it in.
fn action(name: &str, port: &str, bantime: &str) -> String {
    const FILE: &str = include_str!("../../packaging/fail2ban/action.d/portcullis.conf");
    let value = |key: &str| {
        let line = FILE.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('='));
        line.unwrap().trim().to_owned()
    };
    let mut text = value(name);
    for key in ["_length", "_ports"] {
        text = text.replace(&format!("<{key}>"), &value(key));
    }
    [("<ip>", "198.51.100.7"), ("<bantime>", bantime), ("<port>", port), ("<name>", "sshd")]
        .into_iter()
        .fold(text, |text, (tag, word)| text.replace(tag, word))
}

#[test]
fn the_action_for_fail2ban_drops_and_lets_go() {
    if !enter("the_action_for_fail2ban_drops_and_lets_go", &SETUP) {
        return;
    }
    let shell = |line: &str| {
        let (done, text) = run("sh", &["-c", line]).unwrap();
        assert!(done, "{line}: {text}");
    };
    let address = "198.51.100.7".parse().unwrap();
    for (port, bantime) in [("", "600"), ("22", "600"), ("", "-1")] {
        shell(&action("actioncheck", port, bantime));
        shell(&action("actionban", port, bantime));
        let drops = portcullis(&["drops"]).unwrap();
        let drop = drops.get(0).unwrap();
        assert_eq!(drop["net"], "198.51.100.7", "{drops}");
        assert_eq!(drop["reason"], "fail2ban: sshd");
        assert_eq!(drop["cause"], "reported");
        assert_eq!(drop["ports"].as_array().unwrap().len(), usize::from(!port.is_empty()));
        assert_eq!(drop["until"] == "never", bantime == "-1", "{drops}");
        shell(&action("actionunban", port, bantime));
        assert!(!is_dropped(address).unwrap());
    }
    // Ended meanwhile: no error.
    shell(&action("actionunban", "", "600"));
    // What an administrator dropped stays, and stays as long.
    shell("portcullis drop 198.51.100.7 --reason by-hand");
    for name in ["actionban", "actionunban"] {
        shell(&action(name, "22", "600"));
        let drops = portcullis(&["drops"]).unwrap();
        let drop = drops.get(0).unwrap();
        assert_eq!((&drop["until"], &drop["cause"]), (&"never".into(), &"administrator".into()), "{drops}");
        assert_eq!((&drop["reason"], &drop["ports"]), (&"by-hand".into(), &serde_json::json!([])), "{drops}");
    }
    shell("portcullis undrop 198.51.100.7");
    assert!(!is_dropped(address).unwrap());
}
