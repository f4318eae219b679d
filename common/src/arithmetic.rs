//! Comparisons without branches: the verifier walks what follows a branch once for each of its ways.

use core::hint::black_box;

/// All ones where `a` < `b`; both below 2^63. The compiler must not know that it is all or nothing: it would branch.
#[inline(always)]
pub fn less(a: u64, b: u64) -> u64 {
    black_box(((a.wrapping_sub(b) as i64) >> 63) as u64)
}

/// All ones where the two are equal.
#[inline(always)]
pub fn same(a: u64, b: u64) -> u64 {
    let differs = a ^ b;
    less((differs >> 1) | (differs & 1), 1)
}

/// `yes` where the mask is all ones, else `no`.
#[inline(always)]
pub fn pick(mask: u64, yes: u64, no: u64) -> u64 {
    no ^ ((yes ^ no) & mask)
}

/// `number`, brought between `least` and `most`; all below 2^63.
#[inline(always)]
pub fn clamp(number: u64, least: u64, most: u64) -> u64 {
    let number = pick(less(number, least), least, number);
    pick(less(most, number), most, number)
}
