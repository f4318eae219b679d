//! The service that innocents ask: it reads a request, works on it for a while, answers and closes. One thread on the
//! victim's processor, and no limit of its own: what a client gets is what the host leaves.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::scene::SERVICE;
use crate::traffic::generator::on;
use crate::traffic::port::in_network;
use crate::traffic::refused;
use crate::{Error, Result};

/// Processor time of a request, besides the kernel's.
pub const WORK: Duration = Duration::from_micros(25);
/// Bytes of an answer.
const ANSWER: usize = 1_024;
/// The number of the listening socket among the events.
const LISTENER: u64 = u64::MAX;
/// How often it looks whether it shall end, in milliseconds.
const LOOK: u8 = 50;

/// It serves until it is dropped.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    handle: Option<JoinHandle<Result<()>>>,
}

impl Server {
    /// Starts it in a network, on one processor.
    ///
    /// # Errors
    /// It cannot listen there.
    pub fn start(network: Option<&'static str>, processor: usize) -> Result<Self> {
        let listener = in_network(network, || {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, SERVICE)).map_err(refused("the service"))
        })?;
        listener.set_nonblocking(true).map_err(refused("the service"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let handle = std::thread::spawn(move || {
            on(processor)?;
            serve(&listener, &stopped)
                .map_err(|source| Error::Program { program: "the service".into(), source })
        });
        Ok(Self { stop, handle: Some(handle) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(Ok(Err(error))) = self.handle.take().map(JoinHandle::join) {
            eprintln!("{error}");
        }
    }
}

fn serve(listener: &TcpListener, stop: &AtomicBool) -> std::io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut open: HashMap<u64, TcpStream> = HashMap::new();
    let mut events = [EpollEvent::empty(); 64];
    while !stop.load(Ordering::Acquire) {
        let count = match epoll.wait(&mut events, EpollTimeout::from(LOOK)) {
            Ok(count) => count,
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        for event in events.iter().take(count) {
            if event.data() != LISTENER {
                // Closed with it, and so out of the events.
                if let Some(stream) = open.remove(&event.data()) {
                    answer(stream);
                }
                continue;
            }
            // Without a descriptor left it goes on with those that it has.
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(true)?;
                let number = stream.as_raw_fd().unsigned_abs().into();
                epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, number))?;
                open.insert(number, stream);
            }
        }
    }
    Ok(())
}

fn answer(mut stream: TcpStream) {
    let mut request = [0; 256];
    if matches!(stream.read(&mut request), Ok(1..)) {
        let begun = Instant::now();
        while begun.elapsed() < WORK {
            std::hint::spin_loop();
        }
        // A client that is gone gets none.
        let _ = stream.write_all(&[b'.'; ANSWER]);
    }
}
