//! The pins of a gate that somebody moved about.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod bpffs;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bpffs::with_bpffs;
use portcullis_agent::kernel;
use portcullis_agent::tamper::Kind;
use portcullis_agent::tamper::pins::Pins;
use portcullis_common::abi::{PIN_DIR, map};

#[test]
fn a_pin_that_holds_another_map_is_told_and_put_back() {
    with_bpffs(|| {
        kernel::load_if_missing(kernel::OBJECT).unwrap();
        let mut pins = Pins::gate();
        let mut wrong = BTreeMap::new();
        pins.look(false, &mut wrong);
        assert!(wrong.is_empty(), "{wrong:?}");
        // The same object once more is the same gate.
        kernel::load(kernel::OBJECT).unwrap();
        pins.look(false, &mut wrong);
        assert!(wrong.is_empty(), "{wrong:?}");
        let (members, stats) = (Path::new(PIN_DIR).join(map::MEMBERS), Path::new(PIN_DIR).join(map::STATS));
        fs::rename(&members, &stats).unwrap();
        pins.look(false, &mut wrong);
        let kinds: Vec<Kind> = wrong.keys().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [Kind::PinGone, Kind::PinReplaced]);
        for path in [&members, &stats] {
            pins.put_back(path).unwrap();
        }
        wrong.clear();
        pins.look(false, &mut wrong);
        assert!(wrong.is_empty(), "{wrong:?}");
    });
}
