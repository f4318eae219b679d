//! Watched programs that were started before anybody observed, or whose start an earlier agent was told of: a prompt of
//! su may wait for hours.
//!
//! Invariant: by their names alone, which their owners can change: what is found here only keeps an alarm from being raised.

use super::files::Watched;

/// Their pids.
#[must_use]
pub fn running(watched: &[Watched]) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let named = |pid: &u32| {
        // Processes end while they are listed.
        let name = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        let name = name.strip_suffix(b"\n").unwrap_or(&name);
        watched.iter().any(|one| one.comm().split(|byte| *byte == 0).next() == Some(name))
    };
    pids.filter(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_its_whole_name() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let of = |name: &str| Watched { path: format!("/bin/{name}").into(), file: None };
        // Its name is the test's own until it has executed.
        let found = || running(&[of("sleep")]).contains(&child.id());
        assert!((0..1000).any(|_| found() || {
            std::thread::yield_now();
            false
        }));
        assert!(!running(&[of("sleepy"), of("slee")]).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
