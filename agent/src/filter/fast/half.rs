//! One family's lines, their index and rows.
//!
//! Invariants, each at every moment, so that a process that is killed leaves nothing wrong: a source is in its line as long
//! as its row has it, and a row without a lane is none; a row is there before its lane, and goes after it; a row that has
//! ended, or that somebody began to take out, is taken over by one exchange of its end. What one of them left is put right
//! by the next that opens the table ([`Half::adopt`]). One process at a time is in here: see the lock in [`super`].

use std::collections::{HashMap, HashSet};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use portcullis_common::filter::fast::{
    BARE_LINES, ELSEWHERE, Family, Look, MAX_LINES, MIN_LINES, WORDS, place_of, row,
};
use portcullis_common::filter::record::Lease;

use super::memory::Mapped;
use crate::filter::command::FilterError;

/// Names of a family's maps, and where its head begins, in words.
pub(super) struct Names {
    pub(super) head: usize,
    pub(super) lines: &'static str,
    pub(super) bits: &'static str,
    pub(super) index: &'static str,
    pub(super) rows: &'static str,
    /// Halves of words of an element of the index.
    pub(super) places: usize,
}

/// Lanes of a hundred that are used before there are twice as many lines.
const FULL: usize = 60;

/// The lines of one family.
pub(super) struct Half<F> {
    head: Arc<Mapped>,
    names: Names,
    lines: Mapped,
    bits: Mapped,
    index: Mapped,
    rows: Mapped,
    /// Which row a source has.
    of: HashMap<u64, u32>,
    free: Vec<u32>,
    /// Sources in the kernel's hash table.
    elsewhere: HashSet<u64>,
    /// How many of them a line has.
    sent_on: HashMap<u32, u32>,
    /// Lines in front of which bits may be set for sources that are gone: a look at the line too many, no wrong answer.
    loose: Vec<u32>,
    family: PhantomData<F>,
}

impl<F: Family> Half<F> {
    pub(super) fn open(head: Arc<Mapped>, names: Names) -> Result<Self, FilterError> {
        let lines = MAX_LINES as usize;
        let half = Self {
            lines: Mapped::open(names.lines, lines * WORDS)?,
            bits: Mapped::open(names.bits, lines)?,
            index: Mapped::open(names.index, lines * names.places / 2)?,
            rows: Mapped::open(names.rows, F::ROWS as usize * F::ROW)?,
            head,
            names,
            of: HashMap::new(),
            free: Vec::new(),
            elsewhere: HashSet::new(),
            sent_on: HashMap::new(),
            loose: Vec::new(),
            family: PhantomData,
        };
        if half.mix().contains(&0) {
            half.start()?;
        }
        Ok(half)
    }

    /// Keys of its own for a new table, so that nobody can choose sources that share a line.
    fn start(&self) -> Result<(), FilterError> {
        let random = || getrandom::u64().map(|key| key | 1);
        let failed = |error| FilterError::Kernel(format!("no random numbers for the drop table: {error}"));
        self.mask_word().store(MIN_LINES - 1, Release);
        for at in 0..2 {
            self.head.word(self.names.head + at).store(random().map_err(failed)?, Release);
        }
        Ok(())
    }

    fn mix(&self) -> [u64; 2] {
        [0, 1].map(|at| self.head.word(self.names.head + at).load(Acquire))
    }

    fn mask_word(&self) -> &std::sync::atomic::AtomicU32 {
        self.head.half(2 * self.names.head + 4)
    }

    fn mask(&self) -> u32 {
        self.mask_word().load(Acquire)
    }

    /// Rows that were ever in use.
    fn used(&self) -> &std::sync::atomic::AtomicU32 {
        self.head.half(2 * self.names.head + 6)
    }

    fn set_lines(&self, count: u32) {
        let bits = self.head.half(2 * self.names.head + 5);
        if count > BARE_LINES {
            bits.store(1, Release);
        }
        self.mask_word().store(count - 1, Release);
        if count <= BARE_LINES {
            bits.store(0, Release);
        }
    }

    fn mixed(&self, key: u64) -> u64 {
        F::mixed(key, self.mix())
    }

    fn line_word(&self, line: u32, at: usize) -> &std::sync::atomic::AtomicU64 {
        self.lines.word(line as usize * WORDS + at)
    }

    fn row_word(&self, row: u32, at: usize) -> &std::sync::atomic::AtomicU64 {
        self.rows.word(row as usize * F::ROW + at)
    }

    fn index_of(&self, line: u32, place: usize) -> &std::sync::atomic::AtomicU32 {
        self.index.half(line as usize * self.names.places + place)
    }

    fn read(&self, line: u32) -> impl Fn(usize) -> u64 + '_ {
        move |at| self.line_word(line, at).load(Acquire)
    }

    fn key_of(&self, row: u32) -> u64 {
        let key = self.row_word(row, row::KEY).load(Acquire);
        if F::ROW == row::KEY + 1 { key & u64::from(u32::MAX) } else { key }
    }

    fn last(&self, row: u32) -> &std::sync::atomic::AtomicU64 {
        self.row_word(row, F::ROW - 1)
    }

    /// The bits in front of a line, anew.
    fn count_bits(&self, line: u32) {
        let read = self.read(line);
        let mut bits = if read(0) & ELSEWHERE == 0 { 0 } else { u64::MAX };
        for place in 0..F::LANES {
            let (at, shift, ones) = F::place(place);
            let lane = read(at) >> shift & ones;
            if lane != 0 {
                bits |= F::bit(F::mixed_of(line, lane));
            }
        }
        self.bits.word(line as usize).store(bits, Release);
    }

    /// Puts a lane into its line. False where there is no room.
    fn put_lane(&self, key: u64, row: u32) -> bool {
        let mixed = self.mixed(key);
        let (line, lane) = (F::line(mixed, self.mask()), F::lane(mixed));
        let place = place_of::<F>(self.read(line), 0);
        if place == F::LANES {
            return false;
        }
        let (at, shift, _) = F::place(place);
        self.index_of(line, place).store(row, Release);
        self.bits.word(line as usize).fetch_or(F::bit(mixed), AcqRel);
        self.line_word(line, at).fetch_or(lane << shift, AcqRel);
        true
    }

    /// Takes a source's lane out of its line.
    fn take_lane(&mut self, key: u64) {
        let mixed = self.mixed(key);
        let line = F::line(mixed, self.mask());
        let place = place_of::<F>(self.read(line), F::lane(mixed));
        if place < F::LANES {
            let (at, shift, ones) = F::place(place);
            self.line_word(line, at).fetch_and(!(ones << shift), AcqRel);
            self.loose.push(line);
            if self.loose.len() > MAX_LINES as usize {
                self.settle();
            }
        }
    }

    pub(super) fn is_loose(&self) -> bool {
        !self.loose.is_empty()
    }

    /// Counts the bits anew of lines that somebody left: once for all who left meanwhile.
    pub(super) fn settle(&mut self) {
        let mut lines = std::mem::take(&mut self.loose);
        lines.sort_unstable();
        lines.dedup();
        for line in lines {
            self.count_bits(line);
        }
    }

    /// What the kernel says of a source.
    pub(super) fn look(&self, key: u64) -> Look {
        let mixed = self.mixed(key);
        F::look(self.read(F::line(mixed, self.mask())), F::lane(mixed))
    }

    /// Whether it has a row.
    pub(super) fn has(&self, key: u64) -> bool {
        self.of.contains_key(&key)
    }

    /// How many sources it holds.
    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    /// Puts a lease for all ports in. False where there is no room for it here. One that has ended at `now` gets no lane.
    pub(super) fn put(&mut self, key: u64, lease: &Lease, now: u64) -> bool {
        let until = match lease.until {
            0 => 1,
            until if until >= row::LEFT => u64::MAX,
            until => until,
        };
        if F::lane(self.mixed(key)) == 0 || lease.rule > row::MAX_RULE || lease.reason > 7 {
            return false;
        }
        if let Some(row) = self.of.get(&key).copied() {
            if until > now {
                return self.renew(key, row, until, lease);
            }
            self.remove(key);
        }
        let lanes = (self.mask() as usize + 1) * F::LANES;
        if (self.of.len() + 1) * 100 > lanes * FULL {
            self.grow();
        }
        let row = match self.free.pop() {
            Some(row) => row,
            None => {
                let row = self.used().load(Acquire);
                if row >= F::ROWS {
                    return false;
                }
                self.used().store(row + 1, Release);
                row
            }
        };
        self.row_word(row, row::PACKETS).store(lease.packets, Relaxed);
        self.row_word(row, row::KEY).store(key, Relaxed);
        let kept = if F::ROW == row::KEY + 1 { key } else { 0 };
        let swept = if until > now { 0 } else { row::SWEPT };
        self.last(row).store(kept | row::mark(lease.rule, lease.reason) | swept, Relaxed);
        self.row_word(row, row::UNTIL).store(until, Release);
        if swept == 0 && !self.put_lane(key, row) {
            self.row_word(row, row::UNTIL).store(0, Release);
            self.free.push(row);
            return false;
        }
        self.of.insert(key, row);
        true
    }

    fn renew(&mut self, key: u64, row: u32, until: u64, lease: &Lease) -> bool {
        self.claim(row, until);
        let kept = self.last(row).load(Acquire) & u64::from(u32::MAX);
        let before = self.last(row).swap(kept | row::mark(lease.rule, lease.reason), AcqRel);
        if before & row::SWEPT != 0 && !self.put_lane(key, row) {
            self.remove(key);
            return false;
        }
        true
    }

    /// Exchanges a row's end, when nobody is about to take it out. Returns the end it had.
    fn claim(&self, row: u32, until: u64) -> u64 {
        let word = self.row_word(row, row::UNTIL);
        loop {
            let before = word.load(Acquire);
            if before == row::LEAVING || before == row::LEFT {
                // The sweep, in a moment; a process would hold the lock.
                std::thread::yield_now();
                continue;
            }
            if word.compare_exchange(before, until, AcqRel, Acquire).is_ok() {
                return before;
            }
        }
    }

    /// Takes a source out; whether it was there.
    pub(super) fn remove(&mut self, key: u64) -> bool {
        let Some(row) = self.of.remove(&key) else { return false };
        self.claim(row, row::LEAVING);
        self.take_lane(key);
        self.row_word(row, row::UNTIL).store(0, Release);
        self.free.push(row);
        if self.of.is_empty() && self.elsewhere.is_empty() {
            // As new: nobody is in any line.
            self.set_lines(MIN_LINES);
            self.loose.clear();
            self.used().store(0, Release);
            self.free.clear();
        }
        true
    }

    fn lease_of(&self, row: u32, length: u8) -> Lease {
        let last = self.last(row).load(Acquire);
        Lease {
            until: self.row_word(row, row::UNTIL).load(Acquire),
            packets: self.row_word(row, row::PACKETS).load(Relaxed),
            rule: row::rule(last),
            reason: row::reason(last),
            length: u16::from(length),
            ..Lease::default()
        }
    }

    /// The lease of a source, if the kernel drops by it or has ended it.
    pub(super) fn get(&self, key: u64, length: u8) -> Option<Lease> {
        let row = *self.of.get(&key)?;
        let swept = self.last(row).load(Acquire) & row::SWEPT != 0;
        (swept || self.look(key) == Look::Yes).then(|| self.lease_of(row, length))
    }

    /// All leases.
    pub(super) fn each(&self, length: u8, see: &mut dyn FnMut(u64, Lease)) {
        for (key, row) in &self.of {
            see(*key, self.lease_of(*row, length));
        }
    }

    /// A source is in the kernel's hash table from now on: whoever does not find it in its line looks there.
    pub(super) fn send_on(&mut self, key: u64) {
        if !self.elsewhere.insert(key) {
            return;
        }
        let line = F::line(self.mixed(key), self.mask());
        *self.sent_on.entry(line).or_default() += 1;
        self.flag(line);
    }

    fn flag(&self, line: u32) {
        if cfg!(feature = "mutation-no-overflow") {
            return;
        }
        self.bits.word(line as usize).store(u64::MAX, Release);
        self.line_word(line, 0).fetch_or(ELSEWHERE, AcqRel);
    }

    /// A source is in it no more.
    pub(super) fn send_back(&mut self, key: u64) {
        if !self.elsewhere.remove(&key) {
            return;
        }
        let line = F::line(self.mixed(key), self.mask());
        let left = self.sent_on.get(&line).copied().unwrap_or(0).saturating_sub(1);
        if left != 0 {
            self.sent_on.insert(line, left);
            return;
        }
        self.sent_on.remove(&line);
        self.line_word(line, 0).fetch_and(!ELSEWHERE, AcqRel);
        self.count_bits(line);
    }

    /// Whether it may be in the kernel's hash table.
    pub(super) fn is_elsewhere(&self, key: u64) -> bool {
        self.elsewhere.contains(&key)
    }

    /// Twice as many lines. Each new one begins as a copy of the one whose sources it shares; what is another's in either
    /// matches nobody and goes when the kernel looks at both.
    fn grow(&mut self) {
        let count = self.mask() + 1;
        if count >= MAX_LINES {
            return;
        }
        for line in 0..count {
            let twin = line + count;
            for place in 0..F::LANES {
                self.index_of(twin, place).store(self.index_of(line, place).load(Acquire), Relaxed);
            }
            for at in 0..WORDS {
                self.line_word(twin, at).store(self.line_word(line, at).load(Acquire), Release);
            }
            self.bits.word(twin as usize).store(self.bits.word(line as usize).load(Acquire), Release);
        }
        self.set_lines(2 * count);
        self.tidy();
    }

    /// Takes out of all lines what no row is behind, or what is another line's; counts who is elsewhere.
    fn tidy(&mut self) {
        let mask = self.mask();
        self.loose.clear();
        self.sent_on.clear();
        for key in &self.elsewhere {
            *self.sent_on.entry(F::line(self.mixed(*key), mask)).or_default() += 1;
        }
        for line in 0..=mask {
            for place in 0..F::LANES {
                let (at, shift, ones) = F::place(place);
                let lane = self.line_word(line, at).load(Acquire) >> shift & ones;
                if lane == 0 {
                    continue;
                }
                let mixed = F::mixed_of(line, lane);
                let row = self.index_of(line, place).load(Acquire);
                // Who takes a row out just now may know the lines of before alone.
                let ended = [0, row::LEAVING, row::LEFT];
                let lives = F::line(mixed, mask) == line
                    && !ended.contains(&self.row_word(row, row::UNTIL).load(Acquire))
                    && self.last(row).load(Acquire) & row::SWEPT == 0
                    && self.mixed(self.key_of(row)) == mixed;
                if !lives {
                    self.line_word(line, at).fetch_and(!(ones << shift), AcqRel);
                }
            }
            if self.sent_on.contains_key(&line) {
                self.flag(line);
            } else {
                self.line_word(line, 0).fetch_and(!ELSEWHERE, AcqRel);
                self.count_bits(line);
            }
        }
    }

    /// Reads the table as another left it, and puts right what a killed one did not finish. `elsewhere`: the sources in the
    /// kernel's hash table.
    pub(super) fn adopt(&mut self, elsewhere: HashSet<u64>) {
        self.of.clear();
        self.free.clear();
        self.elsewhere = elsewhere;
        for row in 0..self.used().load(Acquire).min(F::ROWS) {
            match self.row_word(row, row::UNTIL).load(Acquire) {
                0 => self.free.push(row),
                row::LEAVING | row::LEFT => self.finish(row),
                _ => {
                    if self.of.insert(self.key_of(row), row).is_some() {
                        // Two of one source: neither is trusted more, the one that has the lane stays.
                        self.finish(row);
                    }
                }
            }
        }
        self.tidy();
        let bare: Vec<u64> = self
            .of
            .iter()
            .filter(|(key, row)| {
                self.last(**row).load(Acquire) & row::SWEPT == 0 && self.look(**key) != Look::Yes
            })
            .map(|(key, _)| *key)
            .collect();
        for key in bare {
            // It was never told to be dropped: its lane comes last.
            self.remove(key);
        }
    }

    /// Ends what a killed process began.
    fn finish(&mut self, row: u32) {
        self.take_lane(self.key_of(row));
        self.row_word(row, row::UNTIL).store(0, Release);
        self.free.push(row);
    }
}
