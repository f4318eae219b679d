//! The kinds of floods: packets, by the benchmark's kernel program, and connections, by sockets.

use std::io::{ErrorKind, Read as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::innocents::Request;
use super::scene::{ATTACKERS, Place, SERVICE, SSHD, victim};
use super::sockets::begin;
use crate::traffic::generator::on;
use crate::traffic::port::{FLOODER, in_network};
use crate::traffic::template;
use crate::{Error, Result};

/// Known sources of packet floods: the first places of the lists.
pub const KNOWN: u32 = 10_000;
/// First place and number of forged sources, which are on no list.
const FORGED: (u32, u32) = (1 << 29, 1 << 24);
/// Connections of a connection flood that are open at once.
const CROWD: usize = 500;
/// Each of them ends after so long, answered or not: so the rate stays, 10,000 a second.
const GIVEN_UP: Duration = Duration::from_millis(50);
/// Connections that sit idle at sshd.
const IDLE: usize = 200;
/// A client that sits idle tries so long to get in.
const STUBBORN: Duration = Duration::from_secs(1);
/// How often all connections are looked at.
const BEAT: Duration = Duration::from_millis(2);

/// A kind of flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SYNs from sources that are known.
    SynKnown,
    /// SYNs, each from a source of its own.
    SynForged,
    /// ICMP echo requests.
    Icmp,
    /// UDP of 1,400 bytes.
    Volume,
    /// Connections, made and given up.
    Connections,
    /// Idle connections to sshd.
    Slow,
}

impl Kind {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 6] =
        [Self::SynKnown, Self::SynForged, Self::Icmp, Self::Volume, Self::Connections, Self::Slow];

    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynKnown => "SYN, 10,000 known sources",
            Self::SynForged => "SYN, forged sources",
            Self::Icmp => "ICMP echo, 10,000 known sources",
            Self::Volume => "UDP of 1,400 bytes, 10,000 known sources",
            Self::Connections => "10,000 connections a second, 200 known sources",
            Self::Slow => "200 idle connections to sshd, known sources",
        }
    }

    /// Its frames; none: it is made of connections.
    #[must_use]
    pub const fn packets(self) -> Option<template::Kind> {
        match self {
            Self::SynKnown | Self::SynForged => Some(template::Kind::Syn(SERVICE)),
            Self::Icmp => Some(template::Kind::Ping),
            Self::Volume => Some(template::Kind::Volume),
            Self::Connections | Self::Slow => None,
        }
    }

    /// First place and number of its sources.
    #[must_use]
    pub const fn sources(self) -> (u32, u32) {
        match self {
            Self::SynForged => FORGED,
            _ => (0, KNOWN),
        }
    }

    /// Whether its sources are on the lists.
    #[must_use]
    pub const fn is_known(self) -> bool {
        !matches!(self, Self::SynForged)
    }

    /// What innocents ask for meanwhile.
    #[must_use]
    pub const fn request(self) -> Request {
        match self {
            Self::Slow => Request::Banner,
            _ => Request::Service,
        }
    }
}

/// A flood of connections that runs. It ends when this is dropped.
#[derive(Debug)]
pub struct Crowd {
    stop: Arc<AtomicBool>,
    begun: Arc<AtomicU64>,
    handle: Option<JoinHandle<Result<()>>>,
}

impl Crowd {
    /// Begins, on one processor.
    #[must_use]
    pub fn start(place: &Place, kind: Kind, processor: usize) -> Self {
        let (stop, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&begun));
        let sources: Vec<_> = (0..ATTACKERS).map(|which| place.attacker(which)).collect();
        let interface = place.sender();
        let handle = std::thread::spawn(move || {
            on(processor)?;
            in_network(Some(FLOODER), || {
                let port = if kind == Kind::Slow { SSHD } else { SERVICE };
                let open = |which: usize| {
                    let source = sources.get(which % sources.len());
                    let source = source.copied().ok_or(std::io::ErrorKind::NotFound)?;
                    count.fetch_add(1, Ordering::Relaxed);
                    begin(source, &interface, (victim(), port))
                };
                let done = if kind == Kind::Slow { sit(open, &stopped) } else { crowd(open, &stopped) };
                done.map_err(|source| Error::Program { program: "the flood".into(), source })
            })
        });
        Self { stop, begun, handle: Some(handle) }
    }

    /// Connections that were begun until now.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Ends it.
    ///
    /// # Errors
    /// What the kernel said to it.
    pub fn end(mut self) -> Result<()> {
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Release);
        let Some(handle) = self.handle.take() else { return Ok(()) };
        handle.join().unwrap_or_else(|_| {
            Err(Error::Answer { program: "the flood".into(), output: "its thread panicked".into() })
        })
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // Whoever wants to know calls `end`.
        let _ = self.join();
    }
}

/// Keeps so many connections going until `stop`, each for [`GIVEN_UP`], whether it is answered or not.
fn crowd(open: impl Fn(usize) -> std::io::Result<TcpStream>, stop: &AtomicBool) -> std::io::Result<()> {
    let one = |which| Ok::<_, std::io::Error>((open(which)?, Instant::now()));
    let mut all = Vec::new();
    while !stop.load(Ordering::Acquire) {
        // Not all at the same moment.
        if all.len() < CROWD {
            let some = all.len()..(all.len() + CROWD / 25).min(CROWD);
            all.extend(some.map(one).collect::<std::io::Result<Vec<_>>>()?);
        }
        for (which, place) in all.iter_mut().enumerate() {
            if place.1.elapsed() > GIVEN_UP {
                *place = one(which)?;
            }
        }
        std::thread::sleep(BEAT);
    }
    Ok(())
}

/// One that sits idle.
struct Idle {
    stream: TcpStream,
    since: Instant,
    is_in: bool,
}

/// Keeps so many connections idle until `stop`; who is thrown out, or does not get in, comes again.
fn sit(open: impl Fn(usize) -> std::io::Result<TcpStream>, stop: &AtomicBool) -> std::io::Result<()> {
    let one =
        |which| Ok::<_, std::io::Error>(Idle { stream: open(which)?, since: Instant::now(), is_in: false });
    let mut all = (0..IDLE).map(one).collect::<std::io::Result<Vec<Idle>>>()?;
    let mut said = [0; 256];
    while !stop.load(Ordering::Acquire) {
        for (which, idle) in all.iter_mut().enumerate() {
            // Not there yet, and nothing said since, are the same to a read that does not wait.
            match idle.stream.read(&mut said) {
                Ok(1..) => idle.is_in = true,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    if !idle.is_in && idle.since.elapsed() > STUBBORN {
                        *idle = one(which)?;
                    }
                }
                Ok(0) | Err(_) => *idle = one(which)?,
            }
        }
        std::thread::sleep(BEAT);
    }
    Ok(())
}
