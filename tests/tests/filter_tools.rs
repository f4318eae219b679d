//! Outside tools against the filter: nmap, scapy, medusa, fail2ban, and frames made by hand.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::io::Write;
use std::path::Path;

use portcullis_tests::drops::{CONFIG, ON, drop_net, dropped, hosts, serve};
use portcullis_tests::frames;
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::siege::{Logon, Siege, is_dropped, source};
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::system::{password, portcullis, run, wait_for, write};
use portcullis_tests::wire::Host;

#[test]
fn nmap_from_a_dropped_host_sees_nothing() {
    if !enter("nmap_from_a_dropped_host_sees_nothing", &ON) {
        return;
    }
    let (attacker, innocent) = hosts().unwrap();
    serve(8080).unwrap();
    let scan = |host: &Host| {
        let here = host.here[0].to_string();
        let arguments = ["-n", "-Pn", "-p8080,8081", "--max-retries=0", "--host-timeout=20s", here.as_str()];
        host.run("nmap", &arguments).unwrap().1
    };
    drop_net(&["10.9.1.2"]).unwrap();
    let seen = scan(&attacker);
    assert!(seen.contains("8080/tcp filtered") && seen.contains("8081/tcp filtered"), "{seen}");
    let seen = scan(&innocent);
    assert!(seen.contains("8080/tcp open") && seen.contains("8081/tcp closed"), "{seen}");
}

#[test]
fn odd_packets_of_a_dropped_source_are_dropped() {
    if !enter("odd_packets_of_a_dropped_source_are_dropped", &ON) {
        return;
    }
    let (attacker, _) = hosts().unwrap();
    let (four, six): ([u8; 4], [u8; 16]) =
        ([10, 9, 1, 2], "2001:db8:1::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
    let mut mapped = [0; 16];
    mapped[10..].copy_from_slice(&[0xff, 0xff, 10, 9, 1, 2]);
    let to_six = "2001:db8:1::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
    let to_four = [10, 9, 1, 1];
    let with = |tags: &[u16], kind, packet: Vec<u8>| [frames::ethernet(tags, kind), packet].concat();
    let options = || vec![0, 1, 4, 0, 0, 0, 0];
    let odd = |four: [u8; 4], six: [u8; 16]| {
        let mut all = vec![
            with(&[], 0x0800, frames::ipv4(four, to_four, 0, 0, 9)),
            with(&[], 0x0800, frames::ipv4(four, to_four, 0, 10, 9)),
            // First, later and last fragments.
            with(&[], 0x0800, frames::ipv4(four, to_four, 0x2000, 0, 9)),
            with(&[], 0x0800, frames::ipv4(four, to_four, 0x2001, 0, 9)),
            with(&[], 0x0800, frames::ipv4(four, to_four, 0x1fff, 0, 9)),
            // VLAN tags: one and two.
            with(&[0x8100], 0x0800, frames::ipv4(four, to_four, 0, 0, 9)),
            with(&[0x88a8, 0x8100], 0x0800, frames::ipv4(four, to_four, 0, 0, 9)),
            with(&[0x8100], 0x86dd, frames::ipv6(six, to_six, &[], 9)),
            with(&[], 0x86dd, frames::ipv6(six, to_six, &[], 9)),
            with(&[], 0x86dd, frames::ipv6(six, to_six, &[(0, options()), (60, options())], 9)),
            with(&[], 0x86dd, frames::ipv6(six, to_six, &[(44, vec![0, 0xff, 0xf9, 0, 0, 0, 1])], 9)),
            with(&[], 0x86dd, frames::ipv6(six, to_six, &vec![(60, options()); 12], 9)),
            // Cut behind the addresses.
            with(&[], 0x0800, frames::ipv4(four, to_four, 0, 0, 9).into_iter().take(20).collect()),
            with(&[], 0x86dd, frames::ipv6(six, to_six, &[(0, options())], 9).into_iter().take(41).collect()),
        ];
        all.push(with(&[], 0x86dd, frames::ipv6(mapped, to_six, &[], 9)));
        all
    };
    let frames_of_it = odd(four, six);
    let count = frames_of_it.len() as u64;
    // Nothing else of it is on the wire: its own pings and neighbours would count too.
    assert!(attacker.run("ip", &["addr", "flush", "dev", "e0"]).unwrap().0);
    drop_net(&["10.9.1.2", "2001:db8:1::2", "--force"]).unwrap();
    let before = dropped().unwrap();
    attacker.inside(move || frames::send(&frames_of_it)).unwrap().unwrap();
    wait_for("the frames", 10, || Ok(dropped().unwrap() >= before + count)).unwrap();
    assert_eq!(dropped().unwrap(), before + count);
    // The same of others go on, but for the one that says it is the attacker.
    let others = odd([10, 9, 1, 3], "2001:db8:5::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
    let passed = || portcullis(&["status"]).unwrap()["filter"]["packets"][0][1].as_u64().unwrap();
    let (before, seen) = (dropped().unwrap(), passed());
    attacker.inside(move || frames::send(&others)).unwrap().unwrap();
    wait_for("the frames", 10, || Ok(passed() >= seen + count - 1)).unwrap();
    assert_eq!(dropped().unwrap(), before + 1);
}

/// What scapy's packets are made by.
const ODD: &str = include_str!("../src/odd.py");

#[test]
fn what_scapy_sends_of_a_dropped_source_is_dropped_and_of_no_other() {
    if !enter("what_scapy_sends_of_a_dropped_source_is_dropped_and_of_no_other", &ON) {
        return;
    }
    let (attacker, _) = hosts().unwrap();
    write(Path::new("/root/odd.py"), ODD).unwrap();
    let send = |four: &str, six: &str| {
        let arguments = ["/root/odd.py", four, six, "10.9.1.1", "2001:db8:1::1"];
        let (done, text) = attacker.run("python3", &arguments).unwrap();
        assert!(done, "{text}");
        text.trim().parse::<u64>().unwrap()
    };
    // Nothing else of it is on the wire: its own neighbour discovery would count too.
    assert!(attacker.run("ip", &["addr", "flush", "dev", "e0"]).unwrap().0);
    drop_net(&["10.9.1.2", "2001:db8:1::2/128"]).unwrap();
    let before = dropped().unwrap();
    let count = send("10.9.1.2", "2001:db8:1::2");
    assert!(count > 60, "{count}");
    wait_for("the packets", 20, || Ok(dropped()? >= before + count)).unwrap();
    assert_eq!(dropped().unwrap(), before + count, "each of them and nothing else");
    // The same of its neighbours goes on, all of it.
    let passed = || Ok(portcullis(&["status"])?["filter"]["packets"][0][1].as_u64().unwrap());
    let seen = passed().unwrap();
    assert_eq!(send("10.9.1.3", "2001:db8:1::3"), count);
    wait_for("the packets", 20, || Ok(passed()? >= seen + count)).unwrap();
    assert_eq!(dropped().unwrap(), before + count);
}

#[test]
fn medusa_is_dropped_at_its_fourth_guess_and_an_innocent_host_logs_on() {
    let config =
        CONFIG.to_owned() + "[default]\ndeny = 3\nscope = \"pair\"\n[sc5]\nguess = \"drop\"\ndeny = 4\n";
    let setup = Setup { config: Some(&config), no_agent: false, bare: false };
    if !enter("medusa_is_dropped_at_its_fourth_guess_and_an_innocent_host_logs_on", &setup) {
        return;
    }
    without_delays().unwrap();
    let siege = Siege::begin().unwrap();
    let right = password("jon");
    // The right one is the last of twenty: who is not stopped gets in.
    let words: String = (0..19).map(|n| format!("wrong-{n}\n")).chain([right.clone() + "\n"]).collect();
    write(Path::new("/root/words"), &words).unwrap();
    let here = siege.attacker.here[0].to_string();
    let guess = |host: &Host, list: &str, here: &str| {
        let limit = ["timeout", "90"];
        let tool = [
            "medusa", "-h", here, "-n", "2323", "-u", "jon", "-P", list, "-M", "ssh", "-t", "1", "-f", "-g",
            "2", "-R", "1",
        ];
        let arguments: Vec<&str> = limit[1..].iter().chain(&tool).copied().collect();
        host.run(limit[0], &arguments).unwrap().1
    };
    let seen = guess(&siege.attacker, "/root/words", &here);
    println!("{seen}");
    siege.wait_dropped(true).unwrap();
    assert!(seen.contains("wrong-2") && !seen.contains("[SUCCESS]"), "{seen}");
    assert!(!siege.attacker.pings().unwrap());
    let row = source(siege.attacker.addresses[0]).unwrap();
    assert_eq!((&row["answered"], &row["class"]), (&true.into(), &"guess".into()), "{row}");
    let failures = portcullis(&["explain", "jon"]).unwrap()["row"]["failures"].as_u64().unwrap();
    assert!(failures <= 3, "no more than three were checked: {failures}");
    // The tool gets in where it has the password and is not dropped.
    write(Path::new("/root/right"), &(right.clone() + "\n")).unwrap();
    let seen = guess(&siege.innocent, "/root/right", &siege.innocent.here[0].to_string());
    assert!(seen.contains("[SUCCESS]"), "{seen}");
    assert_eq!(siege.logon(&siege.innocent, "jon", &right).unwrap(), Logon::LetIn);
}

#[test]
fn fail2ban_drops_and_lets_go_by_the_action_file() {
    const ACTION: &str = include_str!("../../packaging/fail2ban/action.d/portcullis.conf");
    if !enter("fail2ban_drops_and_lets_go_by_the_action_file", &ON) {
        return;
    }
    let (attacker, innocent) = hosts().unwrap();
    write(Path::new("/etc/fail2ban/action.d/portcullis.conf"), ACTION).unwrap();
    write(
        Path::new("/etc/fail2ban/filter.d/web.conf"),
        "[Definition]\nfailregex = ^ wrong password from <HOST>$\n",
    )
    .unwrap();
    // Debian's own jail reads a log that is not there.
    let jail = "[DEFAULT]\nbackend = polling\nusedns = no\n[web]\nenabled = true\nfilter = web\nlogpath = /var/log/web.log\n\
                maxretry = 3\nfindtime = 600\nbantime = 1h\naction = portcullis\n";
    write(Path::new("/etc/fail2ban/jail.d/defaults-debian.conf"), jail).unwrap();
    write(Path::new("/var/log/web.log"), "").unwrap();
    std::fs::create_dir_all("/run/fail2ban").unwrap();
    must("fail2ban-client", &["start"]).unwrap();
    must("fail2ban-client", &["status", "web"]).unwrap();
    let fail = |address: &str, times: usize| {
        let mut log = std::fs::OpenOptions::new().append(true).open("/var/log/web.log").unwrap();
        for _ in 0..times {
            let (_, now) = run("date", &["+%Y-%m-%d %H:%M:%S"]).unwrap();
            writeln!(log, "{} wrong password from {address}", now.trim()).unwrap();
        }
    };
    let address = attacker.addresses[0];
    let banned = |is: bool| {
        let what = if is { "fail2ban's drop" } else { "the end of fail2ban's drop" };
        wait_for(what, 60, || Ok(is_dropped(address)? == is)).unwrap();
    };
    fail("10.9.2.2", 2);
    fail("10.9.1.2", 3);
    banned(true);
    let drops = portcullis(&["drops"]).unwrap();
    assert_eq!(drops.as_array().unwrap().len(), 1, "two failures are none too many: {drops}");
    assert_eq!(
        (&drops[0]["reason"], &drops[0]["cause"]),
        (&"fail2ban: web".into(), &"reported".into()),
        "{drops}"
    );
    assert_ne!(drops[0]["until"], "never");
    assert!(!attacker.pings().unwrap());
    assert!(innocent.pings().unwrap());
    must("fail2ban-client", &["set", "web", "unbanip", "10.9.1.2"]).unwrap();
    banned(false);
    assert!(attacker.pings().unwrap());
    // By hand, for a short time: it ends with the ban.
    must("fail2ban-client", &["set", "web", "bantime", "3"]).unwrap();
    must("fail2ban-client", &["set", "web", "banip", "10.9.1.2"]).unwrap();
    banned(true);
    banned(false);
    must("fail2ban-client", &["stop"]).unwrap();
}
