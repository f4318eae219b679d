//! Interfaces that are not as the configuration wishes: missing, without XDP in the driver, with programs of others.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use portcullis_tests::bpf::attach_foreign;
use portcullis_tests::drops::{CONFIG, ON, drop_net, filtered, hosts, places};
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::stack::must;
use portcullis_tests::system::{run, wait_for, write};
use portcullis_tests::wire::Host;
use serde_json::Value;

const FILE: &str = "/etc/portcullis/portcullis.toml";

/// What `portcullis status` says of an interface.
fn place(name: &str) -> Option<Value> {
    places().unwrap().as_array().unwrap().iter().find(|place| place["name"] == name).cloned()
}

#[test]
fn an_interface_that_is_named_and_missing_is_waited_for() {
    let config = format!("{CONFIG}interfaces = [\"v-late\", \"v-never\"]\n");
    let setup = Setup { config: Some(&config), no_agent: false, bare: false };
    if !enter("an_interface_that_is_named_and_missing_is_waited_for", &setup) {
        return;
    }
    let status = must("portcullis", &["status"]).unwrap();
    assert!(status.contains("filter         on no interface"), "{status}");
    assert!(status.contains("waits for v-late, v-never"), "{status}");
    let (_, text) = run("portcullis", &["doctor"]).unwrap();
    assert!(
        text.contains("v-never") && text.contains("not there: it is filtered as soon as it comes"),
        "{text}"
    );
    assert!(text.contains("correct its name in [filter]"), "{text}");
    drop_net(&["10.9.1.2", "10.9.2.2"]).unwrap();
    let other = Host::new("other", 2).unwrap();
    let late = Host::new("late", 1).unwrap();
    filtered(&late, "tcx").unwrap();
    assert!(!late.pings().unwrap() && late.pings_at(late.here[1]).unwrap());
    wait_for("the other wire", 10, || other.pings()).unwrap();
    assert_eq!(place("v-other"), None);
    let status = must("portcullis", &["status"]).unwrap();
    assert!(status.contains("waits for v-never"), "{status}");
}

#[test]
fn without_xdp_in_the_driver_the_classifier_drops_and_says_so() {
    let config = format!("{CONFIG}interfaces = [\"shared\"]\nxdp = [\"shared\"]\n");
    let setup = Setup { config: Some(&config), no_agent: false, bare: false };
    if !enter("without_xdp_in_the_driver_the_classifier_drops_and_says_so", &setup) {
        return;
    }
    // A bridge's driver has none.
    let attacker = Host::new("attacker", 1).unwrap().on_bridge(2).unwrap();
    let innocent = Host::new("innocent", 2).unwrap().on_bridge(3).unwrap();
    wait_for("the filter", 10, || Ok(place("shared").is_some_and(|place| place["hook"] == "tcx"))).unwrap();
    let problem = place("shared").unwrap()["problem"].as_str().unwrap().to_owned();
    assert!(problem.starts_with("no XDP, the classifier is used: "), "{problem}");
    let (_, doctor) = run("portcullis", &["doctor"]).unwrap();
    assert!(doctor.contains("no XDP, the classifier is used") && doctor.contains("filter.xdp"), "{doctor}");
    for host in [&attacker, &innocent] {
        wait_for("the wire", 10, || host.pings()).unwrap();
    }
    drop_net(&["2001:db8:77::2/128"]).unwrap();
    assert!(!attacker.pings().unwrap() && innocent.pings().unwrap());
    // On request, without the driver.
    write(std::path::Path::new(FILE), &format!("{config}xdp_mode = \"generic\"\n")).unwrap();
    must("portcullis", &["reload"]).unwrap();
    wait_for("generic XDP", 10, || Ok(place("shared").is_some_and(|place| place["hook"] == "xdp-generic")))
        .unwrap();
    assert_eq!(place("shared").unwrap()["problem"], Value::Null);
    assert!(!attacker.pings().unwrap() && innocent.pings().unwrap());
}

#[test]
fn xdp_comes_and_goes_with_a_reload() {
    if !enter("xdp_comes_and_goes_with_a_reload", &ON) {
        return;
    }
    let (attacker, innocent) = hosts().unwrap();
    drop_net(&["10.9.1.2"]).unwrap();
    for (more, hook) in [
        ("xdp = [\"v-attacker\"]\n", "xdp"),
        ("xdp = [\"v-attacker\"]\nxdp_mode = \"generic\"\n", "xdp-generic"),
        ("", "tcx"),
    ] {
        write(std::path::Path::new(FILE), &format!("{CONFIG}{more}")).unwrap();
        must("portcullis", &["reload"]).unwrap();
        filtered(&attacker, hook).unwrap();
        assert_eq!(place("v-attacker").unwrap()["problem"], Value::Null);
        assert_eq!(place("v-innocent").unwrap()["hook"], "tcx");
        assert!(!attacker.pings().unwrap() && innocent.pings().unwrap(), "{hook}");
    }
}

#[test]
fn a_tcx_program_of_others_stays_and_one_before_ours_is_told() {
    if !enter("a_tcx_program_of_others_stays_and_one_before_ours_is_told", &ON) {
        return;
    }
    let (attacker, innocent) = hosts().unwrap();
    drop_net(&["10.9.1.2", "10.9.2.2"]).unwrap();
    let problem = |name| place(name).unwrap()["problem"].clone();
    // Behind ours: it gets what the filter lets through.
    let behind = attach_foreign(&attacker.interface, false).unwrap();
    assert!(!attacker.pings().unwrap());
    assert_eq!(problem("v-attacker"), Value::Null);
    // Attached again, the filter is first again, and who is there already stays.
    must("ip", &["link", "add", "name", "v-own", "type", "veth", "peer", "name", "v-peer"]).unwrap();
    wait_for("the filter", 10, || Ok(place("v-own").is_some())).unwrap();
    drop(behind);
    // Before ours: TC_ACT_OK ends the chain. That is said, not fought over.
    let before = attach_foreign(&innocent.interface, true).unwrap();
    assert!(innocent.pings().unwrap(), "the kernel asks nobody after it");
    let words = problem("v-innocent");
    let words = words.as_str().unwrap();
    assert!(words.contains("was put before the filter: what it lets through is not dropped"), "{words}");
    let (done, doctor) = run("portcullis", &["doctor"]).unwrap();
    assert!(
        !done && doctor.contains("was put before the filter") && doctor.contains("attach it behind"),
        "{doctor}"
    );
    drop(before);
    assert!(!innocent.pings().unwrap());
    assert_eq!(problem("v-innocent"), Value::Null);
}

#[test]
fn a_tcx_program_that_was_there_first_comes_second() {
    let off = CONFIG.replace("enabled = true", "enabled = false");
    let setup = Setup { config: Some(&off), no_agent: false, bare: false };
    if !enter("a_tcx_program_that_was_there_first_comes_second", &setup) {
        return;
    }
    let attacker = Host::new("attacker", 1).unwrap();
    let _first = attach_foreign(&attacker.interface, false).unwrap();
    wait_for("the wire", 10, || attacker.pings()).unwrap();
    write(std::path::Path::new(FILE), CONFIG).unwrap();
    must("portcullis", &["reload"]).unwrap();
    filtered(&attacker, "tcx").unwrap();
    drop_net(&["10.9.1.2"]).unwrap();
    assert!(!attacker.pings().unwrap(), "ours is asked first");
    assert_eq!(place("v-attacker").unwrap()["problem"], Value::Null);
}
