//! Changes to the throw-away system's PAM stacks and users.

use std::path::Path;

use crate::system::{read, run, write};
use crate::{Error, Result};

/// Takes pam_unix's and login's own delays after a wrong password out, which only cost time here. The delay of a refusal
/// by Portcullis stays.
///
/// # Errors
/// When a stack cannot be changed.
pub fn without_delays() -> Result<()> {
    edit(
        "common-auth",
        |line| {
            if line.contains("pam_unix.so") { format!("{line} nodelay") } else { line.into() }
        },
    )?;
    edit("login", |line| if line.contains("pam_faildelay.so") { String::new() } else { line.into() })
}

/// Changes each line of a stack in /etc/pam.d.
///
/// # Errors
/// When it cannot be read or written.
pub fn edit(service: &str, change: impl Fn(&str) -> String) -> Result<()> {
    let path = Path::new("/etc/pam.d").join(service);
    let lines: Vec<String> = read(&path)?.lines().map(change).collect();
    write(&path, &(lines.join("\n") + "\n"))
}

/// Writes a stack of its own for `service`.
///
/// # Errors
/// When it cannot be written.
pub fn service(service: &str, lines: &str) -> Result<()> {
    write(&Path::new("/etc/pam.d").join(service), lines)
}

/// Where [`install_between`] puts its module.
pub const BETWEEN: &str = "/usr/local/lib/pam_between.so";

/// Builds the module that gets in the way of the one before it: by its first word `replace` (puts a delay function of
/// its own into PAM_FAIL_DELAY, which does nothing), `remove` (leaves none there), `chain` (calls the one it found and
/// puts it back), `nest=SERVICE` (authenticates on a handle of its own), `later_right` and `later_wrong` (PAM_INCOMPLETE
/// first).
///
/// # Errors
/// With the compiler's words.
pub fn install_between() -> Result<()> {
    let source = "/usr/local/lib/pam_between.c";
    write(Path::new(source), include_str!("between.c"))?;
    must("cc", &["-shared", "-fPIC", "-o", BETWEEN, source, "-lpam"]).map(drop)
}

/// Runs a program that must succeed.
///
/// # Errors
/// With its output when it does not.
pub fn must(program: &str, arguments: &[&str]) -> Result<String> {
    match run(program, arguments)? {
        (true, output) => Ok(output),
        (false, output) => Err(Error::Answer { program: format!("{program} {arguments:?}"), output }),
    }
}
