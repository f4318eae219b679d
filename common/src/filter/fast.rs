//! The fast table: which sources are dropped for all ports, at the price of one cache line a packet.
//!
//! A line is eight words. A keyed bijection turns a source into a number; its low bits name the line, the rest of it (or
//! all of it) is what the line holds: so a match is exact. Lanes are compared many at once, without branches. The first
//! word's highest bit sends whoever finds no match on to the kernel's hash table: the line had no room for somebody, or a
//! source of it has a lease for some ports. In front of a table that is larger than a processor's cache lies one word of
//! bits for each line.
//!
//! Beside the lines: the number of the row behind each lane, and the rows, with what nobody needs for a verdict (end,
//! rule, packets). The kernel sweeps the rows: what has ended leaves its line.
//!
//! Invariants: no lane crosses a word, so that a reader sees all of a source or nothing; an empty lane matches nobody;
//! a table of more lines holds the same lanes: a lane says of every size which line is its own.

use super::Net;

/// Words of a line.
pub const WORDS: usize = 8;
/// Lines at the most.
pub const MAX_LINES: u32 = 1 << 16;
/// Lines at the least: what the line's number does not say of a source must fit into its lane.
pub const MIN_LINES: u32 = 1 << 12;
/// Lines above which the bits in front are looked at: half a megabyte of lines lies in a processor's own cache.
pub const BARE_LINES: u32 = 1 << 14;
/// Rows of IPv4 addresses.
pub const ROWS_4: u32 = 1 << 20;
/// Rows of IPv6 networks.
pub const ROWS_6: u32 = 1 << 18;
/// Turns of one beat of the sweep.
pub const TURNS: u32 = 128;

/// In the first word: sources of this line may be in the kernel's hash table.
pub const ELSEWHERE: u64 = 1 << 63;

/// Places in a row: when it ends, packets, the source. The last word's upper half is the row's mark.
pub mod row {
    /// CLOCK_BOOTTIME nanoseconds; 0: nobody's row.
    pub const UNTIL: usize = 0;
    /// Packets dropped.
    pub const PACKETS: usize = 1;
    /// The source.
    pub const KEY: usize = 2;
    /// `UNTIL`: somebody takes its lane away just now.
    pub const LEAVING: u64 = u64::MAX - 1;
    /// `UNTIL`: the same, and a sweep has seen it already: who began with it is gone.
    pub const LEFT: u64 = u64::MAX - 2;
    /// In the last word: the kernel has taken the lane away.
    pub const SWEPT: u64 = 1 << 63;
    /// Highest rule that a mark has room for.
    pub const MAX_RULE: u32 = (1 << 28) - 1;

    /// The upper half of the last word.
    #[must_use]
    #[inline(always)]
    pub const fn mark(rule: u32, reason: u16) -> u64 {
        ((rule & MAX_RULE) as u64) << 32 | ((reason & 7) as u64) << 60
    }

    /// The rule in a last word.
    #[must_use]
    #[inline(always)]
    pub const fn rule(last: u64) -> u32 {
        (last >> 32) as u32 & MAX_RULE
    }

    /// The reason in a last word.
    #[must_use]
    #[inline(always)]
    pub const fn reason(last: u64) -> u16 {
        (last >> 60) as u16 & 7
    }
}

/// One family's share of the value of `FAST`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Head {
    /// Keys of the bijection, odd; zero: nothing was made yet.
    pub mix: [u64; 2],
    /// Lines in use, less one.
    pub mask: u32,
    /// 1: the bits in front are to be looked at.
    pub bits: u32,
    /// Rows that were ever in use: the sweep goes no further.
    pub rows: u32,
    /// The next row to sweep.
    pub cursor: u32,
}

/// Value of `FAST`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Heads {
    /// IPv4.
    pub four: Head,
    /// IPv6.
    pub six: Head,
    /// Counted up by each sweep: the clock of what is not worth reading one.
    pub beat: u64,
    /// Counted up by each process that changes the table.
    pub changes: u64,
    /// Which first octets of IPv4 addresses the allow-list may hold: most who are dropped need no lookup there.
    pub spared_4: [u64; 4],
    /// The same for IPv6, by [`group`] of the first 16 bits.
    pub spared_6: u64,
    /// Always zero.
    pub reserved: u64,
}

/// Which bit of [`Heads::spared_6`] stands for an IPv6 address, by its first half.
#[must_use]
#[inline(always)]
pub const fn group(high: u64) -> u64 {
    let first = high >> 48;
    (first ^ first >> 6 ^ first >> 12) & 63
}

/// [`Heads::spared_4`] and [`Heads::spared_6`] of an allow-list.
#[must_use]
pub fn spared<'a>(nets: impl IntoIterator<Item = &'a Net>) -> ([u64; 4], u64) {
    let (mut four, mut six) = ([0; 4], 0);
    for net in nets {
        match *net {
            Net::V4(address, length) => {
                let first = address >> 24;
                for octet in first..=first | 0xff_u32.checked_shr(length.into()).unwrap_or(0) {
                    if let Some(word) = four.get_mut((octet >> 6) as usize) {
                        *word |= 1 << (octet & 63);
                    }
                }
            }
            Net::V6(address, 16..) => six |= 1 << group((address >> 64) as u64),
            Net::V6(..) => six = u64::MAX,
        }
    }
    (four, six)
}

const _: () = assert!(size_of::<Heads>() == 128);

/// What a line says of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It is in none of the lanes, nor in the hash table.
    No,
    /// It is in none of the lanes; the hash table knows.
    Elsewhere,
    /// It is in a lane.
    Yes,
}

/// How sources of one family lie in lines.
pub trait Family {
    /// Lanes of a line.
    const LANES: usize;
    /// Words of a row.
    const ROW: usize;
    /// Rows there are.
    const ROWS: u32;
    /// The bijection.
    fn mixed(key: u64, mix: [u64; 2]) -> u64;
    /// What a lane holds for it; 0: it can be in none.
    fn lane(mixed: u64) -> u64;
    /// The bijection's number of who is in that lane of that line.
    fn mixed_of(line: u32, lane: u64) -> u64;
    /// Its bit of the word in front of the line.
    fn bit(mixed: u64) -> u64;
    /// Word, lowest bit and ones of a lane; `place` is less than [`Self::LANES`].
    fn place(place: usize) -> (usize, u32, u64);
    /// Whether a lane of the line holds `lane`. `word` gives the line's words.
    fn look(word: impl Fn(usize) -> u64, lane: u64) -> Look;

    /// The line of a number, where there are `mask + 1`.
    #[inline(always)]
    fn line(mixed: u64, mask: u32) -> u32 {
        let mask = if cfg!(feature = "mutation-loose-line") { mask & !1 } else { mask };
        mixed as u32 & mask
    }
}

/// IPv4 addresses: 24 lanes of 21 bits, three a word.
#[derive(Clone, Copy, Debug)]
pub struct Four;

/// IPv6 /64: seven lanes of a word; the first word is for [`ELSEWHERE`] alone.
#[derive(Clone, Copy, Debug)]
pub struct Six;

const WIDTH: u32 = 21;
const LANE: u64 = (1 << WIDTH) - 1;
/// Of a lane: somebody is in it.
const TAKEN: u64 = 1 << (WIDTH - 1);
const EACH: u64 = 1 | 1 << WIDTH | 1 << (2 * WIDTH);
const LOW: u64 = (TAKEN - 1) * EACH;
const HIGH: u64 = TAKEN * EACH;
const IN_LINE: u32 = MIN_LINES.trailing_zeros();
const _: () = assert!(IN_LINE + WIDTH - 1 == 32);

impl Family for Four {
    const LANES: usize = 24;
    const ROW: usize = 3;
    const ROWS: u32 = ROWS_4;

    #[inline(always)]
    fn mixed(key: u64, mix: [u64; 2]) -> u64 {
        let [first, second] = mix;
        let mut number = (key as u32).wrapping_mul(first as u32);
        number ^= number >> 16;
        number = number.wrapping_mul(second as u32);
        number ^= number >> 15;
        u64::from(number)
    }

    #[inline(always)]
    fn lane(mixed: u64) -> u64 {
        mixed >> IN_LINE | TAKEN
    }

    #[inline(always)]
    fn mixed_of(line: u32, lane: u64) -> u64 {
        (lane & !TAKEN) << IN_LINE | u64::from(line & (MIN_LINES - 1))
    }

    #[inline(always)]
    fn bit(mixed: u64) -> u64 {
        1 << (mixed >> 26 & 63)
    }

    #[inline(always)]
    fn place(place: usize) -> (usize, u32, u64) {
        (place / 3, WIDTH * (place % 3) as u32, LANE)
    }

    #[inline(always)]
    fn look(word: impl Fn(usize) -> u64, lane: u64) -> Look {
        let wanted = lane * EACH;
        // The highest bit of each lane: something differs. No carry leaves a lane.
        let differs = |word: u64| {
            let other = word ^ wanted;
            ((other & LOW) + LOW) | other
        };
        let first = word(0);
        let mut all = differs(first);
        all &= differs(word(1));
        all &= differs(word(2));
        all &= differs(word(3));
        all &= differs(word(4));
        all &= differs(word(5));
        all &= differs(word(6));
        all &= differs(word(7));
        found(all & HIGH != HIGH, first)
    }
}

impl Family for Six {
    const LANES: usize = 7;
    const ROW: usize = 4;
    const ROWS: u32 = ROWS_6;

    #[inline(always)]
    fn mixed(key: u64, mix: [u64; 2]) -> u64 {
        let [first, second] = mix;
        let mut number = key.wrapping_mul(first);
        number ^= number >> 32;
        number = number.wrapping_mul(second);
        number ^ number >> 29
    }

    #[inline(always)]
    fn lane(mixed: u64) -> u64 {
        mixed
    }

    #[inline(always)]
    fn mixed_of(_line: u32, lane: u64) -> u64 {
        lane
    }

    #[inline(always)]
    fn bit(mixed: u64) -> u64 {
        1 << (mixed >> 58)
    }

    #[inline(always)]
    fn place(place: usize) -> (usize, u32, u64) {
        (place + 1, 0, u64::MAX)
    }

    #[inline(always)]
    fn look(word: impl Fn(usize) -> u64, lane: u64) -> Look {
        if lane == 0 {
            // As an empty lane: the one source that it is is always elsewhere.
            return Look::Elsewhere;
        }
        // The highest bit of all: it is the same.
        let same = |word: u64| {
            let other = word ^ lane;
            other.wrapping_sub(1) & !other
        };
        let mut any = same(word(1));
        any |= same(word(2));
        any |= same(word(3));
        any |= same(word(4));
        any |= same(word(5));
        any |= same(word(6));
        any |= same(word(7));
        found(any >> 63 != 0, word(0))
    }
}

#[inline(always)]
const fn found(here: bool, first: u64) -> Look {
    if here {
        Look::Yes
    } else if first & ELSEWHERE != 0 {
        Look::Elsewhere
    } else {
        Look::No
    }
}

/// The place of a lane in a line; [`Family::LANES`] where it is in none.
#[must_use]
#[inline(always)]
pub fn place_of<F: Family>(word: impl Fn(usize) -> u64, lane: u64) -> usize {
    let mut place = 0;
    while place < F::LANES {
        let (at, shift, ones) = F::place(place);
        if word(at) >> shift & ones == lane {
            return place;
        }
        place += 1;
    }
    place
}
