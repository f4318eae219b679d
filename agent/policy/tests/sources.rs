//! Arbitrary days of many sources: trips told twice, late and never, failing filters, administrators, restarts, new rules,
//! and a clock that jumps. The world below plays the filter, and checks every action it is asked for.
#![allow(clippy::unwrap_used, reason = "a test, its model too")]

use std::collections::BTreeMap;

use portcullis_policy::Boot;
use portcullis_policy::sources::{Action, Answer, Counts, Input, Net, Rules, Source, Sources, Target};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;
const COUNTS: Counts = Counts { failures: 5, accounts: 1, unknown: 0, service: [0; 16] };
/// Exempt by the configuration, and where the administrator sits.
const EXEMPT: Net = Net::V4(0xc000_0200, 28);
const ADMINISTRATOR: Net = Net::V4(0xc000_0233, 32);
/// This host's own.
const OWN: [Net; 2] = [Net::V4(0xc000_0222, 32), Net::V6(0x2001_0db8_0000_0003_0000_0000_0000_0009, 128)];

fn rules() -> Rules {
    Rules {
        guess: Answer::Act,
        spray: Answer::Act,
        local: Answer::Act,
        accounts: 4,
        drop_time: 10 * SECOND,
        max_drop_time: 100 * SECOND,
        decay: 50 * SECOND,
        escalate: 3,
        exempt: vec![EXEMPT],
    }
}

#[derive(Clone, Debug)]
enum Op {
    Pass(u64),
    /// Which source, how many seconds ago.
    Trip(Source, u64),
    Released(Source),
    Fails(bool),
    Restart,
    Monitor(bool),
    Back(u64),
}

fn source() -> impl Strategy<Value = Source> {
    prop_oneof![
        6 => (0..64_u32).prop_map(|number| Source::V4(0xc000_0200 + number)),
        1 => Just(Source::V4(0x7f00_0001)),
        2 => (0..6_u64).prop_map(|number| Source::V6(0x2001_0db8_0000_0000 + number)),
        1 => Just(Source::V6(0xfe80 << 48)),
        2 => (0..3_u32).prop_map(Source::Local),
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (0..60_u64).prop_map(Op::Pass),
        12 => (source(), 0..30_u64).prop_map(|(source, ago)| Op::Trip(source, ago)),
        1 => source().prop_map(Op::Released),
        1 => any::<bool>().prop_map(Op::Fails),
        1 => Just(Op::Restart),
        1 => any::<bool>().prop_map(Op::Monitor),
        1 => (0..5_u64).prop_map(Op::Back),
    ];
    prop::collection::vec(op, 0..150)
}

fn target(source: Source) -> Target {
    match source {
        Source::Local(uid) => Target::Local(uid),
        source => Target::Net(Net::of(source).unwrap()),
    }
}

fn sources(room: usize) -> Sources {
    let mut sources = Sources::with_room(rules(), room);
    assert_eq!(sources.step(Boot(0), Input::Own(OWN.to_vec())), []);
    sources
}

struct World {
    sources: Sources,
    now: u64,
    newest: u64,
    fails: bool,
    monitor: bool,
    room: usize,
    /// What is answered, until when.
    answered: BTreeMap<Target, Boot>,
    stored: BTreeMap<Target, portcullis_policy::sources::Memory>,
    wake: Boot,
    actions: Vec<Action>,
}

impl World {
    fn new(room: usize) -> Self {
        Self {
            sources: sources(room),
            now: 1_000 * SECOND,
            newest: 0,
            fails: false,
            monitor: false,
            room,
            answered: BTreeMap::new(),
            stored: BTreeMap::new(),
            wake: Boot::NEVER,
            actions: Vec::new(),
        }
    }

    fn rules(&self) -> Rules {
        let answer = if self.monitor { Answer::Monitor } else { Answer::Act };
        Rules { guess: answer, spray: answer, ..rules() }
    }

    fn feed(&mut self, input: Input) {
        self.newest = self.newest.max(self.now);
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for action in self.sources.step(Boot(self.now), input) {
                match &action {
                    Action::Answer { target, until, .. } => {
                        match target {
                            Target::Local(uid) => assert_ne!(*uid, 0, "root was refused"),
                            Target::Net(net) => {
                                for never in [
                                    EXEMPT,
                                    ADMINISTRATOR,
                                    Net::V4(0x7f00_0000, 8),
                                    Net::V6(0xfe80 << 112, 10),
                                    OWN[0],
                                    OWN[1],
                                ] {
                                    assert!(!net.overlaps(never), "{net:?} is exempt");
                                }
                            }
                        }
                        assert!(*until <= Boot(self.now).after(100 * SECOND), "longer than max_drop_time");
                        assert!(*until > Boot(self.now - 6 * SECOND), "over before it began");
                        let failed = self.fails.then(|| ("no".to_owned(), true));
                        if failed.is_none() {
                            assert!(!self.monitor || matches!(target, Target::Local(_)), "in monitor");
                            self.answered.insert(*target, *until);
                        } else {
                            // What is left of the answer before ends by itself.
                            self.answered.remove(target);
                        }
                        inputs.push(Input::Done { target: *target, failed });
                    }
                    Action::Release { target } => {
                        self.answered.remove(target);
                    }
                    Action::Ended { target } => {
                        assert!(
                            self.answered.remove(target).is_none_or(|until| until.0 <= self.now + 6 * SECOND)
                        );
                    }
                    Action::Remember { target, memory } => {
                        self.stored.insert(*target, *memory);
                    }
                    Action::Forget { target } => {
                        assert!(
                            self.answered.get(target).is_none_or(|until| until.0 <= self.now + 6 * SECOND)
                        );
                        self.stored.remove(target);
                    }
                    Action::Wake { at } => self.wake = *at,
                    Action::Tell { .. } => {}
                }
                self.actions.push(action);
            }
            assert!(self.sources.held(Boot(self.now)).count() <= self.room, "not bounded");
        }
    }

    fn pass(&mut self, nanoseconds: u64) {
        let end = self.now + nanoseconds;
        let mut calls = 0;
        while self.wake.0 <= end {
            self.now = self.now.max(self.wake.0);
            self.feed(Input::Tick);
            calls += 1;
            assert!(calls < 10_000, "woken for nothing");
        }
        self.now = self.now.max(end);
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Pass(seconds) => self.pass(seconds * SECOND),
            Op::Trip(source, ago) => self.feed(Input::Tripped {
                source: *source,
                at: Boot(self.now - ago * SECOND),
                counts: COUNTS,
                administrators: vec![ADMINISTRATOR],
            }),
            Op::Released(source) => {
                self.answered.remove(&target(*source));
                self.feed(Input::Released { target: target(*source) });
            }
            Op::Fails(fails) => self.fails = *fails,
            Op::Restart => {
                self.sources = sources(self.room);
                let _ = self.sources.step(Boot(self.now), Input::Configured(self.rules()));
                self.wake = Boot::NEVER;
                for (target, memory) in self.stored.clone() {
                    self.feed(Input::Restored { target, memory });
                }
            }
            Op::Monitor(monitor) => {
                self.monitor = *monitor;
                self.feed(Input::Configured(self.rules()));
            }
            // A clock that was read late, or goes back.
            Op::Back(seconds) => self.now -= seconds * SECOND,
        }
        if self.monitor {
            let left = self
                .answered
                .iter()
                .find(|(target, until)| matches!(target, Target::Net(_)) && until.0 > self.newest);
            assert_eq!(left, None, "not let go in monitor, after {op:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// No exempt one is ever answered, every answer ends, the table is bounded (all asserted in the world); in the end
    /// nothing is left.
    #[test]
    fn exempt_always_wins_and_every_answer_ends(ops in ops(), room in 1..60_usize) {
        let mut world = World::new(room);
        for op in &ops {
            world.run(op);
        }
        world.fails = false;
        world.pass(100_000 * SECOND);
        prop_assert_eq!(world.sources.held(Boot(world.now)).count(), 0);
        prop_assert_eq!(world.wake, Boot::NEVER);
    }

    #[test]
    fn same_events_same_actions_about_sources(ops in ops()) {
        let run = || {
            let mut world = World::new(30);
            ops.iter().for_each(|op| world.run(op));
            world.actions
        };
        prop_assert_eq!(run(), run());
    }

    /// Any two times, however far apart: no panic, and no answer that outlives the cap.
    #[test]
    fn times_may_jump(first: u64, second: u64, third: u64, rule in prop::array::uniform3(any::<u64>())) {
        let [drop_time, max_drop_time, decay] = rule;
        let rules = Rules { drop_time, max_drop_time, decay, ..rules() };
        let mut sources = Sources::new(rules);
        let mut newest = 0;
        for at in [first, second, third] {
            newest = newest.max(at);
            let source = Source::V4(0xc000_0280);
            let input = Input::Tripped { source, at: Boot(at), counts: COUNTS, administrators: Vec::new() };
            for action in sources.step(Boot(at), input) {
                if let Action::Answer { until, .. } = action {
                    prop_assert!(until <= Boot(newest).after(max_drop_time.max(drop_time)));
                }
            }
        }
    }
}
