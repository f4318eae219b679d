//! The verdict: the source itself, then the networks around it, longest first; before a drop the allow-list.
//!
//! Invariants: an allow-listed source is never dropped; any other is dropped exactly when a lease that covers it has time
//! left and is for the packet's port: an expired lease, or one for another port, hides none behind it. The allow-list costs
//! those alone whom a lease is for.

use core::ops::Deref;

use super::fast::Look;
use super::packet::{PORT_UNKNOWN, Packet, Source};
use super::record::Lease;

/// Different lengths of networks of one family that can have leases: as many can lie around one source, and each is
/// looked at. All there are in IPv4; the agent refuses one more in IPv6.
pub const MAX_LENGTHS: u32 = 32;

/// Where leases are looked up: kernel maps, or a test's model.
pub trait Table {
    /// A lease that was found.
    type Found: Deref<Target = Lease>;
    /// Whether the source is on the allow-list.
    fn allowed(&self, source: Source) -> bool;
    /// Whether the source itself has a lease, as far as the fast table says.
    fn look(&self, _source: Source) -> Look {
        Look::Elsewhere
    }
    /// The lease of the source itself: an IPv4 address, an IPv6 /64. Not looked for where [`Self::look`] says no.
    fn host(&self, source: Source) -> Option<Self::Found>;
    /// Whether there may be leases of networks at all.
    fn any_nets(&self) -> bool;
    /// The lease of the longest network around the source that has at most `longest` bits.
    fn net(&self, source: Source, longest: u32) -> Option<Self::Found>;

    /// As [`super::Bytes::launder`].
    fn launder(&self, number: u64) -> u64 {
        number
    }
}

/// Tells the time where somebody asks: reading the kernel's clock costs as much as the rest of a verdict.
pub trait Clock {
    /// CLOCK_BOOTTIME nanoseconds.
    fn now(&self) -> u64;
}

impl Clock for u64 {
    #[inline(always)]
    fn now(&self) -> u64 {
        *self
    }
}

/// What to do with a packet.
#[derive(Clone, Copy, Debug)]
pub enum Verdict<F> {
    /// Let it through: no lease is for it.
    Pass,
    /// Let it through: a lease is for it, and its source is on the allow-list.
    Allow,
    /// Drop it, by this lease.
    Drop(F),
    /// Drop it: its source is in the fast table.
    DropSource,
}

/// The verdict about a packet, now.
#[inline(always)]
pub fn judge<T: Table>(table: &T, packet: Packet, clock: impl Clock) -> Verdict<T::Found> {
    match lease_for(table, packet, clock) {
        Verdict::Pass => Verdict::Pass,
        _ if is_spared(table, packet.source) => Verdict::Allow,
        drop => drop,
    }
}

/// Whether the allow-list keeps a source from being dropped.
#[inline(always)]
pub fn is_spared(table: &impl Table, source: Source) -> bool {
    !cfg!(feature = "mutation-drop-allowed") && table.allowed(source)
}

/// The verdict without the allow-list.
#[inline(always)]
fn lease_for<T: Table>(table: &T, packet: Packet, clock: impl Clock) -> Verdict<T::Found> {
    let look = table.look(packet.source);
    if look == Look::Yes {
        return Verdict::DropSource;
    }
    if look == Look::No && !table.any_nets() {
        return Verdict::Pass;
    }
    let now = clock.now();
    if look == Look::Elsewhere
        && let Some(lease) = table.host(packet.source)
        && lease.is_for(packet.port, now)
    {
        return Verdict::Drop(lease);
    }
    if !table.any_nets() {
        return Verdict::Pass;
    }
    let mut longest = if packet.source.family == 4 { 32 } else { 128 };
    let mut tries = 0;
    // Each turn looks at a shorter one.
    while tries < MAX_LENGTHS {
        let Some(lease) = table.net(packet.source, longest) else { return Verdict::Pass };
        if lease.is_for(packet.port, now) {
            return Verdict::Drop(lease);
        }
        let length = u32::from(lease.length);
        if length == 0 || length > longest || cfg!(feature = "mutation-longest-only") {
            return Verdict::Pass;
        }
        longest = table.launder(u64::from(length - 1)) as u32;
        tries += 1;
    }
    Verdict::Pass
}

impl Lease {
    /// Whether it has time left at `now` and is for `port`.
    #[inline(always)]
    pub fn is_for(&self, port: u32, now: u64) -> bool {
        let live = cfg!(feature = "mutation-no-lease-end") || self.until > now;
        live && self.names(port)
    }

    /// Whether it is for packets to `port`. Arithmetic, not branches: the verifier walks this once for each lease that
    /// may be looked at.
    #[inline(always)]
    fn names(&self, port: u32) -> bool {
        let [a, b, c, d] = self.ports.map(u64::from);
        let port = u64::from(port);
        let all = is_zero(a | b | c | d);
        let named = is_zero(a ^ port) | is_zero(b ^ port) | is_zero(c ^ port) | is_zero(d ^ port);
        // A port of zero is in no lease: the slots that are not used hold it.
        let named = named & (is_zero(port) ^ 1);
        all | named | (port / u64::from(PORT_UNKNOWN)) != 0
    }
}

/// 1 for zero, 0 for what is less than 2^63.
#[inline(always)]
const fn is_zero(number: u64) -> u64 {
    number.wrapping_sub(1) >> 63
}
