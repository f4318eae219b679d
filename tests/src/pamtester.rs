//! pamtester: any service's stack, step by step, with whatever items a real program could set.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Stdio};

use crate::{Error, Result};

/// The items that a remote client has a say in, and the terminal.
pub type Items<'a> = [(&'a str, &'a [u8])];

/// Runs `steps` of `service` for `user` as root, with `password` for the prompt: whether every step succeeded, and what
/// was printed.
///
/// # Errors
/// When pamtester cannot be run.
pub fn login(
    service: &str,
    user: impl AsRef<OsStr>,
    items: &Items<'_>,
    steps: &[&str],
    password: &str,
) -> Result<(bool, String)> {
    let mut tester = Command::new("pamtester");
    for (item, value) in items {
        let value = [item.as_bytes(), b"=", value].concat();
        tester.arg("-I").arg(OsStr::from_bytes(&value));
    }
    tester.arg(service).arg(user).args(steps);
    answer(tester, password)
}

/// The same without items, as the unprivileged user `who`, as a screen locker does.
///
/// # Errors
/// When pamtester cannot be run.
pub fn as_user(who: &str, service: &str, user: &str, password: &str) -> Result<(bool, String)> {
    let mut tester = Command::new("runuser");
    tester.args(["-u", who, "--", "pamtester", service, user, "authenticate"]);
    answer(tester, password)
}

fn answer(mut tester: Command, password: &str) -> Result<(bool, String)> {
    let trouble = |source| Error::Program { program: "pamtester".into(), source };
    tester.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tester = tester.spawn().map_err(trouble)?;
    if let Some(mut stdin) = tester.stdin.take() {
        // It may end without having asked.
        let _ = writeln!(stdin, "{password}");
    }
    let output = tester.wait_with_output().map_err(trouble)?;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.success(), text))
}
