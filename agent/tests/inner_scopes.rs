//! `scope`, `restrict` and `factor_deny` of a configuration: what the gate is told, and what is wrong.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step is a failed test"
)]

use std::path::Path;

use portcullis_agent::config::{CLASS_FIRST, Config, Host, parse_on};
use portcullis_common::abi::place;
use portcullis_common::ledger::{DAY, rule_flag};

fn read(text: &str) -> Result<Config, String> {
    let text = format!("break_glass = false\n{text}");
    let loaded = parse_on(Path::new("p.toml"), &text, &Host::this());
    loaded.map(|loaded| loaded.config).map_err(|error| error.to_string())
}

const CLASS: &str = "[[class]]\nname = \"a\"\nusers = [\"root\"]\n";

#[test]
fn a_class_of_pairs_has_two_limits() {
    let config = read(&format!("[default]\ndeny = 4\n{CLASS}scope = \"pair\"\naccount_deny = 7\n")).unwrap();
    let rules = config.rules(0);
    let (default, class) = (&rules[0], &rules[CLASS_FIRST as usize]);
    assert_eq!((default.deny, default.flags & rule_flag::PAIR), (4, 0));
    assert_eq!((class.deny, class.pair_deny, class.of_pairs().deny), (7, 4, 4));
    assert!(class.flags & rule_flag::PAIR != 0);
    // Whom nobody locks nobody shuts out.
    let config = read("[default]\nscope = \"pair\"\n").unwrap();
    assert_eq!(config.rules(0)[1].flags & rule_flag::PAIR, 0, "root is exempt");
}

#[test]
fn restrict_is_told_as_places_and_hours() {
    let text = "[default]\nrestrict = { networks = [\"192.0.2.0/24\"], ttys = [\"/dev/tty1\"], hours = \"08:00-18:00\" }\n";
    let config = read(&format!("{text}{CLASS}restrict = false\n")).unwrap();
    let soft = rule_flag::SOFT | rule_flag::RESTRICT;
    let (hour, midnight) = (3600 * 1_000_000_000_u64, 77 * 3600 * 1_000_000_000_u64);
    let rule = config.rules(midnight % DAY)[0];
    assert_eq!(rule.flags, soft);
    for (at, open) in [(0, false), (7, false), (8, true), (17, true), (18, false), (23, false)] {
        // Today, in a hundred days, and when the host booted.
        for day in [0, 100, 3] {
            let now = midnight + day * DAY + at * hour;
            assert_eq!(rule.open_at(now), open, "{at}:00");
            assert_eq!(rule.open_at(now + hour - 1), open, "{at}:59");
        }
    }
    assert_eq!(config.rules(0)[CLASS_FIRST as usize].flags, 0);
    let own: Vec<_> = config.places().into_iter().filter(|(_, place)| place.class == 0).collect();
    assert_eq!(own.len(), 2);
    assert_eq!((own[0].0, own[0].1.kind), (place::HEAD + 96 + 24, place::NETWORK));
    assert_eq!(&own[1].1.bytes[..5], b"tty1\0");
    assert!(config.places().iter().all(|(_, place)| place.class != CLASS_FIRST));
    // What is shown is a file again.
    let again = parse_on(Path::new("p.toml"), &config.to_toml().unwrap(), &Host::this()).unwrap();
    assert_eq!(again.config, config);
}

#[test]
fn another_factor_has_its_own_limit() {
    let config = read("[default]\ndeny = 5\nfactor_deny = 2\n").unwrap();
    let rule = config.rules(0)[0];
    assert_eq!((rule.flags, rule.deny, rule.soft_deny), (rule_flag::SOFT | rule_flag::FACTOR, 5, 2));
    assert_eq!(config.rules(0)[2].flags & rule_flag::SOFT, 0, "break-glass is exempt");
}

#[test]
fn what_does_not_fit_is_said() {
    for (text, wanted) in [
        ("scope = \"pairs\"", "\"account\" or \"pair\""),
        ("scope = \"pair\"\ndeny = 10", "account_deny: 10 must be more than deny (10)"),
        ("scope = \"pair\"\naccount_deny = 17", "1 to 16"),
        ("factor_deny = 0", "factor_deny: must be a whole number from 1 to 16"),
        ("factor_deny = true", "factor_deny: must be a whole number from 1 to 16"),
        ("restrict = true", "restrict: must be false, or some of"),
        ("restrict = {}", "restrict: must be false, or some of"),
        ("restrict = { hour = \"08:00-18:00\" }", "has no key \"hour\""),
        ("restrict = { hours = \"8-18\" }", "hours must be as in"),
        ("restrict = { networks = [\"localhost\"] }", "names are not looked up"),
        ("restrict = { networks = [\"192.0.2.1/24\"] }", "write 192.0.2.0/24"),
        ("restrict = { networks = \"192.0.2.0/24\" }", "must be false, or some of"),
        ("restrict = { ttys = [\"a very long terminal\"] }", "is no terminal"),
    ] {
        let said = read(&format!("[default]\n{text}\n")).unwrap_err();
        assert!(said.contains(wanted) && said.contains("p.toml:"), "{text}: {said}");
    }
    let many = (0..33).map(|n| format!("\"192.0.2.{n}\"")).collect::<Vec<_>>().join(", ");
    let said = read(&format!("[default]\nrestrict = {{ networks = [{many}] }}\n")).unwrap_err();
    assert!(said.contains("at most 32"), "{said}");
}
