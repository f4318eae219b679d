//! Innocents: a few clients that ask one after the other, each time by a connection of its own, as somebody who logs on.

use std::io::{self, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use super::scene::{Place, SERVICE, SSHD, victim};
use super::sockets::{begin, wait};
use crate::traffic::generator::on;
use crate::traffic::port::{FLOODER, in_network};
use crate::{Error, Result};

/// A request that took so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// What they ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The service's answer.
    Service,
    /// The banner of sshd.
    Banner,
}

impl Request {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "connection, 25 µs of work, answer",
            Self::Banner => "connection, banner of sshd",
        }
    }

    /// How many clients.
    const fn clients(self) -> usize {
        match self {
            Self::Service => 8,
            Self::Banner => 2,
        }
    }
}

/// What they got.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// How long they asked, in seconds.
    pub seconds: f64,
    /// Microseconds of each answer.
    pub times: Vec<u32>,
    /// Requests without one.
    pub failed: u64,
}

/// Asks for so long.
///
/// # Errors
/// A client cannot run.
pub fn ask(place: &Place, request: Request, processor: usize, time: Duration) -> Result<Answers> {
    let begun = Instant::now();
    let (source, interface) = (place.innocent(), place.sender());
    let clients = std::thread::scope(|scope| {
        let client = || {
            in_network(Some(FLOODER), || {
                on(processor)?;
                client(source, &interface, request, begun + time)
            })
        };
        let running: Vec<_> = (0..request.clients()).map(|_| scope.spawn(client)).collect();
        running
            .into_iter()
            .map(|client| {
                client.join().unwrap_or_else(|_| {
                    Err(Error::Answer { program: "a client".into(), output: "panicked".into() })
                })
            })
            .collect::<Result<Vec<Answers>>>()
    })?;
    let mut all = Answers { seconds: begun.elapsed().as_secs_f64(), ..Answers::default() };
    for client in clients {
        all.times.extend(client.times);
        all.failed += client.failed;
    }
    Ok(all)
}

fn client(source: Ipv4Addr, interface: &str, request: Request, end: Instant) -> Result<Answers> {
    let mut answers = Answers::default();
    while Instant::now() < end {
        let begun = Instant::now();
        match once(source, interface, request, begun + PATIENCE) {
            Ok(true) => answers.times.push(begun.elapsed().as_micros().try_into().unwrap_or(u32::MAX)),
            Ok(false) => answers.failed += 1,
            // What a flood does; anything else, a service that is not there too, is the benchmark's own trouble.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::TimedOut
                ) =>
            {
                answers.failed += 1;
            }
            Err(source) => return Err(Error::Program { program: "a client".into(), source }),
        }
    }
    Ok(answers)
}

/// One request; whether it was answered.
fn once(source: Ipv4Addr, interface: &str, request: Request, end: Instant) -> io::Result<bool> {
    let port = if request == Request::Banner { SSHD } else { SERVICE };
    let mut stream = begin(source, interface, (victim(), port))?;
    if request == Request::Service {
        if !wait(&stream, PollFlags::POLLOUT, end)? {
            return Ok(false);
        }
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    }
    if !wait(&stream, PollFlags::POLLIN, end)? {
        return Ok(false);
    }
    let mut answer = [0; 2_048];
    let count = stream.read(&mut answer)?;
    // What sshd says when it has no room is no banner.
    Ok(count > 0 && (request == Request::Service || answer.starts_with(b"SSH-2.0-")))
}
