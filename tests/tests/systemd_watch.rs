//! Observer and tamper evidence in the hardened unit, under the real systemd: fanotify, BPF and /proc work for it as they
//! do without its restrictions.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use portcullis_common::abi::{PIN_DIR, map};
use portcullis_tests::alarms::{alarm, by_me, ended, told};
use portcullis_tests::inside::{Kind, Setup, enter_a};
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::su::{self, KON, Su};
use portcullis_tests::system::{number, run, wait_for};
use portcullis_tests::watched::{held_against_anybody, wait_end, wait_loaded, wait_program};
use portcullis_tests::{looks, probe};

#[test]
fn the_hardened_unit_observes_and_judges() {
    if !enter_a(Kind::Systemd, "the_hardened_unit_observes_and_judges", &Setup::short()) {
        return;
    }
    without_delays().unwrap();
    wait_loaded().unwrap();
    let mut su = Su::start(KON, "jon").unwrap();
    let pid = su.pid().as_raw();
    su.wait_prompt().unwrap();
    su.submit("wrong").unwrap();
    assert!(!su.verdict().unwrap().let_in);
    let seen = wait_end("su", pid).unwrap();
    assert_eq!((&seen["uid"], &seen["result"]), (&KON.into(), &"exit 1".into()), "{seen}");
    // A unit has a cgroup of its own, whose id is the inode of its folder.
    let unit = [
        "--quiet",
        "--wait",
        "--uid=kon",
        "--unit=tries",
        "sh",
        "-c",
        "su no-such-user; stat -c %i /sys/fs/cgroup/system.slice/tries.service > /tmp/group; exit 0",
    ];
    assert!(run("systemd-run", &unit).unwrap().0);
    let seen = wait_program("the unit's su", |seen| seen["target"] == "no-such-user").unwrap();
    assert_eq!(seen["cgroup"].to_string(), fs::read_to_string("/tmp/group").unwrap().trim(), "{seen}");
    assert_eq!(held_against_anybody().unwrap(), [0; 3]);
    // A line that is gone: both halves say so.
    let before = fs::read_to_string("/etc/pam.d/common-auth").unwrap();
    let lines = before.lines().filter(|line| !line.contains("pam_portcullis.so"));
    let without = lines.collect::<Vec<_>>().join("\n") + "\n";
    by_me(&alarm("pam_line", || fs::write("/etc/pam.d/common-auth", without).unwrap()));
    assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
    assert_eq!(held_against_anybody().unwrap(), [1, 0, 0]);
    assert_eq!(number("jon", "failures").unwrap(), 1);
    fs::write("/etc/pam.d/common-auth", before).unwrap();
    ended("pam_line");
}

#[test]
fn the_hardened_unit_names_who_tampers_and_mends() {
    if !enter_a(Kind::Systemd, "the_hardened_unit_names_who_tampers_and_mends", &Setup::short()) {
        return;
    }
    looks::wait(1).unwrap();
    for name in [map::STATS, map::MEMBERS] {
        let path = format!("{PIN_DIR}/{name}");
        by_me(&alarm("pin_gone", || fs::remove_file(&path).unwrap()));
        ended("pin_gone");
        assert!(told("healed", &path) && Path::new(&path).exists());
    }
    let store = "/var/lib/portcullis/portcullis.db";
    let file = fs::OpenOptions::new().read(true).write(true).open(store).unwrap();
    by_me(&alarm("store_changed", || {
        file.write_at(b"S", 0).unwrap();
    }));
    let config = "/etc/portcullis/portcullis.toml";
    let text = fs::read_to_string(config).unwrap();
    by_me(&alarm("config_changed", || fs::write(config, format!("{text}# more\n")).unwrap()));
    must("portcullis", &["reload"]).unwrap();
    wait_for("the alarm's end", 10, || Ok(portcullis_tests::alarms::find("config_changed").is_none()))
        .unwrap();
    let (_, found) = run("sh", &["-c", "ls -d /usr/lib/*/libpam.so.0"]).unwrap();
    let library = found.lines().next().unwrap();
    must("sh", &["-c", &format!("cp -L {library} {library}.own && mv {library}.own {library}")]).unwrap();
    looks::wait(1).unwrap();
    let mut thief = None;
    by_me(&alarm("uprobe", || thief = Some(probe::uprobe(library, "pam_get_authtok").unwrap())));
    drop(thief);
    ended("uprobe");
    let module = run("sh", &["-c", "ls -d /usr/lib/*/security/pam_portcullis.so"]).unwrap().1;
    let module = Path::new(module.trim());
    let old = fs::read(module).unwrap();
    by_me(&alarm("module_replaced", || {
        let fresh = module.with_extension("fresh");
        fs::write(&fresh, [&old[..], b"x"].concat()).unwrap();
        fs::rename(&fresh, module).unwrap();
    }));
}
