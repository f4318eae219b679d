//! Where the filter hangs: interfaces that come and go, XDP, nftables, off and on by a reload.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use portcullis_tests::agent;
use portcullis_tests::drops::{CONFIG, ON, drop_net, filtered, hosts, places, serve, start_agent};
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::stack::must;
use portcullis_tests::system::{portcullis, run, wait_for};
use portcullis_tests::wire::Host;

#[test]
fn interfaces_that_come_and_go_get_and_lose_the_filter() {
    if !enter("interfaces_that_come_and_go_get_and_lose_the_filter", &ON) {
        return;
    }
    drop_net(&["10.9.1.2"]).unwrap();
    assert_eq!(places().unwrap(), serde_json::json!([]));
    let attacker = Host::new("attacker", 1).unwrap();
    filtered(&attacker, "tcx").unwrap();
    assert!(!attacker.pings().unwrap());
    assert!(attacker.pings_at(attacker.here[1]).unwrap(), "the wire works");
    assert!(run("ip", &["link", "del", &attacker.interface]).unwrap().0);
    wait_for("the interface's end", 10, || Ok(places().unwrap() == serde_json::json!([]))).unwrap();
    let links = std::fs::read_dir("/sys/fs/bpf/portcullis/filter-v1").unwrap();
    let left: Vec<_> = links
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().starts_with("tc-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_address_or_gateway_that_comes_later_is_let_go() {
    let config = CONFIG.to_owned() + "[sc5]\nguess = \"drop\"\ndeny = 2\n";
    let setup = Setup { config: Some(&config), no_agent: false, bare: false };
    if !enter("an_address_or_gateway_that_comes_later_is_let_go", &setup) {
        return;
    }
    let (attacker, _) = hosts().unwrap();
    let dropped =
        |net: &str| Ok(portcullis(&["drops"])?.as_array().unwrap().iter().any(|drop| drop["net"] == net));
    let report = || {
        for _ in 0..2 {
            must("portcullis", &["report", "--source", "10.9.1.70", "--service", "web"]).unwrap();
        }
    };
    report();
    wait_for("the policy's drop", 10, || dropped("10.9.1.70")).unwrap();
    drop_net(&["--reported", "10.9.1.71", "10.9.1.2"]).unwrap();
    drop_net(&["10.9.1.72", "10.9.1.73"]).unwrap();
    assert!(!attacker.pings().unwrap());
    for address in ["10.9.1.70", "10.9.1.71", "10.9.1.72"] {
        must("ip", &["addr", "add", &format!("{address}/32"), "dev", "lo"]).unwrap();
    }
    for net in ["10.9.1.70", "10.9.1.71"] {
        wait_for("the end of the drop", 10, || Ok(!dropped(net)?)).unwrap();
    }
    must("ip", &["route", "add", "default", "via", "10.9.1.2"]).unwrap();
    wait_for("the end of the gateway's drop", 10, || Ok(!dropped("10.9.1.2")?)).unwrap();
    assert!(attacker.pings().unwrap());
    for net in ["10.9.1.72", "10.9.1.73"] {
        assert!(dropped(net).unwrap(), "an administrator's own word: {net}");
    }
    // The policy knows it too, and answers no more.
    assert_eq!(portcullis(&["explain", "10.9.1.70"]).unwrap()["answered"], false);
    report();
    let exempt = || Ok(run("portcullis", &["events"])?.1.contains("source_exempt"));
    wait_for("the word that it is exempt", 10, exempt).unwrap();
    assert!(!dropped("10.9.1.70").unwrap());
}

#[test]
fn without_the_word_nothing_is_attached_and_a_reload_turns_it_on_and_off() {
    let setup = Setup { config: Some("break_glass = \"admin\"\n"), no_agent: false, bare: false };
    if !enter("without_the_word_nothing_is_attached_and_a_reload_turns_it_on_and_off", &setup) {
        return;
    }
    let attacker = Host::new("attacker", 1).unwrap();
    wait_for("the wire", 10, || attacker.pings()).unwrap();
    let (done, text) = run("portcullis", &["drop", "10.9.1.2"]).unwrap();
    assert!(!done && text.contains("the filter is off: set `enabled = true` in [filter]"), "{text}");
    assert!(!std::path::Path::new("/sys/fs/bpf/portcullis/filter-v1").exists());
    std::fs::write("/etc/portcullis/portcullis.toml", CONFIG).unwrap();
    assert!(run("portcullis", &["reload"]).unwrap().0);
    filtered(&attacker, "tcx").unwrap();
    drop_net(&["10.9.1.2"]).unwrap();
    assert!(!attacker.pings().unwrap());
    std::fs::write("/etc/portcullis/portcullis.toml", "break_glass = \"admin\"\n").unwrap();
    assert!(run("portcullis", &["reload"]).unwrap().0);
    wait_for("the filter's end", 10, || attacker.pings()).unwrap();
    wait_for("its pins' end", 10, || Ok(!std::path::Path::new("/sys/fs/bpf/portcullis/filter-v1").exists()))
        .unwrap();
}

#[test]
fn xdp_drops_where_the_configuration_names_it_and_replaces_nobody() {
    let config = format!("{CONFIG}xdp = [\"v-attacker\", \"v-innocent\"]\n");
    let setup = Setup { config: Some(&config), no_agent: false, bare: false };
    if !enter("xdp_drops_where_the_configuration_names_it_and_replaces_nobody", &setup) {
        return;
    }
    let attacker = Host::new("attacker", 1).unwrap();
    filtered(&attacker, "xdp").unwrap();
    wait_for("the wire", 10, || attacker.pings()).unwrap();
    drop_net(&["10.9.1.0/24", "--force"]).unwrap();
    assert!(!attacker.pings().unwrap());
    assert!(attacker.pings_at(attacker.here[1]).unwrap());
    // The agent's next start finds its own link.
    agent::kill_9().unwrap();
    // Somebody else's program comes first on the other wire.
    let innocent = Host::new("innocent", 2).unwrap();
    let foreign = foreign_xdp(&innocent.interface);
    start_agent().unwrap();
    filtered(&attacker, "xdp").unwrap();
    assert!(!attacker.pings().unwrap());
    filtered(&innocent, "tcx").unwrap();
    let places = places().unwrap();
    let place = places.as_array().unwrap().iter().find(|place| place["name"] == "v-innocent").unwrap();
    let problem = place["problem"].as_str().unwrap();
    assert!(problem.contains("is attached already, and is left alone"), "{problem}");
    assert!(run("ip", &["-d", "link", "show", "v-innocent"]).unwrap().1.contains(&foreign), "it is gone");
    drop_net(&["10.9.2.2"]).unwrap();
    assert!(!innocent.pings().unwrap(), "the classifier drops there");
}

/// Attaches an XDP program that is nobody's but the test's; returns how ip(8) shows it.
fn foreign_xdp(interface: &str) -> String {
    use portcullis_agent::filter::load;
    let mut programs = load::load(load::OBJECT).unwrap();
    let index = std::fs::read_to_string(format!("/sys/class/net/{interface}/ifindex")).unwrap();
    let program = programs.xdp().unwrap();
    program.attach_to_if_index(index.trim().parse().unwrap(), Default::default()).unwrap();
    // It stays until the test ends.
    std::mem::forget(programs);
    let (_, text) = run("ip", &["-d", "link", "show", interface]).unwrap();
    let at = text.find("prog/xdp id ").unwrap();
    text[at..].split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

#[test]
fn nftables_drop_where_they_are_asked_for() {
    let config = format!("{CONFIG}backend = \"nft\"\n");
    let setup = Setup { config: Some(&config), no_agent: false, bare: false };
    if !enter("nftables_drop_where_they_are_asked_for", &setup) {
        return;
    }
    let (attacker, innocent) = (Host::new("attacker", 1).unwrap(), Host::new("innocent", 2).unwrap());
    for host in [&attacker, &innocent] {
        filtered(host, "nft").unwrap();
        wait_for("the wire", 10, || host.pings()).unwrap();
    }
    serve(8080).unwrap();
    // Somebody else's table stays as it is.
    assert!(run("nft", &["add", "table", "inet", "other"]).unwrap().0);
    drop_net(&["10.9.1.2", "--for", "1h"]).unwrap();
    drop_net(&["10.9.1.0/24", "--port", "8080", "--force"]).unwrap();
    drop_net(&["2001:db8:1::/48", "--force"]).unwrap();
    assert!(!attacker.pings().unwrap() && !attacker.pings_at(attacker.here[1]).unwrap());
    assert!(innocent.pings().unwrap() && innocent.gets(8080).unwrap());
    // Again, for another time: it takes the place of the first.
    drop_net(&["10.9.1.2", "--for", "2h"]).unwrap();
    assert!(run("portcullis", &["undrop", "10.9.1.2"]).unwrap().0);
    assert!(attacker.pings().unwrap() && !attacker.gets(8080).unwrap(), "the lease for a port is left");
    assert!(attacker.run("ip", &["addr", "add", "10.9.1.9/24", "dev", "e0"]).unwrap().0);
    drop_net(&["10.9.0.0/16", "--force"]).unwrap();
    let here = attacker.here[0].to_string();
    assert!(attacker.run("ping", &["-n", "-c1", "-W1", "-I", "10.9.1.9", &here]).unwrap().0, "it is allowed");
    assert!(!innocent.pings().unwrap());
    assert!(run("portcullis", &["undrop", "10.9.0.0/16"]).unwrap().0);
    drop_net(&["10.9.2.2", "--for", "5s"]).unwrap();
    agent::kill_9().unwrap();
    assert!(!innocent.pings().unwrap() && !attacker.gets(8080).unwrap());
    wait_for("the end of the lease", 10, || innocent.pings()).unwrap();
    start_agent().unwrap();
    let list: String = (0..20_000_u32).map(|n| format!("11.0.{}.{}\n", n >> 8, n & 255)).collect();
    std::fs::write("/root/list", list).unwrap();
    drop_net(&["--file", "/root/list"]).unwrap();
    assert!(!attacker.gets(8080).unwrap(), "given back by the store");
    std::fs::write("/etc/portcullis/portcullis.toml", "break_glass = \"admin\"\n").unwrap();
    assert!(run("portcullis", &["reload"]).unwrap().0);
    wait_for("the filter's end", 10, || attacker.gets(8080)).unwrap();
    let tables = run("nft", &["list", "tables"]).unwrap().1;
    assert!(tables.contains("other") && !tables.contains("portcullis"), "{tables}");
}
