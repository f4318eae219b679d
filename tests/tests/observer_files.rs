//! What a watched file is: the file that is there now, by whatever path or link, on overlayfs and on ext4; not its name.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::su::{KON, Su};
use portcullis_tests::system::{number, portcullis, wait_for};
use portcullis_tests::watched::{counted, held_against_anybody, programs, wait_end, wait_loaded};
use serde_json::Value;

/// A wrong password for jon by kon, asked for by this program, called by that name; its process.
fn fail(path: &str, name: &str) -> i32 {
    let mut su = Command::new(path);
    su.arg0(name).args(["jon", "-c", "id -un"]).uid(KON).gid(KON).current_dir("/");
    let mut su = Su::spawn(su).unwrap();
    let pid = su.pid().as_raw();
    su.wait_prompt().unwrap();
    su.submit("wrong").unwrap();
    assert!(!su.verdict().unwrap().let_in);
    must("portcullis", &["unlock", "jon"]).unwrap();
    pid
}

/// It is observed, from start to end.
fn seen(path: &str) {
    let found = wait_end("su", fail(path, path)).unwrap();
    assert_eq!((&found["path"], &found["result"]), (&path.into(), &"exit 1".into()), "{found}");
    assert_eq!(found["target"], "jon");
}

fn wait_watched(path: &str) {
    wait_for("the file to be watched", 10, || {
        let status = portcullis(&["status"])?;
        let all = status["observer"]["watched"].as_array().unwrap();
        Ok(all.iter().any(|one| one["path"] == path && one["present"] == true))
    })
    .unwrap();
}

#[test]
fn a_program_that_an_upgrade_replaces_is_observed_at_once() {
    if !enter("a_program_that_an_upgrade_replaces_is_observed_at_once", &Setup::short()) {
        return;
    }
    without_delays().unwrap();
    wait_loaded().unwrap();
    assert_eq!(must("stat", &["-f", "-c", "%T", "/bin/su"]).unwrap().trim(), "overlayfs");
    seen("/bin/su");
    let before = fs::metadata("/bin/su").unwrap().ino();
    for _ in 0..3 {
        // As dpkg does it: the new file beside the old one, then in its place.
        must("cp", &["--archive", "/bin/su", "/bin/su.dpkg-new"]).unwrap();
        must("mv", &["/bin/su.dpkg-new", "/bin/su"]).unwrap();
        // Before anybody looked again, and by another path.
        seen("/bin/su");
        seen("/usr/bin/su");
    }
    assert_ne!(fs::metadata("/bin/su").unwrap().ino(), before);
    assert_eq!(held_against_anybody().unwrap(), [0; 3]);
}

#[test]
fn links_are_the_program_and_copies_are_none() {
    if !enter("links_are_the_program_and_copies_are_none", &Setup::short()) {
        return;
    }
    without_delays().unwrap();
    wait_loaded().unwrap();
    // A link to a file of the layer below would make it another file, which is found within a second.
    must("cp", &["--archive", "/bin/su", "/bin/su.new"]).unwrap();
    must("mv", &["/bin/su.new", "/bin/su"]).unwrap();
    seen("/bin/su");
    // Whatever it is called by: names on the list of arguments decide nothing.
    fs::hard_link("/bin/su", "/bin/harmless").unwrap();
    let found = wait_end("su", fail("/bin/harmless", "harmless")).unwrap();
    assert_eq!(found["path"], "/bin/harmless", "{found}");
    symlink("/bin/su", "/usr/local/bin/other").unwrap();
    seen("/usr/local/bin/other");
    // Copies, one of them by the name.
    must("cp", &["--archive", "/bin/su", "/usr/local/bin/copy"]).unwrap();
    must("mkdir", &["/usr/local/lib/name"]).unwrap();
    must("cp", &["--archive", "/bin/su", "/usr/local/lib/name/su"]).unwrap();
    let copies = [fail("/usr/local/bin/copy", "su"), fail("/usr/local/lib/name/su", "su")];
    // What comes after them is told after them.
    seen("/bin/su");
    let all = programs().unwrap();
    assert!(!all.iter().any(|seen| copies.iter().any(|pid| seen["pid"] == *pid)), "{all:?}");
    // They reported as su, and are not su.
    assert_eq!(held_against_anybody().unwrap(), [0, 2, 0]);
}

#[test]
fn a_link_on_the_list_is_the_program_behind_it_and_may_come_later() {
    let setup = Setup {
        config: Some(
            "break_glass = \"admin\"\n[default]\nshadow_lock = false\n[observer]\nwatch = [\"/usr/local/bin/su\"]\n",
        ),
        ..Setup::default()
    };
    if !enter("a_link_on_the_list_is_the_program_behind_it_and_may_come_later", &setup) {
        return;
    }
    without_delays().unwrap();
    wait_loaded().unwrap();
    symlink("/bin/su", "/usr/local/bin/su").unwrap();
    wait_watched("/usr/local/bin/su");
    seen("/bin/su");
    seen("/usr/local/bin/su");
    // It leads elsewhere now.
    must("cp", &["--archive", "/bin/su", "/usr/local/lib/su"]).unwrap();
    symlink("/usr/local/lib/su", "/usr/local/bin/su.new").unwrap();
    must("mv", &["-T", "/usr/local/bin/su.new", "/usr/local/bin/su"]).unwrap();
    seen("/usr/local/bin/su");
    seen("/usr/local/lib/su");
    // sudo is not on the list: what it is asked is held against nobody.
    let mut sudo = Command::new("sudo");
    sudo.args(["-S", "-p", "Password:", "true"]).uid(KON).gid(KON).current_dir("/");
    let mut sudo = Su::spawn(sudo).unwrap();
    sudo.wait_prompt().unwrap();
    sudo.submit("wrong").unwrap();
    assert!(!sudo.verdict().unwrap().let_in);
    wait_for("its failure", 10, || Ok(number("kon", "failures")? == 1)).unwrap();
    assert_eq!(held_against_anybody().unwrap(), [0; 3]);
}

#[test]
fn a_program_on_ext4_is_observed() {
    let setup = Setup {
        config: Some(
            "break_glass = \"admin\"\n[default]\nshadow_lock = false\n[observer]\nwatch = [\"/srv/su\"]\n",
        ),
        ..Setup::default()
    };
    if !enter("a_program_on_ext4_is_observed", &setup) {
        return;
    }
    without_delays().unwrap();
    wait_loaded().unwrap();
    // Loop devices are the machine's; the mount is this system's, and lets go of its device when it ends.
    must("mknod", &["/dev/loop-control", "c", "10", "237"]).unwrap();
    for number in 0..8 {
        must("mknod", &[&format!("/dev/loop{number}"), "b", "7", &number.to_string()]).unwrap();
    }
    must("truncate", &["--size=16M", "/run/disk"]).unwrap();
    must("mkfs.ext4", &["-q", "/run/disk"]).unwrap();
    must("mount", &["-o", "loop", "/run/disk", "/srv"]).unwrap();
    must("cp", &["--archive", "/bin/su", "/srv/su"]).unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().find(|line| line.contains(" /srv ")).unwrap();
    assert!(mount.contains(" - ext4 ") && mount.contains(" 7:"), "{mount}");
    wait_watched("/srv/su");
    seen("/srv/su");
    must("cp", &["--archive", "/srv/su", "/srv/su.new"]).unwrap();
    must("mv", &["/srv/su.new", "/srv/su"]).unwrap();
    seen("/srv/su");
    assert_eq!(held_against_anybody().unwrap(), [0; 3]);
    assert_ne!(counted("starts").unwrap(), 0);
    let other = fail("/bin/su", "su");
    seen("/srv/su");
    assert!(programs().unwrap().iter().all(|seen: &Value| seen["pid"] != other), "it is not on the list");
    must("umount", &["/srv"]).unwrap();
}
