//! The gate's clock: boot time, for everything that is counted or waited for. What outlives a boot is wall time.
//!
//! Invariants: nothing compares a boot time of one boot with that of another; see [`boot_id`].

use nix::time::{ClockId, clock_gettime};
use portcullis_common::ledger::DAY;
use portcullis_policy::Boot;

/// A clock could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The kernel refused the clock.
    #[error(
        "cannot read {clock}: {source}; the kernel is older than 2.6.39 or a filter forbids clock_gettime"
    )]
    Clock {
        /// Its name.
        clock: &'static str,
        /// Why.
        source: nix::Error,
    },
    /// The name of this boot could not be read.
    #[error("cannot read {BOOT_ID}: {0}; is /proc mounted?")]
    BootId(std::io::Error),
}

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const SECOND: i64 = 1_000_000_000;

/// CLOCK_BOOTTIME: the gate's clock.
///
/// # Errors
/// The kernel refuses the clock.
pub fn boot() -> Result<Boot, ClockError> {
    let nanoseconds = read(ClockId::CLOCK_BOOTTIME, "CLOCK_BOOTTIME")?;
    Ok(Boot(u64::try_from(nanoseconds).unwrap_or(0)))
}

/// The kernel's name of this boot.
///
/// # Errors
/// The file cannot be read.
pub fn boot_id() -> Result<String, ClockError> {
    let text = std::fs::read_to_string(BOOT_ID).map_err(ClockError::BootId)?;
    Ok(text.trim().to_owned())
}

fn read(clock: ClockId, name: &'static str) -> Result<i64, ClockError> {
    let time = clock_gettime(clock).map_err(|source| ClockError::Clock { clock: name, source })?;
    Ok(time.tv_sec().saturating_mul(SECOND).saturating_add(time.tv_nsec()))
}

/// How long this thread has been on a processor.
#[must_use]
pub fn of_thread() -> std::time::Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(std::time::Duration::ZERO, Into::into)
}

/// When the local day begins: in boot time, less whole days.
///
/// # Errors
/// The kernel refuses the clock.
pub fn midnight() -> Result<u64, ClockError> {
    let (boot, now) = (boot()?.0, jiff::Zoned::now());
    let minutes = i64::from(now.hour()) * 60 + i64::from(now.minute());
    let since = (minutes * 60 + i64::from(now.second())) * SECOND + i64::from(now.subsec_nanosecond());
    let day = i64::try_from(DAY).unwrap_or(i64::MAX);
    let boot = i64::try_from(boot % DAY).unwrap_or(0);
    Ok(u64::try_from((boot - since).rem_euclid(day)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::{DAY, boot, boot_id, midnight};

    #[test]
    fn clocks_run() {
        let before = boot().unwrap();
        assert!(before.0 > 0 && boot().unwrap() >= before);
        assert_eq!(boot_id().unwrap().len(), 36);
        assert!(midnight().unwrap() < DAY);
    }
}
