//! Pairs: an account as one source sees it, in classes with `scope = "pair"`. A pair has a row of its own, under a key
//! made of both.
//!
//! Invariants: no two pairs share a key but by a collision of a keyed hash of 62 bits, which nobody can look for without
//! the key; pairs of names no user has keep [`UNKNOWN`], and with it the table of such names.

use crate::abi::{Detail, UNKNOWN, source};
use crate::ledger::Actor;

/// Bit of a row's key that marks a pair.
pub const PAIR: u64 = 1 << 62;

impl Actor {
    /// Who makes a call: an IPv6 address by its upper 64 bits.
    #[inline(always)]
    pub fn of(detail: &Detail) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = detail.address;
        let id = match detail.source {
            source::LOCAL => u64::from(detail.uid),
            source::IPV4 => u64::from(u32::from_be_bytes([a, b, c, d])),
            source::IPV6 => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            _ => 0,
        };
        Self { kind: detail.source, id }
    }

    /// A call that this actor could have made.
    #[must_use]
    pub fn detail(self) -> Detail {
        let mut detail = Detail { source: self.kind, ..Detail::EMPTY };
        let bytes = match self.kind {
            source::LOCAL => {
                detail.uid = self.id as u32;
                [0; 8]
            }
            source::IPV4 => (self.id << 32).to_be_bytes(),
            source::IPV6 => self.id.to_be_bytes(),
            _ => [0; 8],
        };
        for (to, from) in detail.address.iter_mut().zip(bytes) {
            *to = from;
        }
        detail
    }
}

/// Key of the row of `account` and `actor`. SipHash-2-4 over the three numbers, each a word.
#[inline(always)]
pub fn key(hash_key: [u64; 2], account: u64, actor: Actor) -> u64 {
    let [k0, k1] = hash_key;
    let mut state = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    // The last word holds the length in its upper byte.
    for word in [account, u64::from(actor.kind), actor.id, 24 << 56] {
        state = absorb(state, word);
    }
    let [a, b, c, d] = round(round(round(round(mark(state)))));
    ((a ^ b ^ c ^ d) & (PAIR - 1)) | PAIR | (account & UNKNOWN)
}

#[inline(always)]
fn absorb(state: [u64; 4], word: u64) -> [u64; 4] {
    let [a, b, c, d] = state;
    let [a, b, c, d] = round(round([a, b, c, d ^ word]));
    [a ^ word, b, c, d]
}

#[inline(always)]
fn mark(state: [u64; 4]) -> [u64; 4] {
    let [a, b, c, d] = state;
    [a, b, c ^ 0xff, d]
}

#[inline(always)]
fn round(state: [u64; 4]) -> [u64; 4] {
    let [mut a, mut b, mut c, mut d] = state;
    a = a.wrapping_add(b);
    c = c.wrapping_add(d);
    b = b.rotate_left(13) ^ a;
    d = d.rotate_left(16) ^ c;
    a = a.rotate_left(32);
    c = c.wrapping_add(b);
    a = a.wrapping_add(d);
    b = b.rotate_left(17) ^ c;
    d = d.rotate_left(21) ^ a;
    [a, b, c.rotate_left(32), d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_siphash_2_4() {
        // Key and message of the reference implementation's test vectors, the one of 24 bytes.
        let word = |n: u8| u64::from_le_bytes([n, n + 1, n + 2, n + 3, n + 4, n + 5, n + 6, n + 7]);
        let mut state = [
            word(0) ^ 0x736f_6d65_7073_6575,
            word(8) ^ 0x646f_7261_6e64_6f6d,
            word(0) ^ 0x6c79_6765_6e65_7261,
            word(8) ^ 0x7465_6462_7974_6573,
        ];
        for part in [word(0), word(8), word(16), 24 << 56] {
            state = absorb(state, part);
        }
        let [a, b, c, d] = round(round(round(round(mark(state)))));
        assert_eq!(a ^ b ^ c ^ d, 0xb8ad_50c6_f649_af94);
    }

    #[test]
    fn a_pair_is_its_account_and_its_source() {
        let actor = |kind, id| Actor { kind, id };
        let one = key([1, 2], 2002, actor(source::LOCAL, 2001));
        assert_eq!(one, key([1, 2], 2002, actor(source::LOCAL, 2001)));
        assert_ne!(one, key([1, 3], 2002, actor(source::LOCAL, 2001)));
        assert_ne!(one, key([1, 2], 2003, actor(source::LOCAL, 2001)));
        assert_ne!(one, key([1, 2], 2002, actor(source::IPV4, 2001)));
        assert_ne!(one, key([1, 2], 2002, actor(source::LOCAL, 2002)));
        assert_eq!(one & (PAIR | UNKNOWN), PAIR);
        assert_eq!(key([1, 2], UNKNOWN | 7, actor(source::NONE, 0)) & (PAIR | UNKNOWN), PAIR | UNKNOWN);
    }

    #[test]
    fn actors_survive_a_detail() {
        for actor in [
            Actor { kind: source::NONE, id: 0 },
            Actor { kind: source::LOCAL, id: 2001 },
            Actor { kind: source::IPV4, id: 0xc000_0207 },
            Actor { kind: source::IPV6, id: 0x2001_0db8_0001_0002 },
        ] {
            assert_eq!(Actor::of(&actor.detail()), actor);
        }
    }
}
