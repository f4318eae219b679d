//! The table [sc5], right and wrong.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::path::Path;

use portcullis_agent::config::sc5::{Ports, Sc5, Word};
use portcullis_agent::config::{ConfigError, Host, Loaded, parse_on};

fn parse(sc5: &str) -> Result<Loaded, ConfigError> {
    let text = format!("break_glass = false\n[sc5]\n{sc5}\n");
    parse_on(Path::new("p.toml"), &text, &Host::this())
}

#[test]
fn without_a_word_nothing_is_done() {
    let loaded = parse("").unwrap();
    assert_eq!(loaded.config.sc5, Sc5::default());
    assert_eq!((Sc5::default().guess, Sc5::default().local), (Word::Monitor, Word::Monitor));
}

#[test]
fn every_key_is_taken_and_written_again() {
    let all = "guess = \"drop\"\nspray = \"drop\"\nlocal = \"refuse\"\ndeny = 7\naccounts = 3\n\
        find_time = \"5m\"\ndrop_time = \"1m\"\nmax_drop_time = \"2h\"\ndecay = \"12h\"\nescalate = false\n\
        ports = [22, 8022]\nexempt = [\"192.0.2.0/24\", \"2001:db8::/48\"]\nexempt_administrators = false\n";
    let config = parse(all).unwrap().config;
    let sc5 = &config.sc5;
    assert_eq!((sc5.guess, sc5.spray, sc5.local), (Word::Drop, Word::Drop, Word::Refuse));
    assert_eq!((sc5.deny, sc5.accounts, sc5.escalate), (7, 3, 0));
    assert_eq!(sc5.ports, Ports::Listed(vec![22, 8022]));
    assert_eq!(sc5.exempt.len(), 2);
    assert!(!sc5.exempt_administrators);
    let again = parse_on(Path::new("p.toml"), &config.to_toml().unwrap(), &Host::this()).unwrap();
    assert_eq!(again.config, config);
}

#[test]
fn ports_are_numbers_names_or_the_services_own() {
    for (value, ports) in [
        ("\"all\"", Ports::All),
        ("\"service\"", Ports::Service),
        ("[8022]", Ports::Listed(vec![8022])),
        ("[\"ssh\", 8022, \"https\"]", Ports::Listed(vec![22, 8022, 443])),
    ] {
        let config = parse(&format!("ports = {value}")).unwrap().config;
        assert_eq!(config.sc5.ports, ports, "{value}");
        let again = parse_on(Path::new("p.toml"), &config.to_toml().unwrap(), &Host::this()).unwrap();
        assert_eq!(again.config, config);
    }
}

#[test]
fn wrong_values_of_sources_are_told_with_their_key() {
    for (wrong, key) in [
        ("guess = \"refuse\"", "sc5.guess"),
        ("local = \"drop\"", "sc5.local"),
        ("deny = 0", "sc5.deny"),
        ("deny = 17", "sc5.deny"),
        ("deny = -1", "sc5.deny"),
        ("accounts = 1", "sc5.accounts"),
        ("find_time = 600", "sc5.find_time"),
        ("find_time = \"never\"", "sc5.find_time"),
        ("drop_time = \"2d\"", "sc5.max_drop_time"),
        ("escalate = 1", "sc5.escalate"),
        ("escalate = true", "sc5.escalate"),
        ("ports = []", "sc5.ports"),
        ("ports = [0]", "sc5.ports"),
        ("ports = \"ssh\"", "sc5.ports"),
        ("ports = [\"no-such-service\"]", "sc5.ports"),
        ("ports = [1, 2, 3, 4, 5]", "sc5.ports"),
        ("exempt = \"192.0.2.0/24\"", "sc5.exempt"),
        ("exempt = [\"192.0.2.1/24\"]", "sc5.exempt"),
        ("exempt = [\"example.org\"]", "sc5.exempt"),
        ("exempt_administrators = 1", "sc5.exempt_administrators"),
        ("maxretry = 5", "maxretry"),
    ] {
        let error = parse(wrong).unwrap_err().to_string();
        assert!(error.contains(key), "{wrong}: {error}");
        assert!(error.contains("p.toml:3"), "{wrong}: {error}");
    }
}

#[test]
fn a_drop_without_a_filter_is_a_warning() {
    let loaded = parse("spray = \"drop\"").unwrap();
    assert!(
        loaded.warnings.iter().any(|warning| warning.to_string().contains("set enabled = true in [filter]"))
    );
    assert!(parse("local = \"refuse\"").unwrap().warnings.is_empty());
}
