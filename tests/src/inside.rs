//! Runs a test in a sandbox of its own: outside, the test starts `xtask sandbox` with its own program bound in; inside,
//! the same program runs the same test's body.
//!
//! ```ignore
//! #[test]
//! fn name() {
//!     if !inside::enter("name", &Setup::default()) { return; }
//!     // as root in the throw-away system
//! }
//! ```

use std::path::PathBuf;
use std::process::Command;

/// Set inside.
const INSIDE: &str = "PORTCULLIS_INSIDE";
/// Another eBPF object to start the gate with: `cargo xtask test mutations`.
const GATE_OBJECT: &str = "PORTCULLIS_GATE_OBJECT";
/// Set where tests take their long numbers: `cargo xtask test leaks`.
const LONG: &str = "PORTCULLIS_TEST_LONG";
/// Where the program of the test is seen inside.
const PROGRAM: &str = "/opt/portcullis-test";

/// Where agent and module of the next ABI version are seen inside.
pub const NEXT: &str = "/opt/portcullis-next";

/// A configuration: deny = 3, no shadow lock, guesses without a result count after 4 s.
pub const SHORT: &str = r#"
break_glass = "admin"
reservation_max_age = "4s"
[default]
deny = 3
fail_interval = "15m"
unlock_time = "10m"
shadow_lock = false
"#;

/// What the sandbox is like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup<'a> {
    /// Configuration, as text; None: the sandbox's own.
    pub config: Option<&'a str>,
    /// Without the agent.
    pub no_agent: bool,
    /// Nothing started.
    pub bare: bool,
}

/// deny = 3, everything else as it is without a configuration: no shadow lock, a minute for a guess without a result.
pub const DENY_3: Setup<'static> =
    Setup { config: Some("break_glass = \"admin\"\n[default]\ndeny = 3\n"), no_agent: false, bare: false };

/// Which sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As `cargo xtask sandbox` makes it.
    Usual,
    /// With agent and module of the next ABI version shown in [`NEXT`].
    Next,
    /// With systemd as its process 1, which starts what is installed; [`NEXT`] is there where it was built.
    Systemd,
}

impl Setup<'_> {
    /// With [`SHORT`].
    #[must_use]
    pub fn short() -> Self {
        Self { config: Some(SHORT), ..Self::default() }
    }
}

/// Whether this is the inside. Outside: runs the test `name` of this program inside, and fails if that does.
///
/// # Panics
/// When the test fails inside, or no sandbox can be made: both fail the test.
#[must_use]
pub fn enter(name: &str, setup: &Setup<'_>) -> bool {
    enter_a(Kind::Usual, name, setup)
}

/// [`enter`], with a sandbox of another kind.
///
/// # Panics
/// As [`enter`].
#[must_use]
#[allow(clippy::panic, reason = "this is how a test fails")]
pub fn enter_a(kind: Kind, name: &str, setup: &Setup<'_>) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if let Err(trouble) = outside(kind, name, setup) {
        panic!("{trouble}");
    }
    false
}

/// Whether a test that has a long and a short form is to take the long one.
#[must_use]
pub fn long() -> bool {
    std::env::var_os(LONG).is_some()
}

fn outside(kind: Kind, name: &str, setup: &Setup<'_>) -> Result<(), String> {
    let program = own_path()?;
    let mut sandbox = Command::new(xtask()?);
    sandbox.args(["sandbox", "--quiet", "--bind"]).arg(format!("{}:{PROGRAM}", program.display()));
    let config = std::env::temp_dir().join(format!("portcullis-test-{}-{name}.toml", std::process::id()));
    if let Some(text) = setup.config {
        std::fs::write(&config, text).map_err(|error| format!("{}: {error}", config.display()))?;
        sandbox.arg("--config").arg(&config);
    }
    if setup.no_agent {
        sandbox.arg("--no-agent");
    }
    if setup.bare {
        sandbox.arg("--bare");
    }
    match (kind, beside("abi-next")) {
        (Kind::Usual, _) => {}
        (Kind::Next | Kind::Systemd, Ok(next)) => {
            sandbox.arg("--bind").arg(format!("{}:{NEXT}", next.display()));
        }
        (Kind::Next, Err(missing)) => return Err(missing),
        // Few of these upgrade; one that does fails for want of it.
        (Kind::Systemd, Err(_)) => {}
    }
    if kind == Kind::Systemd {
        sandbox.arg("--systemd");
    }
    if let Some(object) = std::env::var_os(GATE_OBJECT) {
        sandbox.arg("--gate-object").arg(object);
    }
    // The sandbox starts with an environment of its own.
    sandbox.args(["--", "/usr/bin/env", &format!("{INSIDE}=1")]);
    if long() {
        sandbox.arg(format!("{LONG}=1"));
    }
    sandbox.arg(PROGRAM);
    sandbox.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    let output = sandbox.output().map_err(|error| format!("xtask sandbox: {error}"));
    let _ = std::fs::remove_file(&config);
    let output = output?;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{text}");
    if !output.status.success() {
        return Err(format!("{name} failed inside the sandbox ({}); its output is above", output.status));
    }
    // A name that matches no test would pass without having run.
    if text.contains("1 passed") { Ok(()) } else { Err(format!("{name} did not run inside the sandbox")) }
}

/// xtask, built beside this program.
///
/// # Errors
/// When it was not built: the message says how to.
pub fn xtask() -> Result<PathBuf, String> {
    beside("xtask")
}

/// What was built beside this program, or in a folder above.
fn beside(name: &str) -> Result<PathBuf, String> {
    let program = own_path()?;
    let mut folders = program.ancestors().skip(1);
    let found = folders.find_map(|folder| Some(folder.join(name)).filter(|path| path.exists()));
    found.ok_or_else(|| format!("no {name} beside the tests: run them by `cargo xtask test`"))
}

fn own_path() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|error| format!("own path: {error}"))
}
