//! Runs a program of the system, or of the administrator.
//!
//! Invariants: an argument vector, never a shell; no environment but a fixed locale and path; what it is to read is
//! handed over and no more; a run that takes too long is killed, with what it started, and waited for.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::text::escape;

/// How much of what it says is kept.
const SAID: usize = 200;
/// How much of it is read at all.
const MESSAGES: u64 = 65_536;
/// How long its last words are waited for after its end.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Whether it ended with status 0.
    pub success: bool,
    /// Exit status or signal.
    pub status: String,
    /// What it said on standard error, escaped and cut.
    pub said: String,
}

/// Why a run did not end by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It cannot be run.
    #[error("cannot run {program}: {source}; see that it is installed and may be executed", program = program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It took too long.
    #[error("{program} took longer than {limit:?} and was killed", program = program.display())]
    Timeout {
        /// The program.
        program: PathBuf,
        /// The limit.
        limit: Duration,
    },
}

/// Runs `program` with `arguments`, writes `input` to it, and waits for its end, at most for `limit`.
///
/// # Errors
/// It cannot be run, or it took too long.
pub async fn run<A: AsRef<std::ffi::OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = A>,
    input: Vec<u8>,
    limit: Duration,
) -> Result<Ended, RunError> {
    let failed = |source| RunError::Run { program: program.to_owned(), source };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("LC_ALL", "C").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.current_dir("/").kill_on_drop(true).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let talk = async move {
        let write = async {
            if let Some(mut stdin) = stdin {
                // A program that does not read is none of our business.
                let _ = stdin.write_all(&input).await;
            }
        };
        let read = async {
            let mut said = Vec::new();
            if let Some(stderr) = stderr {
                let _ = stderr.take(MESSAGES).read_to_end(&mut said).await;
            }
            said
        };
        tokio::join!(write, read).1
    };
    let talk = tokio::spawn(talk);
    let Ok(ran) = timeout(limit, child.wait()).await else {
        talk.abort();
        end_group(&child);
        child.kill().await.map_err(failed)?;
        return Err(RunError::Timeout { program: program.to_owned(), limit });
    };
    let status = ran.map_err(failed)?;
    // What it left running may hold its standard error open: its own end counts.
    let abort = talk.abort_handle();
    let said = timeout(LAST_WORDS, talk).await.ok().and_then(Result::ok).unwrap_or_default();
    abort.abort();
    let said = said.trim_ascii();
    let said = escape(said.get(..SAID).unwrap_or(said));
    Ok(Ended { success: status.success(), status: status.to_string(), said })
}

/// Kills a program that runs, and what it started, as far as that stayed in its process group.
fn end_group(child: &Child) {
    // None where it has ended and was waited for: its number may be another's by now.
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    if let Some(group) = group.filter(|_| !cfg!(feature = "mutation-kill-leader-alone")) {
        // It may have ended: then nothing of it is left that could be killed so.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a process is there and not dead.
    fn alive(pid: &str) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap_or_default();
        status.lines().any(|line| line.starts_with("State:") && !line.contains(['Z', 'X']))
    }

    #[tokio::test]
    async fn a_run_that_takes_too_long_ends_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("child");
        let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
        let limit = Duration::from_secs(1);
        let ran = run(Path::new("/bin/sh"), ["-c", &script], Vec::new(), limit).await;
        assert!(matches!(ran, Err(RunError::Timeout { .. })), "{ran:?}");
        let child = std::fs::read_to_string(&file).unwrap();
        // SIGKILL is sent; the kernel may take a moment.
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while alive(&child) {
            assert!(std::time::Instant::now() < end, "its child {child} is left");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let ran = run(Path::new("/usr/sbin/absent"), ["x"], Vec::new(), Duration::from_secs(1)).await;
        let text = ran.unwrap_err().to_string();
        assert!(text.contains("/usr/sbin/absent") && text.contains("installed"), "{text}");
    }
}
