//! The alarms that are open, and how often something was mended.
//!
//! Invariants: no clock, no input or output: what is wrong now and the time are given; an alarm is told once, and told
//! again when it ends; it stays until what it is about is as it was, or an administrator took note of it; within an hour
//! no kind is mended more often than [`HEALS`] times.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;

use super::Kind;

/// Alarms shown; of more, the newest are in log, metrics and events alone. Kept are all, since each is told once: there
/// are as many as pins, stacks and files that are looked at.
const MOST: usize = 256;
/// How often a kind is mended within [`WINDOW`].
pub const HEALS: usize = 5;
/// Seconds of that.
const WINDOW: i64 = 3_600;

/// What an alarm is about: its kind and which file, pin or interface.
pub type Key = (Kind, String);

/// Something that is wrong now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// What, in words.
    pub detail: String,
    /// Who did it, in words.
    pub who: Option<String>,
    /// The uid that answers for it.
    pub uid: Option<u32>,
}

/// An alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// Its number, from 1, never used again.
    pub id: u64,
    /// Since when.
    pub since: Timestamp,
    /// What is wrong.
    pub wrong: Wrong,
    /// An administrator took note of it.
    pub noted: bool,
}

/// What a look changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// An alarm was raised, or is about something else now.
    Raised(Key, Alarm),
    /// It is as it was.
    Ended(Key, Alarm),
}

/// All alarms.
#[derive(Debug, Default)]
pub struct Book {
    open: BTreeMap<Key, Alarm>,
    last: u64,
    heals: BTreeMap<Kind, VecDeque<Timestamp>>,
}

impl Book {
    /// What is wrong now: all of the kinds that are looked at. Kinds that only an administrator ends are left alone.
    pub fn look(&mut self, now: Timestamp, wrong: &BTreeMap<Key, Wrong>) -> Vec<News> {
        let mut news = Vec::new();
        let ended: Vec<Key> =
            self.open.keys().filter(|key| !key.0.stays() && !wrong.contains_key(*key)).cloned().collect();
        for key in ended {
            if let Some(alarm) = self.open.remove(&key) {
                news.push(News::Ended(key, alarm));
            }
        }
        for (key, wrong) in wrong {
            news.extend(self.raise(now, key, wrong));
        }
        news
    }

    /// Something is wrong.
    pub fn raise(&mut self, now: Timestamp, key: &Key, wrong: &Wrong) -> Option<News> {
        match self.open.get_mut(key) {
            Some(alarm) if alarm.wrong.detail == wrong.detail => None,
            Some(alarm) => {
                alarm.wrong = wrong.clone();
                alarm.noted = false;
                Some(News::Raised(key.clone(), alarm.clone()))
            }
            None => {
                self.last += 1;
                let alarm = Alarm { id: self.last, since: now, wrong: wrong.clone(), noted: false };
                self.open.insert(key.clone(), alarm.clone());
                Some(News::Raised(key.clone(), alarm))
            }
        }
    }

    /// An administrator takes note of one alarm, or of all. How many there were.
    pub fn note(&mut self, id: Option<u64>) -> usize {
        let meant = |alarm: &Alarm| !alarm.noted && id.is_none_or(|id| id == alarm.id);
        let count = self.open.values().filter(|alarm| meant(alarm)).count();
        self.open.retain(|key, alarm| !(key.0.stays() && meant(alarm)));
        for alarm in self.open.values_mut().filter(|alarm| id.is_none_or(|id| id == alarm.id)) {
            alarm.noted = true;
        }
        count
    }

    /// The first [`MOST`] of those that nobody took note of, oldest first.
    #[must_use]
    pub fn open(&self) -> Vec<(&Key, &Alarm)> {
        let mut open: Vec<_> = self.open.iter().filter(|(_, alarm)| !alarm.noted).collect();
        open.sort_by_key(|(_, alarm)| alarm.id);
        open.truncate(MOST);
        open
    }

    /// Whether there is such an alarm, noted or not.
    #[must_use]
    pub fn has(&self, key: &Key) -> bool {
        self.open.contains_key(key)
    }

    /// How many of a kind are open.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.open.iter().filter(|(key, alarm)| key.0 == kind && !alarm.noted).count()
    }

    /// Whether something of this kind may be mended now; counts it.
    pub fn may_heal(&mut self, kind: Kind, now: Timestamp) -> bool {
        let done = self.heals.entry(kind).or_default();
        done.retain(|at| now.duration_since(*at).as_secs() < WINDOW);
        if done.len() >= HEALS && !cfg!(feature = "mutation-heal-without-end") {
            return false;
        }
        done.push_back(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(detail: &str) -> Wrong {
        Wrong { detail: detail.to_owned(), who: None, uid: None }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn key(kind: Kind) -> Key {
        (kind, "there".to_owned())
    }

    #[test]
    fn an_alarm_is_told_once_and_once_more_when_it_ends() {
        let mut book = Book::default();
        let now = BTreeMap::from([(key(Kind::PinGone), wrong("gone"))]);
        assert_eq!(book.look(at(0), &now).len(), 1);
        assert_eq!(book.look(at(1), &now), [], "told once");
        assert_eq!(book.count(Kind::PinGone), 1);
        let ended = book.look(at(2), &BTreeMap::new());
        assert!(matches!(&ended[..], [News::Ended(_, alarm)] if alarm.since == at(0)));
        assert!(book.open().is_empty());
    }

    #[test]
    fn a_note_hides_an_alarm_until_it_is_about_something_else() {
        let mut book = Book::default();
        let of = |detail: &str| BTreeMap::from([(key(Kind::PamLine), wrong(detail))]);
        book.look(at(0), &of("su"));
        assert_eq!((book.note(Some(9)), book.note(Some(1)), book.note(None)), (0, 1, 0));
        assert!(book.open().is_empty());
        assert_eq!(book.look(at(1), &of("su")), []);
        assert_eq!(book.look(at(2), &of("su, sshd")).len(), 1, "more than what was noted");
        assert_eq!(book.open().len(), 1);
    }

    #[test]
    fn what_cannot_be_seen_to_end_ends_by_a_note_alone() {
        let mut book = Book::default();
        book.raise(at(0), &key(Kind::StoreChanged), &wrong("written"));
        assert_eq!(book.look(at(1), &BTreeMap::new()), []);
        assert_eq!(book.open().len(), 1);
        assert_eq!(book.note(None), 1);
        assert!(book.raise(at(2), &key(Kind::StoreChanged), &wrong("written")).is_some(), "told anew");
    }

    #[test]
    fn more_than_there_is_room_for_are_told_once_too() {
        let mut book = Book::default();
        let many = |count: usize| -> BTreeMap<Key, Wrong> {
            (0..count).map(|number| ((Kind::PinGone, format!("pin {number:04}")), wrong("gone"))).collect()
        };
        let all = MOST + 40;
        assert_eq!(book.look(at(0), &many(all)).len(), all);
        assert_eq!(book.look(at(1), &many(all)), [], "no line of the log for each look");
        assert_eq!(book.look(at(2), &many(0)).len(), all, "and each is told to have ended");
        assert_eq!(book.look(at(3), &many(1)).len(), 1);
    }

    #[test]
    fn what_was_noted_has_not_ended_while_it_is_there() {
        let mut book = Book::default();
        book.look(at(0), &BTreeMap::from([(key(Kind::PinMode), wrong("open"))]));
        book.note(None);
        assert!(book.has(&key(Kind::PinMode)), "noted is not gone");
        assert!(book.open().is_empty());
    }

    #[test]
    fn mending_is_bounded_by_the_hour() {
        let mut book = Book::default();
        let first = (0..20).filter(|second| book.may_heal(Kind::PinGone, at(*second))).count();
        assert_eq!(first, HEALS);
        assert!(book.may_heal(Kind::Detached, at(20)), "each kind has its own");
        assert!(!book.may_heal(Kind::PinGone, at(3_599)));
        assert!(book.may_heal(Kind::PinGone, at(3_605)));
    }
}
