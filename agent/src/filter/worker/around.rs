//! What this host's own addresses and its gateways mean for leases that hold already.
//!
//! Invariant: a lease that an administrator gave stays, since he may have meant it; he is told.

use std::net::IpAddr;

use super::Worker;
use crate::filter::guard::{self, Surroundings};
use crate::filter::{Cause, Held};

/// As they were at the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Around {
    own: Vec<IpAddr>,
    gateways: Vec<IpAddr>,
}

impl Around {
    fn read() -> std::io::Result<Self> {
        Ok(Self { own: guard::addresses()?, gateways: guard::gateways() })
    }
}

impl Worker {
    /// Looks at addresses and gateways. None: they are as they were; else the leases that were let go because of it.
    pub(in crate::filter) fn look_around(&mut self) -> Option<Vec<Held>> {
        let around = match Around::read() {
            Ok(around) => around,
            Err(error) => {
                log::error!("this host's addresses cannot be read, drops stay as they are: {error}");
                return None;
            }
        };
        if around == self.around {
            return None;
        }
        self.around = around;
        Some(self.let_ours_go())
    }

    /// Lets go of leases by policy and reports that cut this host off.
    fn let_ours_go(&mut self) -> Vec<Held> {
        let Around { own, gateways } = &self.around;
        let surroundings =
            Surroundings { own: own.clone(), gateways: gateways.clone(), ..Surroundings::default() };
        let mut ours = Vec::new();
        for kept in self.book.all() {
            let Some(why) = surroundings.against(kept.lease.net, Cause::Policy, false) else { continue };
            if kept.lease.cause == Cause::Administrator {
                log::warn!("{} stays dropped, as an administrator wants it: {why}", kept.lease.net);
            } else {
                log::warn!("{} is dropped no more: {why}", kept.lease.net);
                ours.push(kept.lease.net);
            }
        }
        let taken = if ours.is_empty() { Vec::new() } else { self.take(&ours, Cause::Administrator) };
        let told = |error| log::error!("{error}");
        taken.into_iter().filter_map(|taken| taken.map_err(told).ok()).collect()
    }
}
