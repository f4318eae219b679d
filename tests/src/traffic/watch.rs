//! What receiving costs: the kernel thread's own processor time (schedstat) over the packets that the interface received
//! meanwhile; and how many of them reached UDP, which none should that was dropped.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::port::Port;
use crate::system::{read, wait_for};
use crate::{Error, Result};

/// One stretch of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    /// How long, in seconds.
    pub seconds: f64,
    /// Nanoseconds that the thread ran.
    pub busy: u64,
    /// Packets that the interface received.
    pub received: u64,
    /// Of them, those that UDP saw.
    pub through: u64,
}

impl Stretch {
    /// Nanoseconds of the thread for a packet.
    #[must_use]
    pub fn cost(&self) -> f64 {
        self.busy as f64 / self.received.max(1) as f64
    }

    /// Packets a second, in millions.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.received as f64 / self.seconds / 1e6
    }

    /// The part that got through.
    #[must_use]
    pub fn leak(&self) -> f64 {
        self.through as f64 / self.received.max(1) as f64
    }
}

/// Waits until the port's thread runs on `processor` alone; `cargo xtask bench` puts it there, from outside.
///
/// # Errors
/// It was not put there.
pub fn thread_on(port: &Port, processor: usize) -> Result<PathBuf> {
    let thread = port.thread()?;
    let wanted = format!("Cpus_allowed_list:\t{processor}");
    wait_for(&format!("{} on processor {processor} alone", port.name), 10, || {
        Ok(read(&thread.join("status"))?.lines().any(|line| line == wanted))
    })?;
    Ok(thread)
}

/// Looks for as long as `time`.
///
/// # Errors
/// /proc cannot be read.
pub fn watch(port: &Port, thread: &Path, time: Duration) -> Result<Stretch> {
    let (begun, before) = (Instant::now(), look(port, thread)?);
    std::thread::sleep(time);
    let (seconds, after) = (begun.elapsed().as_secs_f64(), look(port, thread)?);
    let [busy, received, through] = [0, 1, 2].map(|place| {
        let number = |of: &[u64; 3]| of.get(place).copied().unwrap_or(0);
        number(&after).saturating_sub(number(&before))
    });
    Ok(Stretch { seconds, busy, received, through })
}

/// Time of the thread, packets received, packets that UDP saw.
fn look(port: &Port, thread: &Path) -> Result<[u64; 3]> {
    let busy = read(&thread.join("schedstat"))?;
    let busy = busy.split_whitespace().next().and_then(|word| word.parse().ok());
    let busy = busy.ok_or_else(|| odd("schedstat"))?;
    port.inside(|| {
        let devices = read(Path::new("/proc/thread-self/net/dev"))?;
        let line = devices.lines().find_map(|line| line.trim().strip_prefix(&format!("{}:", port.name)));
        let received = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        let received = received.ok_or_else(|| odd("net/dev"))?;
        Ok([busy, received, udp()?])
    })
}

fn odd(file: &str) -> Error {
    Error::Answer { program: format!("/proc: {file}"), output: "is not as expected".into() }
}

/// Packets that UDP saw, over IPv4 and IPv6: delivered, without a port, wrong.
fn udp() -> Result<u64> {
    let four = read(Path::new("/proc/thread-self/net/snmp"))?;
    let mut lines = four.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let names = lines.next().unwrap_or_default().split_whitespace();
    let values = lines.next().unwrap_or_default().split_whitespace();
    let four = names.zip(values).map(|(name, value)| (name.to_owned(), value.to_owned()));
    let six = read(Path::new("/proc/thread-self/net/snmp6"))?;
    let six = six.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.strip_prefix("Udp6")?.to_owned(), words.next()?.to_owned()))
    });
    let wanted = |name: &str| ["InDatagrams", "NoPorts", "InErrors"].contains(&name);
    // What fails its checksum is among the errors.
    Ok(four
        .chain(six)
        .filter(|(name, _)| wanted(name))
        .filter_map(|(_, value)| value.parse::<u64>().ok())
        .sum())
}
