//! Who is at the other end of the socket, by SO_PEERCRED.
//!
//! Invariants: the kernel's word alone counts; a peer it says nothing about may do nothing.

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;

use crate::seats::Api;

/// The peer's uid, if the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub Option<u32>);

impl Peer {
    /// Root may do everything.
    #[must_use]
    pub fn is_root(self) -> bool {
        self.0 == Some(0)
    }

    /// Everybody may see his own account.
    #[must_use]
    pub fn may_see(self, uid: u32) -> bool {
        self.is_root() || self.0 == Some(uid)
    }
}

impl Connected<IncomingStream<'_, Api>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Api>) -> Self {
        Self(stream.io().stream().peer_cred().ok().map(|credentials| credentials.uid()))
    }
}

#[cfg(test)]
mod tests {
    use super::Peer;

    #[test]
    fn others_see_themselves_only() {
        assert!(Peer(Some(2001)).may_see(2001));
        assert!(!Peer(Some(2001)).may_see(2002));
        assert!(!Peer(Some(2001)).may_see(0));
        assert!(!Peer(Some(2001)).is_root());
        assert!(Peer(Some(0)).may_see(2002));
        assert!(!Peer(None).may_see(0));
    }
}
