//! Samples of what was dropped, for people: tcpdump sees nothing of it.
//!
//! Invariant: bounded in time: a flood costs no more samples a second than the settings say.

use core::mem::MaybeUninit;

use portcullis_common::filter::{Bytes, SAMPLE_BYTES, Sample, stat};

use crate::{
    data::Data,
    judge::Seen,
    maps::{FILTER_PACE, SAMPLES, add},
};

const SECOND: u64 = 1_000_000_000;
const WORD: usize = 8;

/// Tells the agent of a packet that is dropped, unless this second's share is used up.
#[inline(always)]
pub fn take(data: &Data, seen: &Seen, (rule, reason): (u32, u16), now: u64, rate: u32) {
    if !in_pace(now, rate) {
        add(stat::PACED, 1);
        return;
    }
    let Some(mut slot) = SAMPLES.reserve(0) else {
        add(stat::SAMPLES_LOST, 1);
        return;
    };
    let reserved: &mut MaybeUninit<Sample> = &mut slot;
    fill(reserved.as_mut_ptr(), data, seen, rule, reason, now);
    slot.submit(0);
    add(stat::SAMPLED, 1);
}

#[allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "one operation: the fields of one record, by one pointer"
)]
#[inline(always)]
fn fill(sample: *mut Sample, data: &Data, seen: &Seen, rule: u32, reason: u16, now: u64) {
    // SAFETY: `sample` is reserved, 8-aligned and exclusively ours; every field is written here.
    unsafe {
        (*sample).time = now;
        (*sample).rule = rule;
        (*sample).reason = reason;
        (*sample).interface = seen.interface;
        (*sample).length = seen.length;
        (*sample).raw = seen.raw;
        (*sample).reserved = 0;
        let head = (&raw mut (*sample).head).cast::<[u8; WORD]>();
        let mut taken = 0;
        let mut word = 0;
        while word < SAMPLE_BYTES / WORD {
            let bytes = data.load::<WORD>(word * WORD);
            if bytes.is_some() {
                taken += WORD as u16;
            }
            head.add(word).write(bytes.unwrap_or([0; WORD]));
            word += 1;
        }
        (*sample).taken = taken;
    }
}

/// Whether this processor may give another sample in this second.
#[inline(always)]
fn in_pace(now: u64, rate: u32) -> bool {
    let Some(mine) = FILTER_PACE.get_ptr_mut(0) else { return false };
    // SAFETY: this processor's element, which lives as long as the map.
    let [begin, taken, ..] = unsafe { &mut *mine };
    if now.wrapping_sub(*begin) >= SECOND {
        *begin = now;
        *taken = 0;
    }
    if *taken >= u64::from(rate) {
        return false;
    }
    *taken += 1;
    true
}
