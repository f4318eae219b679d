//! Tamper evidence: each thing is really done, and is an alarm soon after, with who did it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use portcullis_common::abi::{PIN_DIR, PIN_EXIT_LINKS, PIN_GATE, PIN_ROOT, map};
use portcullis_common::filter::FILTER_DIR;
use portcullis_common::observer::{self, OBSERVER_DIR};
use portcullis_tests::alarms::{alarm, all as alarms, by_me, ended, find, told};
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::looks::PAST_MENDING;
use portcullis_tests::stack::{edit, must};
use portcullis_tests::su::{self, KON};
use portcullis_tests::system::{number, run, wait_for};
use portcullis_tests::{bpf, looks, probe, watched};
use serde_json::Value;

const FILE: &str = "/etc/portcullis/portcullis.toml";
const STORE: &str = "/var/lib/portcullis/portcullis.db";
const FILTERED: Setup<'static> = Setup {
    config: Some("break_glass = \"admin\"\n[filter]\nenabled = true\ninterfaces = [\"vt0\"]\n"),
    no_agent: false,
    bare: false,
};
fn pin(name: &str) -> String {
    format!("{PIN_DIR}/{name}")
}

#[test]
fn a_line_taken_out_of_the_stack_is_an_alarm() {
    if !enter("a_line_taken_out_of_the_stack_is_an_alarm", &Setup::short()) {
        return;
    }
    let before = fs::read("/etc/pam.d/common-auth").unwrap();
    let out = |line: &str| if line.contains("pam_portcullis.so") { String::new() } else { line.to_owned() };
    let found = alarm("pam_line", || edit("common-auth", out).unwrap());
    by_me(&found);
    assert!(found["detail"].as_str().unwrap().contains("su"), "{found}");
    let status = run("portcullis", &["status"]).unwrap().1;
    assert!(status.contains("ALARM") && status.contains("pam_line"), "{status}");
    assert!(told("pam_line", "common-auth"));
    // It is the administrator's file: nobody mends it but he.
    fs::write("/etc/pam.d/common-auth", &before).unwrap();
    ended("pam_line");
    let (_, page) = run("portcullis", &["metrics"]).unwrap();
    assert!(page.contains("portcullis_alarms_open{kind=\"pam_line\"} 0"), "{page}");
    let raised = page.lines().find(|line| line.starts_with("portcullis_alarms_total{kind=\"pam_line\"}"));
    assert!(raised.is_some_and(|line| !line.ends_with(" 0")), "{raised:?}");
}

#[test]
fn a_line_moved_below_the_password_check_is_an_alarm() {
    if !enter("a_line_moved_below_the_password_check_is_an_alarm", &Setup::short()) {
        return;
    }
    let found = alarm("pam_line", || {
        // As an editor does it: a new file is put in the place of the old one.
        let text = fs::read_to_string("/etc/pam.d/common-auth").unwrap();
        let (ours, rest): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.contains("pam_portcullis.so"));
        let at = rest.iter().position(|line| line.contains("pam_unix.so")).unwrap() + 1;
        let lines: Vec<&str> = rest[..at].iter().chain(&ours).chain(&rest[at..]).copied().collect();
        fs::write("/etc/pam.d/common-auth.new", lines.join("\n") + "\n").unwrap();
        fs::rename("/etc/pam.d/common-auth.new", "/etc/pam.d/common-auth").unwrap();
    });
    by_me(&found);
    assert!(found["detail"].as_str().unwrap().contains("auth-below"), "{found}");
    // Taken note of, it is shown no more, until it is about something else.
    assert!(run("portcullis", &["alarms", "--ack", "all"]).unwrap().0);
    assert_eq!(find("pam_line"), None);
    let out = |line: &str| if line.contains("pam_portcullis.so") { String::new() } else { line.to_owned() };
    let found = alarm("pam_line", || edit("common-auth", out).unwrap());
    assert!(found["detail"].as_str().unwrap().contains("auth-missing"), "{found}");
}

#[test]
fn a_module_that_is_replaced_is_an_alarm() {
    if !enter("a_module_that_is_replaced_is_an_alarm", &Setup::short()) {
        return;
    }
    let (_, found) = run(
        "sh",
        &["-c", "ls -d /usr/lib/*/security/pam_portcullis.so /lib/security/pam_portcullis.so 2>/dev/null"],
    )
    .unwrap();
    let module = Path::new(found.lines().next().unwrap());
    let old = fs::read(module).unwrap();
    let put = |bytes: &[u8]| {
        let fresh = module.with_extension("fresh");
        fs::write(&fresh, bytes).unwrap();
        fs::rename(&fresh, module).unwrap();
    };
    by_me(&alarm("module_replaced", || put(&[&old[..], b"x"].concat())));
    put(&old);
    ended("module_replaced");
}

#[test]
fn a_pin_that_is_removed_is_an_alarm_and_is_put_back() {
    if !enter("a_pin_that_is_removed_is_an_alarm_and_is_put_back", &Setup::short()) {
        return;
    }
    let paths = [pin(map::MEMBERS), PIN_GATE.to_owned(), PIN_EXIT_LINKS[0].to_owned()];
    for path in &paths {
        let found = alarm("pin_gone", || fs::remove_file(path).unwrap());
        by_me(&found);
        ended("pin_gone");
        assert!(told("healed", path), "it was put back, and that is told");
        assert!(Path::new(path).exists());
    }
    // What is back is what was there: a wrong guess is counted, by the gate and with its member tables.
    assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
    wait_for("the failure", 10, || Ok(number("jon", "failures")? == 1)).unwrap();
}

#[test]
fn a_pin_that_holds_something_else_is_an_alarm_and_is_put_back() {
    if !enter("a_pin_that_holds_something_else_is_an_alarm_and_is_put_back", &Setup::short()) {
        return;
    }
    let found = alarm("pin_replaced", || {
        bpf::pin_what_is_no_gate(PIN_GATE).unwrap();
    });
    assert_eq!(found["about"], PIN_GATE);
    ended("pin_replaced");
    assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
    wait_for("the failure", 10, || Ok(number("jon", "failures")? == 1)).unwrap();
    // A pin that others may open.
    let found = alarm("pin_mode", || {
        assert!(run("chmod", &["666", PIN_GATE]).unwrap().0);
    });
    assert_eq!(found["about"], PIN_GATE);
    ended("pin_mode");
    assert_eq!(must("stat", &["-c", "%a", PIN_GATE]).unwrap().trim(), "600");
    // The same gate loaded again, as a restart of its unit does, is none.
    must("portcullisd", &["gate"]).unwrap();
    looks::wait(2).unwrap();
    assert_eq!(alarms(), Vec::<Value>::new());
}

#[test]
fn the_way_out_stays_one() {
    if !enter("the_way_out_stays_one", &Setup::short()) {
        return;
    }
    let found = alarm("pin_gone", || {
        assert!(run("rm", &["-r", PIN_ROOT]).unwrap().0);
    });
    assert!(found["detail"].as_str().unwrap().contains("nothing is put back"), "{found}");
    looks::wait(PAST_MENDING).unwrap();
    assert!(!Path::new(PIN_ROOT).exists(), "it stays away");
    assert!(!told("healed", ""));
}

#[test]
fn the_observers_pins_are_put_back_and_its_way_out_stays_one() {
    if !enter("the_observers_pins_are_put_back_and_its_way_out_stays_one", &Setup::short()) {
        return;
    }
    watched::wait_loaded().unwrap();
    looks::wait(1).unwrap();
    for path in [observer::PIN_LINKS[0].to_owned(), format!("{OBSERVER_DIR}/{}", observer::map::WATCHED)] {
        by_me(&alarm("pin_gone", || fs::remove_file(&path).unwrap()));
        ended("pin_gone");
        assert!(told("healed", &path) && Path::new(&path).exists());
    }
    // It has not stopped meanwhile, nor by what was put back.
    let starts = watched::counted("starts").unwrap();
    assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
    wait_for("su's start", 10, || Ok(watched::counted("starts")? > starts)).unwrap();
    let found = alarm("pin_gone", || {
        assert!(run("rm", &["-r", OBSERVER_DIR]).unwrap().0);
    });
    assert!(found["detail"].as_str().unwrap().contains("nothing is put back"), "{found}");
    looks::wait(PAST_MENDING).unwrap();
    assert!(!Path::new(OBSERVER_DIR).exists(), "it stays away");
    let seen = watched::programs().unwrap().len();
    assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
    wait_for("the failure", 10, || Ok(number("jon", "failures")? == 2)).unwrap();
    assert_eq!(watched::programs().unwrap().len(), seen, "nothing hangs on the tracepoints any more");
}

#[test]
fn mending_ends_where_somebody_insists() {
    if !enter("mending_ends_where_somebody_insists", &Setup::short()) {
        return;
    }
    let path = pin(map::STATS);
    for _ in 0..5 {
        alarm("pin_gone", || fs::remove_file(&path).unwrap());
        ended("pin_gone");
    }
    alarm("pin_gone", || fs::remove_file(&path).unwrap());
    looks::wait(PAST_MENDING).unwrap();
    assert!(!Path::new(&path).exists(), "five times an hour, then the alarm alone");
    assert!(find("pin_gone").is_some());
}

fn link_pin() -> Option<String> {
    let mut names = fs::read_dir(FILTER_DIR).ok()?.flatten().map(|entry| entry.path().display().to_string());
    names.find(|path| path.contains("/tc-"))
}

fn two_interfaces() {
    must("ip", &["link", "add", "vt0", "type", "veth", "peer", "name", "vt1"]).unwrap();
    must("ip", &["link", "set", "vt0", "up"]).unwrap();
    wait_for("the filter on vt0", 10, || Ok(link_pin().is_some())).unwrap();
    looks::wait(1).unwrap();
}

#[test]
fn a_filter_that_is_taken_off_is_an_alarm_and_is_put_back() {
    if !enter("a_filter_that_is_taken_off_is_an_alarm_and_is_put_back", &FILTERED) {
        return;
    }
    two_interfaces();
    let path = link_pin().unwrap();
    let found = alarm("detached", || bpf::detach(&path).unwrap());
    assert_eq!(found["about"], path.as_str());
    ended("detached");
    let attached = || bpf::interface_of(&path).unwrap_or_default() != 0;
    assert!(attached(), "it hangs on vt0 again");
    by_me(&alarm("pin_gone", || fs::remove_file(&path).unwrap()));
    ended("pin_gone");
    assert!(attached());
}

#[test]
fn an_interface_that_is_gone_is_an_alarm() {
    if !enter("an_interface_that_is_gone_is_an_alarm", &FILTERED) {
        return;
    }
    two_interfaces();
    let found = alarm("interface_gone", || {
        must("ip", &["link", "del", "vt0"]).unwrap();
    });
    assert_eq!(found["about"], "vt0");
    two_interfaces();
    ended("interface_gone");
    assert_eq!(alarms(), Vec::<Value>::new());
    // A filter that the configuration turns off is none.
    let text = fs::read_to_string(FILE).unwrap();
    fs::write(FILE, text.replace("enabled = true", "enabled = false")).unwrap();
    must("portcullis", &["reload"]).unwrap();
    wait_for("the filter's end", 10, || Ok(!Path::new(FILTER_DIR).exists())).unwrap();
    looks::wait(2).unwrap();
    assert_eq!(alarms(), Vec::<Value>::new());
}

#[test]
fn a_breakpoint_in_libpam_is_an_alarm() {
    if !enter("a_breakpoint_in_libpam_is_an_alarm", &Setup::short()) {
        return;
    }
    let (_, found) = run("sh", &["-c", "ls -d /usr/lib/*/libpam.so.0"]).unwrap();
    let library = found.lines().next().unwrap();
    // A file of this system alone: other systems of this machine share the one below.
    must("sh", &["-c", &format!("cp -L {library} {library}.own && mv {library}.own {library}")]).unwrap();
    looks::wait(1).unwrap();
    let mut thief = None;
    let found = alarm("uprobe", || thief = Some(probe::uprobe(library, "pam_get_authtok").unwrap()));
    assert_eq!(found["about"], library);
    by_me(&found);
    drop(thief);
    ended("uprobe");
}

#[test]
fn a_configuration_changed_by_other_hands_is_an_alarm_until_it_is_read() {
    if !enter("a_configuration_changed_by_other_hands_is_an_alarm_until_it_is_read", &Setup::short()) {
        return;
    }
    let text = fs::read_to_string(FILE).unwrap();
    let found = alarm("config_changed", || fs::write(FILE, text.replace("deny = 3", "deny = 4")).unwrap());
    by_me(&found);
    must("portcullis", &["reload"]).unwrap();
    wait_for("the alarm's end", 10, || Ok(find("config_changed").is_none())).unwrap();
}

#[test]
fn a_store_written_by_other_hands_is_an_alarm_until_it_is_noted() {
    if !enter("a_store_written_by_other_hands_is_an_alarm_until_it_is_noted", &Setup::short()) {
        return;
    }
    // The agent's own writing is none.
    assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
    wait_for("the failure", 10, || Ok(number("jon", "failures")? == 1)).unwrap();
    assert_eq!(alarms(), Vec::<Value>::new());
    let store = fs::OpenOptions::new().read(true).write(true).open(STORE).unwrap();
    let found = alarm("store_changed", || {
        store.write_at(b"S", 0).unwrap();
    });
    by_me(&found);
    let id = found["id"].to_string();
    assert!(run("portcullis", &["alarms", "--ack", &id]).unwrap().0);
    assert_eq!(find("store_changed"), None);
    // Taken away.
    let found = alarm("store_changed", || fs::remove_file(STORE).unwrap());
    assert!(found["detail"].as_str().unwrap().contains("removed"), "{found}");
}
