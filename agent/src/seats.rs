//! Connections of a socket by user: how many each may have, and all together.
//!
//! Invariants: root is never shut out; a place is given back when the connection ends, however it ends. Without a bound
//! any local user could take all descriptors of the agent, which then sees no file and starts no program.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::{Instant, Sleep};

/// Connections of one user who is not root to the API, and of all of them.
const API: (usize, usize) = (8, 128);
/// Connections to the metrics page: from where, TCP does not say.
const PAGE: usize = 32;
/// How long one of those may say nothing.
const SILENCE: Duration = Duration::from_secs(15);
/// Pause after a connection could not be taken: others close theirs meanwhile.
const PAUSE: Duration = Duration::from_secs(1);

/// Connections by user.
#[derive(Debug)]
pub struct Seats {
    taken: Mutex<HashMap<u32, usize>>,
    each: usize,
    all: usize,
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    uid: u32,
}

impl Seats {
    /// So many for each user who is not root, and for all together.
    #[must_use]
    pub fn new(each: usize, all: usize) -> Arc<Self> {
        Arc::new(Self { taken: Mutex::default(), each, all })
    }

    /// A place for a user; none where he, or all together, have too many.
    #[must_use]
    pub fn take(self: &Arc<Self>, uid: u32) -> Option<Seat> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let own = taken.get(&uid).copied().unwrap_or_default();
        // Root callers are many in a container, and are never shut out by others.
        if uid != 0 && (own >= self.each || all >= self.all) && !cfg!(feature = "mutation-any-seat") {
            return None;
        }
        taken.insert(uid, own + 1);
        Some(Seat { seats: Arc::clone(self), uid })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.uid);
            }
        }
    }
}

/// A connection with its place.
#[derive(Debug)]
pub struct Held<S> {
    stream: S,
    /// Ends it where nothing was said for so long.
    silence: Option<(Pin<Box<Sleep>>, Duration)>,
    _seat: Seat,
}

impl<S> Held<S> {
    /// The connection.
    pub const fn stream(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Held<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        let Some((end, most)) = &mut this.silence else { return read };
        if read.is_ready() {
            end.as_mut().reset(Instant::now() + *most);
            return read;
        }
        ready!(Future::poll(end.as_mut(), context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Held<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, bytes)
    }
}

/// The API's socket.
#[derive(Debug)]
pub struct Api(UnixListener, Arc<Seats>);

impl Api {
    /// Bounds the connections of that socket.
    #[must_use]
    pub fn new(listener: UnixListener) -> Self {
        Self(listener, Seats::new(API.0, API.1))
    }
}

impl Listener for Api {
    type Io = Held<UnixStream>;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = accepted(|| self.0.accept()).await;
            // Whoever the kernel says nothing of may do nothing.
            let Ok(peer) = stream.peer_cred() else { continue };
            if let Some(seat) = self.1.take(peer.uid()) {
                return (Held { stream, silence: None, _seat: seat }, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// The socket of the metrics page.
#[derive(Debug)]
pub struct Page(TcpListener, Arc<Seats>);

impl Page {
    /// Bounds the connections of that socket.
    #[must_use]
    pub fn new(listener: TcpListener) -> Self {
        Self(listener, Seats::new(PAGE, PAGE))
    }
}

impl Listener for Page {
    type Io = Held<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = accepted(|| self.0.accept()).await;
            if let Some(seat) = self.1.take(u32::MAX) {
                let end = Box::pin(tokio::time::sleep(SILENCE));
                return (Held { stream, silence: Some((end, SILENCE)), _seat: seat }, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// What `accept` takes next. Where it takes none, that is said, and tried again after a pause.
pub async fn accepted<T, F: Future<Output = io::Result<T>>>(accept: impl Fn() -> F) -> T {
    loop {
        match accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                log::error!("a connection could not be accepted: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_so_many_and_all_together_and_root_any() {
        let seats = Seats::new(2, 3);
        let one = [seats.take(1000), seats.take(1000)];
        assert!(one.iter().all(Option::is_some) && seats.take(1000).is_none());
        let other = seats.take(1001);
        assert!(other.is_some() && seats.take(1002).is_none(), "three of all");
        let roots: Vec<_> = (0..9).map(|_| seats.take(0)).collect();
        assert!(roots.iter().all(Option::is_some));
        drop((one, other));
        assert!(seats.take(1002).is_none(), "root's count too");
        drop(roots);
        assert!(seats.take(1002).is_some());
    }
}
