//! Lines of the fast table against a plain set.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed step is a failed test")]

use portcullis_common::filter::fast::{
    ELSEWHERE, Family, Four, Look, MAX_LINES, MIN_LINES, Six, WORDS, place_of,
};
use proptest::prelude::*;
use std::collections::HashSet;

const MIX: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f];

/// A table of lines, without rows.
struct Lines {
    lines: Vec<[u64; WORDS]>,
    mask: u32,
}

impl Lines {
    fn new(count: u32) -> Self {
        Self { lines: vec![[0; WORDS]; count as usize], mask: count - 1 }
    }

    /// Whether there was room.
    fn put<F: Family>(&mut self, key: u64, lane: u64) -> bool {
        let line = &mut self.lines[F::line(F::mixed(key, MIX), self.mask) as usize];
        let free = place_of::<F>(|at| line[at], 0);
        if free == F::LANES {
            line[0] |= ELSEWHERE;
            return false;
        }
        let (at, shift, _) = F::place(free);
        line[at] |= lane << shift;
        true
    }

    fn take<F: Family>(&mut self, key: u64) {
        let mixed = F::mixed(key, MIX);
        let line = &mut self.lines[F::line(mixed, self.mask) as usize];
        let place = place_of::<F>(|at| line[at], F::lane(mixed));
        let (at, shift, ones) = F::place(place);
        line[at] &= !(ones << shift);
    }

    fn look<F: Family>(&self, key: u64) -> Look {
        let mixed = F::mixed(key, MIX);
        let line = &self.lines[F::line(mixed, self.mask) as usize];
        F::look(|at| line[at], F::lane(mixed))
    }
}

/// Keys that lie close together, in few lines of many, or anywhere.
fn keys(lines: u32) -> impl Strategy<Value = Vec<u64>> {
    let key = prop_oneof![0..200_u64, any::<u32>().prop_map(u64::from), any::<u64>()];
    prop::collection::vec(key, 1..400).prop_map(move |keys| {
        // A third of them in the first four lines.
        let crowd = (1..u64::from(u32::MAX)).filter(|key| (Four::mixed(*key, MIX) as u32 & (lines - 1)) < 4);
        keys.iter().copied().chain(crowd.take(keys.len() / 3)).collect()
    })
}

fn is_the_set<F: Family>(keys: &[u64], others: &[u64], lines: u32) -> Result<(), TestCaseError> {
    let mut table = Lines::new(lines);
    let (mut here, mut elsewhere) = (HashSet::new(), HashSet::new());
    for (turn, key) in keys.iter().enumerate() {
        if here.contains(key) {
            table.take::<F>(*key);
            here.remove(key);
        } else if !elsewhere.contains(key) {
            let lane = F::lane(F::mixed(*key, MIX));
            if lane != 0 && table.put::<F>(*key, lane) {
                here.insert(*key)
            } else {
                elsewhere.insert(*key)
            };
        }
        for key in keys.get(turn.saturating_sub(40)..).unwrap_or(&[]).iter().take(80).chain(others) {
            let look = table.look::<F>(*key);
            prop_assert_eq!(look == Look::Yes, here.contains(key), "{}", key);
            prop_assert!(look == Look::Elsewhere || !elsewhere.contains(key), "{}", key);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_line_holds_what_was_put_in_and_nothing_else(keys in keys(MIN_LINES), others in prop::collection::vec(any::<u32>(), 50)) {
        let others: Vec<u64> = others.into_iter().map(u64::from).collect();
        let four: Vec<u64> = keys.iter().map(|key| *key & u64::from(u32::MAX)).collect();
        is_the_set::<Four>(&four, &others, MIN_LINES)?;
        is_the_set::<Six>(&keys, &others, MIN_LINES)?;
    }
}

#[test]
fn all_that_share_a_lane_are_told_apart_by_their_line() {
    // Every source that has the lane of one: as many as there are lines.
    for lines in [MIN_LINES, MAX_LINES] {
        let mut table = Lines::new(lines);
        let key = 0xc000_0207;
        let lane = Four::lane(Four::mixed(key, MIX));
        assert!(table.put::<Four>(key, lane));
        let mut same = 0;
        // An odd factor has an inverse: go the bijection back.
        let inverse =
            |odd: u32| (0..5).fold(odd, |x, _| x.wrapping_mul(2_u32.wrapping_sub(odd.wrapping_mul(x))));
        let (first, second) = (inverse(MIX[0] as u32), inverse(MIX[1] as u32));
        for low in 0..MIN_LINES {
            let mixed = ((lane as u32) << 12) | low;
            let mut back = mixed ^ (mixed >> 15) ^ (mixed >> 30);
            back = back.wrapping_mul(second);
            back ^= back >> 16;
            let other = u64::from(back.wrapping_mul(first));
            assert_eq!(Four::mixed(other, MIX), u64::from(mixed));
            assert_eq!(Four::lane(Four::mixed(other, MIX)), lane);
            assert_eq!(table.look::<Four>(other) == Look::Yes, other == key, "{other:x}");
            same += 1;
        }
        assert_eq!(same, MIN_LINES);
    }
}

#[test]
fn a_full_line_sends_on_and_an_empty_one_says_no() {
    let mut table = Lines::new(MIN_LINES);
    let crowd: Vec<u64> = (0..u64::from(u32::MAX))
        .filter(|key| Four::mixed(*key, MIX) as u32 & (MIN_LINES - 1) == 7)
        .take(30)
        .collect();
    for (count, key) in crowd.iter().enumerate() {
        assert_eq!(table.look::<Four>(*key), if count <= 24 { Look::No } else { Look::Elsewhere });
        assert_eq!(table.put::<Four>(*key, Four::lane(Four::mixed(*key, MIX))), count < 24);
    }
    assert!(crowd[..24].iter().all(|key| table.look::<Four>(*key) == Look::Yes));
    assert!(crowd[24..].iter().all(|key| table.look::<Four>(*key) == Look::Elsewhere));
}
