//! `install` and `uninstall` with the real pam-auth-update, in a sandbox. Needs root and a built Portcullis: run by
//! `cargo xtask test`.
#![allow(clippy::unwrap_used, reason = "a helper of tests: a panic is a red test")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs `script` in a bare sandbox, where this build of xtask is /opt/xtask.
fn sandbox(script: &str) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().display();
    let mut sandbox = Command::new(env!("CARGO_BIN_EXE_xtask"));
    sandbox.args(["sandbox", "--quiet", "--bare", "--bind"]);
    sandbox.arg(concat!(env!("CARGO_BIN_EXE_xtask"), ":/opt/xtask"));
    sandbox.arg("--bind").arg(format!("{root}:{root}"));
    sandbox.args(["--", "bash", "-euc", script]).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn uninstall_takes_the_line_out_and_the_module_with_it() {
    let output = sandbox(
        "grep -q pam_portcullis.so /etc/pam.d/common-auth
         /opt/xtask uninstall
         ! grep -r pam_portcullis.so /etc/pam.d
         test -e /etc/portcullis/portcullis.toml
         ! find / -xdev -name 'pam_portcullis.so' -o -xdev -name 'portcullis*.service' -o -xdev -path '*/share/*portcullis*' -o -xdev -path '*bin/portcullis*' | grep .
         echo \"$JON_PASSWORD\" | su kon -c 'su jon -c \"echo in\"'",
    );
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("\nin\n"), "{output:?}");
}

#[test]
fn uninstall_refuses_while_a_line_written_by_hand_is_left() {
    let output = sandbox(
        "echo 'auth requisite pam_portcullis.so' >> /etc/pam.d/su
         /opt/xtask uninstall && exit 9
         find /lib /usr/lib -name pam_portcullis.so | grep -q .",
    );
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains("/etc/pam.d/su: auth requisite pam_portcullis.so"), "{text}");
}

#[test]
fn uninstall_leaves_nothing_at_work_in_the_kernel() {
    let output = sandbox(
        "/usr/sbin/portcullisd gate
         test -e /sys/fs/bpf/portcullis
         /opt/xtask uninstall
         ! test -e /sys/fs/bpf/portcullis",
    );
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn uninstall_refuses_while_an_account_is_locked_in_etc_shadow() {
    let output = sandbox(
        "/usr/sbin/portcullisd run & agent=$!
         until portcullis status --json 2> /dev/null | grep -q '\"answered_by\": *\"agent\"'; do kill -0 $agent; done
         portcullis lock jon
         grep -q '^jon:!' /etc/shadow
         /opt/xtask uninstall && exit 9
         test -e /usr/bin/portcullis
         portcullis unlock jon
         /opt/xtask uninstall
         ! grep -q '^jon:!' /etc/shadow",
    );
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("portcullis unlock"), "{output:?}");
}
