//! Runs passwd(1).
//!
//! Invariants: an argument vector, never a shell; no environment but a fixed locale; standard input is empty; a run that
//! takes too long is killed; "try again" (the password file is locked by another program) is tried again a few times.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout_at};

use super::ShadowError;
use crate::text::escape;

/// passwd(1): "5: passwd file busy, try again".
const BUSY: i32 = 5;
/// Pauses between tries while the file is busy.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];
const PROGRAMS: [&str; 2] = ["/usr/bin/passwd", "/bin/passwd"];
/// How much of what it says is kept.
const SAID: usize = 200;
/// How much of it is read.
const MESSAGES: u64 = 65_536;

/// How a run ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Exit status or signal.
    pub(super) status: String,
    /// What it said, escaped and cut.
    pub(super) said: String,
}

/// Whether a name can be given to `passwd`: what useradd(8) allows and directories use, and nothing that looks like an
/// option, another field or another line.
pub(crate) fn can_be_named(name: &str) -> bool {
    let good = |letter: char| !letter.is_control() && !letter.is_whitespace() && !":/,".contains(letter);
    !name.is_empty() && name.len() <= 256 && !name.starts_with('-') && name.chars().all(good)
}

/// Runs `passwd OPTION -- NAME`, again while the file is busy, all within the time limit.
pub(super) async fn run(
    root: &Path,
    option: &str,
    name: &str,
    limit: Duration,
) -> Result<Ended, ShadowError> {
    let program = PROGRAMS.iter().map(PathBuf::from).find(|program| program.exists());
    let program = program.unwrap_or_else(|| PathBuf::from("/usr/bin/passwd"));
    let start = Instant::now();
    let end = start.checked_add(limit).unwrap_or(start + Duration::from_secs(86_400));
    let mut pauses = PAUSES.into_iter();
    loop {
        let mut command = Command::new(&program);
        command.env_clear().env("LC_ALL", "C").current_dir("/").kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.arg("-q");
        if root != Path::new("/") {
            command.arg("-R").arg(root);
        }
        command.arg(option).arg("--").arg(name);
        let failed = |source| ShadowError::Run { program: program.clone(), source };
        let mut child = command.spawn().map_err(failed)?;
        let mut said = Vec::new();
        let messages = child.stderr.take();
        let run = async {
            if let Some(messages) = messages {
                messages.take(MESSAGES).read_to_end(&mut said).await?;
            }
            child.wait().await
        };
        let Ok(ran) = timeout_at(end, run).await else {
            // Waits for its end, too: what is read back afterwards is final.
            child.kill().await.map_err(failed)?;
            return Err(ShadowError::Timeout(limit));
        };
        let status = ran.map_err(failed)?;
        if status.code() == Some(BUSY)
            && let Some(pause) = pauses.next()
            && Instant::now() + pause < end
        {
            sleep(pause).await;
            continue;
        }
        let said = said.trim_ascii();
        let said = escape(said.get(..SAID).unwrap_or(said));
        return Ok(Ended { status: status.to_string(), said });
    }
}

#[cfg(test)]
mod tests {
    use super::can_be_named;

    #[test]
    fn odd_names_are_refused() {
        for name in ["jon", "jon.doe", "jon@corp.example", "jürgen", "machine$", "_svc"] {
            assert!(can_be_named(name), "{name}");
        }
        for name in ["", "-l", "--help", "a:b", "a b", "a\nb", "../x", "a\0", "\u{7f}", &"x".repeat(257)] {
            assert!(!can_be_named(name), "{name:?}");
        }
    }
}
