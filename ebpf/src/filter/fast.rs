//! The fast table in the kernel: looked up for each packet, and closely for some of those that are dropped.
//!
//! Invariants: user space and the sweep change the lines, by whole words; the programs here read them only; a row that was
//! found through the index counts for the packet only if it is the source's own.

use aya_ebpf::{bindings::BPF_F_MMAPABLE, btf_maps::Array, macros::btf_map};
use core::hint::black_box;
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use portcullis_common::filter::{
    Source,
    fast::{Family, Four, Head, Heads, Look, MAX_LINES, ROWS_4, ROWS_6, Six, WORDS, group, row},
};

const MAPPED: usize = BPF_F_MMAPABLE as usize;
const LINES: usize = MAX_LINES as usize;

/// Places in an element of an index.
const PLACES_4: usize = Four::LANES;
/// One more than lanes, so that it is a power of two.
const PLACES_6: usize = Six::LANES + 1;

/// A line.
pub type Line = [u64; WORDS];

#[btf_map]
pub static FAST: Array<Heads, 1, MAPPED> = Array::new();
#[btf_map]
pub static FAST_LINES_4: Array<Line, LINES, MAPPED> = Array::new();
#[btf_map]
pub static FAST_LINES_6: Array<Line, LINES, MAPPED> = Array::new();
#[btf_map]
pub static FAST_BITS_4: Array<u64, LINES, MAPPED> = Array::new();
#[btf_map]
pub static FAST_BITS_6: Array<u64, LINES, MAPPED> = Array::new();
#[btf_map]
pub static FAST_INDEX_4: Array<[u32; PLACES_4], LINES, MAPPED> = Array::new();
#[btf_map]
pub static FAST_INDEX_6: Array<[u32; PLACES_6], LINES, MAPPED> = Array::new();
#[btf_map]
pub static FAST_ROWS_4: Array<[u64; Four::ROW], { ROWS_4 as usize }, MAPPED> = Array::new();
#[btf_map]
pub static FAST_ROWS_6: Array<[u64; Six::ROW], { ROWS_6 as usize }, MAPPED> = Array::new();

/// One word of a line, read once. `at` is less than [`WORDS`].
#[inline(always)]
pub fn word(line: *const Line, at: usize) -> u64 {
    // SAFETY: all of `fast` asks for words of a line only.
    let place = unsafe { line.cast::<u64>().add(at) };
    // SAFETY: a word of an element of an ARRAY, which lives as long as the map; 8-aligned, so never seen half.
    unsafe { place.read_volatile() }
}

/// Whether the fast table drops an IPv4 address.
#[inline(always)]
pub fn look_4(head: &Head, address: u32) -> Look {
    let mixed = Four::mixed(u64::from(address), head.mix);
    let at = Four::line(mixed, head.mask);
    if head.bits != 0
        && let Some(bits) = FAST_BITS_4.get(at)
        && *bits & Four::bit(mixed) == 0
    {
        return Look::No;
    }
    let Some(line) = FAST_LINES_4.get_ptr(at) else { return Look::Elsewhere };
    Four::look(|at| word(line, at), Four::lane(mixed))
}

/// Whether the fast table drops an IPv6 network, by the first half of its address.
#[inline(always)]
fn look_6(head: &Head, high: u64) -> Look {
    let mixed = Six::mixed(high, head.mix);
    let at = Six::line(mixed, head.mask);
    if head.bits != 0
        && let Some(bits) = FAST_BITS_6.get(at)
        && *bits & Six::bit(mixed) == 0
    {
        return Look::No;
    }
    let Some(line) = FAST_LINES_6.get_ptr(at) else { return Look::Elsewhere };
    Six::look(|at| word(line, at), Six::lane(mixed))
}

/// Whether the fast table drops a source.
#[inline(always)]
pub fn look(source: Source) -> Look {
    let Some(heads) = FAST.get(0) else { return Look::Elsewhere };
    if source.family == 4 { look_4(&heads.four, source.low as u32) } else { look_6(&heads.six, source.high) }
}

/// Whether the allow-list may hold a source.
#[inline(always)]
pub fn may_be_spared(source: Source) -> bool {
    let Some(heads) = FAST.get_ptr(0) else { return true };
    let (word, bit) = if source.family == 4 {
        let address = source.low as u32;
        // SAFETY: an element of an ARRAY, which lives as long as the map.
        let words = unsafe { &raw const (*heads).spared_4 };
        // SAFETY: one of four words.
        (unsafe { words.cast::<u64>().add((address >> 30) as usize) }, u64::from(address >> 24 & 63))
    } else {
        // SAFETY: as above.
        (unsafe { &raw const (*heads).spared_6 }, group(source.high))
    };
    // SAFETY: as above; user space writes it meanwhile, by whole words.
    let word = unsafe { word.read_volatile() };
    word >> bit & 1 != 0
}

/// The place of a lane, found without a branch: the verifier would walk on from each. What is no lane's place where it is
/// in none.
#[inline(always)]
fn place_of<F: Family>(line: *const Line, lane: u64) -> usize {
    let mut found = 0_u64;
    let mut place = 0;
    while place < F::LANES {
        let (at, shift, ones) = F::place(place);
        let other = (word(line, at) >> shift & ones) ^ lane;
        found |= (other.wrapping_sub(1) & !other) >> 63 << place;
        place += 1;
    }
    // One bit at the most: so many are below it.
    found.wrapping_sub(1).count_ones() as usize
}

/// Rule and reason of a source that is in the fast table; counts packets for it. Zeros where its row has just gone.
#[inline(always)]
pub fn count(source: Source, packets: u64) -> (u32, u16) {
    let last = if source.family == 4 { count_4(source.low, packets) } else { count_6(source.high, packets) };
    (row::rule(last), row::reason(last))
}

#[inline(always)]
fn count_4(address: u64, packets: u64) -> u64 {
    let Some(heads) = FAST.get(0) else { return 0 };
    let mixed = Four::mixed(address, heads.four.mix);
    let at = Four::line(mixed, heads.four.mask);
    let Some(line) = FAST_LINES_4.get_ptr(at) else { return 0 };
    let place = black_box(place_of::<Four>(line, Four::lane(mixed)));
    let Some(index) = FAST_INDEX_4.get_ptr(at) else { return 0 };
    if place >= PLACES_4 {
        return 0;
    }
    // SAFETY: a place of the element.
    let number = unsafe { index.cast::<u32>().add(place) };
    // SAFETY: as above, 4-aligned.
    let number = unsafe { number.read_volatile() };
    let Some(found) = FAST_ROWS_4.get_ptr_mut(number) else { return 0 };
    counted(found.cast(), Four::ROW - 1, packets, |last| last as u32 == address as u32)
}

#[inline(always)]
fn count_6(high: u64, packets: u64) -> u64 {
    let Some(heads) = FAST.get(0) else { return 0 };
    let mixed = Six::mixed(high, heads.six.mix);
    let at = Six::line(mixed, heads.six.mask);
    let Some(line) = FAST_LINES_6.get_ptr(at) else { return 0 };
    let place = black_box(place_of::<Six>(line, Six::lane(mixed)));
    let Some(index) = FAST_INDEX_6.get_ptr(at) else { return 0 };
    if place >= PLACES_6 {
        return 0;
    }
    // SAFETY: a place of the element.
    let number = unsafe { index.cast::<u32>().add(place) };
    // SAFETY: as above, 4-aligned.
    let number = unsafe { number.read_volatile() };
    let Some(found) = FAST_ROWS_6.get_ptr_mut(number) else { return 0 };
    let found = found.cast::<u64>();
    // SAFETY: a word of the row.
    let key = unsafe { found.add(row::KEY) };
    // SAFETY: as above, 8-aligned.
    let key = unsafe { key.read_volatile() };
    counted(found, Six::ROW - 1, packets, |_| key == high)
}

/// Counts for a row if it is the source's; its last word then.
#[inline(always)]
fn counted(found: *mut u64, last: usize, packets: u64, own: impl Fn(u64) -> bool) -> u64 {
    // SAFETY: a word of the row.
    let last = unsafe { found.add(last) };
    // SAFETY: as above, 8-aligned.
    let last = unsafe { last.read_volatile() };
    if !own(last) {
        return 0;
    }
    // SAFETY: as above.
    let counter = unsafe { found.add(row::PACKETS) };
    // SAFETY: 8-aligned; everybody adds atomically.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, packets) };
    last
}
