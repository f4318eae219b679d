//! The filter on the wire: an attacker and an innocent behind veth pairs, real ping, curl, ssh and nmap.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::ssh::Sshd;
use portcullis_tests::system::{portcullis, run, wait_for};
use portcullis_tests::wire::Host;
use portcullis_tests::{agent, frames};
use serde_json::Value;

const CONFIG: &str =
    "break_glass = \"admin\"\n[filter]\nenabled = true\nallow = [\"10.9.1.9/32\", \"2001:db8:7::/64\"]\n";
const ON: Setup<'static> = Setup { config: Some(CONFIG), no_agent: false, bare: false };

/// A page for everybody.
fn serve(port: u16) {
    let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nok\n");
        }
    });
}

/// Both hosts, with the filter on their interfaces.
fn hosts() -> (Host, Host) {
    let (attacker, innocent) = (Host::new("attacker", 1).unwrap(), Host::new("innocent", 2).unwrap());
    for host in [&attacker, &innocent] {
        filtered(host, "tcx");
        wait_for("the wire", 10, || host.pings()).unwrap();
    }
    (attacker, innocent)
}

fn places() -> Value {
    portcullis(&["status"]).unwrap()["filter"]["interfaces"].clone()
}

fn filtered(host: &Host, hook: &str) {
    wait_for("the filter on the interface", 10, || {
        let places = places();
        let place = places.as_array().unwrap().iter().find(|place| place["name"] == host.interface.as_str());
        Ok(place.is_some_and(|place| place["hook"] == hook))
    })
    .unwrap();
}

fn drop_net(arguments: &[&str]) -> String {
    let all: Vec<&str> = ["drop"].iter().chain(arguments).copied().collect();
    let (done, text) = run("portcullis", &all).unwrap();
    assert!(done, "{text}");
    text
}

/// The agent again; its end is the sandbox's.
#[allow(clippy::zombie_processes, reason = "it is killed with the sandbox")]
fn start_agent() {
    agent::start().unwrap();
}

/// What the kernel dropped for administrators.
fn dropped() -> u64 {
    portcullis(&["status"]).unwrap()["filter"]["dropped"][0][1].as_u64().unwrap()
}

#[test]
fn a_dropped_source_is_gone_and_an_innocent_one_stays() {
    if !enter("a_dropped_source_is_gone_and_an_innocent_one_stays", &ON) {
        return;
    }
    let (attacker, innocent) = hosts();
    serve(8080);
    let _sshd = Sshd::start(2222, "ListenAddress 10.9.1.1\nListenAddress 10.9.2.1\nMaxStartups 100").unwrap();
    let ssh = |host: &Host| {
        let target = format!("kon@{}", host.here[0]);
        let options = ["-p2222", "-oConnectTimeout=1", "-oBatchMode=yes", "-oStrictHostKeyChecking=no"];
        let arguments: Vec<&str> = options.into_iter().chain([target.as_str(), "true"]).collect();
        // Without a key it is refused, by sshd: it was there.
        host.run("ssh", &arguments).unwrap().1.contains("Permission denied")
    };
    let reaches = |host: &Host| {
        [host.pings().unwrap(), host.pings_at(host.here[1]).unwrap(), host.gets(8080).unwrap(), ssh(host)]
    };
    assert_eq!(reaches(&attacker), [true; 4]);
    assert_eq!(reaches(&innocent), [true; 4]);
    let text = drop_net(&["10.9.1.2", "--reason", "a test"]);
    assert!(text.contains("10.9.1.2 is dropped until `portcullis undrop 10.9.1.2`"), "{text}");
    assert_eq!(reaches(&attacker), [false, true, false, false], "one address of it is dropped");
    drop_net(&["2001:db8:1::2", "--force"]);
    assert_eq!(reaches(&attacker), [false; 4]);
    assert_eq!(reaches(&innocent), [true; 4]);
    let drops = portcullis(&["drops"]).unwrap();
    assert_eq!((&drops[0]["net"], &drops[1]["net"]), (&"10.9.1.2".into(), &"2001:db8:1::/64".into()));
    assert!(drops[0]["packets"].as_u64().unwrap() >= 3, "{drops}");
    assert_eq!(drops[0]["reason"], "a test");
    for net in ["10.9.1.2", "2001:db8:1::/64"] {
        assert!(run("portcullis", &["undrop", net]).unwrap().0);
    }
    assert_eq!(reaches(&attacker), [true; 4]);
    // A lease for one port leaves the rest alone.
    drop_net(&["10.9.1.0/24", "--port", "2222", "--force"]);
    assert_eq!(reaches(&attacker), [true, true, true, false]);
}

#[test]
fn nmap_from_a_dropped_host_sees_nothing() {
    if !enter("nmap_from_a_dropped_host_sees_nothing", &ON) {
        return;
    }
    let (attacker, innocent) = hosts();
    serve(8080);
    let scan = |host: &Host| {
        let here = host.here[0].to_string();
        let arguments = ["-n", "-Pn", "-p8080,8081", "--max-retries=0", "--host-timeout=20s", here.as_str()];
        host.run("nmap", &arguments).unwrap().1
    };
    drop_net(&["10.9.1.2"]);
    let seen = scan(&attacker);
    assert!(seen.contains("8080/tcp filtered") && seen.contains("8081/tcp filtered"), "{seen}");
    let seen = scan(&innocent);
    assert!(seen.contains("8080/tcp open") && seen.contains("8081/tcp closed"), "{seen}");
}

#[test]
fn a_drop_outlives_the_agent_and_ends_without_it() {
    if !enter("a_drop_outlives_the_agent_and_ends_without_it", &ON) {
        return;
    }
    let (attacker, innocent) = hosts();
    drop_net(&["10.9.1.2", "--for", "6s"]);
    agent::kill_9().unwrap();
    assert!(!attacker.pings().unwrap(), "the drop went with the agent");
    assert!(innocent.pings().unwrap());
    wait_for("the end of the lease", 10, || attacker.pings()).unwrap();
    // The next one finds what is left, and takes it out.
    start_agent();
    assert_eq!(portcullis(&["drops"]).unwrap(), serde_json::json!([]));
}

#[test]
fn drops_are_kept_over_a_restart_and_come_back_after_a_reboot() {
    if !enter("drops_are_kept_over_a_restart_and_come_back_after_a_reboot", &ON) {
        return;
    }
    let (attacker, innocent) = hosts();
    drop_net(&["10.9.1.2", "--for", "1h", "--reason", "kept"]);
    drop_net(&["2001:db8:1::/48", "--port", "22", "--port", "443", "--force"]);
    let before = portcullis(&["drops"]).unwrap();
    agent::kill_9().unwrap();
    let mut second = agent::start().unwrap();
    assert_eq!(portcullis(&["drops"]).unwrap()[0]["rule"], before[0]["rule"]);
    assert!(!attacker.pings().unwrap());
    second.kill().unwrap();
    second.wait().unwrap();
    // What a reboot takes: programs, maps, links.
    std::fs::remove_dir_all("/sys/fs/bpf/portcullis").unwrap();
    wait_for("the filter's end", 10, || attacker.pings()).unwrap();
    assert!(run("portcullisd", &["gate"]).unwrap().0);
    assert!(!attacker.pings().unwrap(), "the oneshot alone gives drops back");
    assert!(innocent.pings().unwrap());
    start_agent();
    let after = portcullis(&["drops"]).unwrap();
    for place in 0..2 {
        for key in ["net", "ports", "reason", "cause"] {
            assert_eq!(after[place][key], before[place][key], "{key}");
        }
    }
    let minute = |drops: &Value, key: &str| drops[0][key].as_str().unwrap()[..16].to_owned();
    assert_eq!(minute(&after, "since"), minute(&before, "since"));
    assert_eq!(minute(&after, "until"), minute(&before, "until"), "the time left, not the whole time");
}

#[test]
fn an_allow_listed_host_is_never_dropped_on_the_wire() {
    if !enter("an_allow_listed_host_is_never_dropped_on_the_wire", &ON) {
        return;
    }
    let attacker = Host::new("attacker", 1).unwrap();
    let friend = Host::new("friend", 7).unwrap();
    filtered(&attacker, "tcx");
    filtered(&friend, "tcx");
    wait_for("the wire", 10, || Ok(attacker.pings()? && friend.pings_at(friend.here[1])?)).unwrap();
    drop_net(&["10.9.0.0/16", "2001:db8::/32", "--force"]);
    assert!(!attacker.pings().unwrap() && !attacker.pings_at(attacker.here[1]).unwrap());
    assert!(friend.pings_at(friend.here[1]).unwrap(), "its network is on the allow-list");
    assert!(!friend.pings().unwrap(), "its other address is not");
    assert!(attacker.run("ip", &["addr", "add", "10.9.1.9/24", "dev", "e0"]).unwrap().0);
    let here = attacker.here[0].to_string();
    assert!(attacker.run("ping", &["-n", "-c1", "-W1", "-I", "10.9.1.9", &here]).unwrap().0);
    for force in [&["drop", "10.9.1.9"][..], &["drop", "10.9.1.9", "--force"]] {
        let (done, text) = run("portcullis", force).unwrap();
        assert!(!done && text.contains("on the allow-list"), "{text}");
    }
}

#[test]
fn established_connections_of_a_dropped_source_end() {
    if !enter("established_connections_of_a_dropped_source_end", &ON) {
        return;
    }
    let (attacker, innocent) = hosts();
    let listener = TcpListener::bind("0.0.0.0:7000").unwrap();
    let mut clients = Vec::new();
    let mut servers = Vec::new();
    for host in [&attacker, &innocent] {
        let here = host.here[0];
        clients.push(host.inside(move || TcpStream::connect((here, 7000)).unwrap()).unwrap());
        servers.push(listener.accept().unwrap().0);
    }
    let text = drop_net(&["10.9.1.2"]);
    if text.contains("this kernel cannot end them") {
        eprintln!("skipped: no CONFIG_INET_DIAG_DESTROY");
        return;
    }
    assert!(text.contains("1 established connections were ended"), "{text}");
    servers[0].set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let error = servers[0].read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECONNABORTED), "{error}");
    servers[1].write_all(b"x").unwrap();
    let mut byte = [0; 1];
    clients[1].read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x", "the innocent one goes on");
}

#[test]
fn connections_of_an_allow_listed_host_survive_a_drop_around_it() {
    if !enter("connections_of_an_allow_listed_host_survive_a_drop_around_it", &ON) {
        return;
    }
    let friend = Host::new("friend", 1).unwrap();
    filtered(&friend, "tcx");
    wait_for("the wire", 10, || friend.pings()).unwrap();
    assert!(friend.run("ip", &["addr", "del", "10.9.1.2/24", "dev", "e0"]).unwrap().0);
    assert!(friend.run("ip", &["addr", "add", "10.9.1.9/24", "dev", "e0"]).unwrap().0);
    let listener = TcpListener::bind("0.0.0.0:7000").unwrap();
    let here = friend.here[0];
    let mut client = friend.inside(move || TcpStream::connect((here, 7000)).unwrap()).unwrap();
    let (mut server, from) = listener.accept().unwrap();
    assert_eq!(from.ip().to_string(), "10.9.1.9");
    // This host's own 10.9.1.1 lies in it, too.
    let text = drop_net(&["10.9.1.0/24", "--force"]);
    assert!(!text.contains("1 established"), "{text}");
    server.write_all(b"x").unwrap();
    let mut byte = [0; 1];
    client.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x", "it is on the allow-list");
}

#[test]
fn interfaces_that_come_and_go_get_and_lose_the_filter() {
    if !enter("interfaces_that_come_and_go_get_and_lose_the_filter", &ON) {
        return;
    }
    drop_net(&["10.9.1.2"]);
    assert_eq!(places(), serde_json::json!([]));
    let attacker = Host::new("attacker", 1).unwrap();
    filtered(&attacker, "tcx");
    assert!(!attacker.pings().unwrap());
    assert!(attacker.pings_at(attacker.here[1]).unwrap(), "the wire works");
    assert!(run("ip", &["link", "del", &attacker.interface]).unwrap().0);
    wait_for("the interface's end", 10, || Ok(places() == serde_json::json!([]))).unwrap();
    let links = std::fs::read_dir("/sys/fs/bpf/portcullis/filter-v1").unwrap();
    let left: Vec<_> = links
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().starts_with("tc-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_cuts_off_is_refused_and_a_list_is_loaded_line_by_line() {
    if !enter("what_cuts_off_is_refused_and_a_list_is_loaded_line_by_line", &ON) {
        return;
    }
    let (attacker, _) = hosts();
    assert!(run("ip", &["route", "add", "default", "via", "10.9.1.2"]).unwrap().0);
    for (arguments, words) in [
        ("drop 0.0.0.0/0", "that is everybody"),
        ("drop ::/0", "that is everybody"),
        ("drop 127.0.0.1", "the loopback"),
        ("drop 10.9.1.0/24", "10.9.1.2 is a gateway of this host"),
        ("drop 10.9.1.2/33", "length that is none"),
        ("drop example.org", "names are not looked up"),
        ("drop 192.0.2.7 --port 0", "0 is not in 1..=65535"),
        ("drop 192.0.2.7 --for 0s", "0s"),
        ("undrop 192.0.2.7", "is not dropped: see `portcullis drops`"),
    ] {
        let words_of: Vec<&str> = arguments.split(' ').collect();
        let (done, text) = run("portcullis", &words_of).unwrap();
        assert!(!done && text.contains(words), "{arguments}: {text}");
    }
    let own = "SSH_CONNECTION=10.9.2.2 4711 10.9.2.1 22";
    let (done, text) = run("env", &[own, "sh", "-c", "env -i portcullis drop 10.9.2.0/24; exit $?"]).unwrap();
    assert!(!done && text.contains("your own session comes from 10.9.2.2"), "{text}");
    assert_eq!(portcullis(&["drops"]).unwrap(), serde_json::json!([]));
    drop_net(&["10.9.1.2", "--force"]);
    assert!(!attacker.pings().unwrap());
    assert!(run("portcullis", &["undrop", "10.9.1.2"]).unwrap().0);

    let mut list: String =
        (0..100_000).map(|n: u32| format!("11.{}.{}.{}\n", n >> 16, n >> 8 & 255, n & 255)).collect();
    list.push_str("# the last\n11.1.2.300\n10.9.1.2\n");
    std::fs::write("/root/list", &list).unwrap();
    let (done, text) = run("portcullis", &["drop", "--file", "/root/list", "--all-or-none"]).unwrap();
    assert!(
        !done
            && text.contains("/root/list:100002: 11.1.2.300 is no IPv4")
            && text.contains("nothing is dropped"),
        "{text}"
    );
    assert_eq!(portcullis(&["drops"]).unwrap(), serde_json::json!([]));
    std::fs::write("/root/short", list.replace("11.1.2.300", "11.1.2.3")).unwrap();
    let (done, text) = run("portcullis", &["drop", "--file", "/root/short", "--all-or-none"]).unwrap();
    assert!(
        !done && text.contains("/root/short:100003: 10.9.1.2 is not dropped: 10.9.1.2 is a gateway"),
        "{text}"
    );
    assert_eq!(portcullis(&["drops"]).unwrap(), serde_json::json!([]));
    let (done, text) = run("sh", &["-c", "portcullis drop --file - --for 1h < /root/list"]).unwrap();
    assert!(!done && text.contains("-:100002: ") && text.contains("100000 networks are dropped"), "{text}");
    assert_eq!(portcullis(&["drops"]).unwrap().as_array().unwrap().len(), 100_000);
    let (done, text) = run("sh", &["-c", "head -100000 /root/list | portcullis undrop --file -"]).unwrap();
    assert!(done && text.contains("100000 networks are dropped no more"), "{text}");
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
    filtered(&attacker, "tcx");
    drop_net(&["10.9.1.2"]);
    assert!(!attacker.pings().unwrap());
    std::fs::write("/etc/portcullis/portcullis.toml", "break_glass = \"admin\"\n").unwrap();
    assert!(run("portcullis", &["reload"]).unwrap().0);
    wait_for("the filter's end", 10, || attacker.pings()).unwrap();
    wait_for("its pins' end", 10, || Ok(!std::path::Path::new("/sys/fs/bpf/portcullis/filter-v1").exists()))
        .unwrap();
}

#[test]
fn odd_packets_of_a_dropped_source_are_dropped() {
    if !enter("odd_packets_of_a_dropped_source_are_dropped", &ON) {
        return;
    }
    let (attacker, _) = hosts();
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
    drop_net(&["10.9.1.2", "2001:db8:1::2", "--force"]);
    let before = dropped();
    attacker.inside(move || frames::send(&frames_of_it)).unwrap().unwrap();
    wait_for("the frames", 10, || Ok(dropped() >= before + count)).unwrap();
    assert_eq!(dropped(), before + count);
    // The same of others go on, but for the one that says it is the attacker.
    let others = odd([10, 9, 1, 3], "2001:db8:5::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
    let passed = || portcullis(&["status"]).unwrap()["filter"]["packets"][0][1].as_u64().unwrap();
    let (before, seen) = (dropped(), passed());
    attacker.inside(move || frames::send(&others)).unwrap().unwrap();
    wait_for("the frames", 10, || Ok(passed() >= seen + count - 1)).unwrap();
    assert_eq!(dropped(), before + 1);
}

#[test]
fn dropped_packets_are_shown_as_samples() {
    if !enter("dropped_packets_are_shown_as_samples", &ON) {
        return;
    }
    let (attacker, _) = hosts();
    drop_net(&["10.9.1.2"]);
    let mut follow = std::process::Command::new("portcullis")
        .args(["drops", "--follow", "--json"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (sender, lines) = std::sync::mpsc::channel();
    let output = follow.stdout.take().unwrap();
    std::thread::spawn(move || {
        for line in std::io::BufRead::lines(std::io::BufReader::new(output)) {
            let _ = sender.send(line.unwrap());
        }
    });
    let mut found = None;
    // It may not listen yet when the first is dropped.
    wait_for("a sample", 20, || {
        attacker.gets(22)?;
        found = lines.try_recv().ok();
        Ok(found.is_some())
    })
    .unwrap();
    follow.kill().unwrap();
    follow.wait().unwrap();
    let sample: Value = serde_json::from_str(&found.unwrap()).unwrap();
    assert_eq!((&sample["source"], &sample["port"]), (&"10.9.1.2".into(), &22.into()));
    assert_eq!(sample["interface"], attacker.interface.as_str());
    assert!(sample["head"].as_str().unwrap().contains("0a0901020a090101"), "{sample}");
}

#[test]
fn xdp_drops_where_the_configuration_names_it_and_replaces_nobody() {
    let config = format!("{CONFIG}xdp = [\"v-attacker\", \"v-innocent\"]\n");
    let setup = Setup { config: Some(&config), no_agent: false, bare: false };
    if !enter("xdp_drops_where_the_configuration_names_it_and_replaces_nobody", &setup) {
        return;
    }
    let attacker = Host::new("attacker", 1).unwrap();
    filtered(&attacker, "xdp");
    wait_for("the wire", 10, || attacker.pings()).unwrap();
    drop_net(&["10.9.1.0/24", "--force"]);
    assert!(!attacker.pings().unwrap());
    assert!(attacker.pings_at(attacker.here[1]).unwrap());
    // The agent's next start finds its own link.
    agent::kill_9().unwrap();
    // Somebody else's program comes first on the other wire.
    let innocent = Host::new("innocent", 2).unwrap();
    let foreign = foreign_xdp(&innocent.interface);
    start_agent();
    filtered(&attacker, "xdp");
    assert!(!attacker.pings().unwrap());
    filtered(&innocent, "tcx");
    let places = places();
    let place = places.as_array().unwrap().iter().find(|place| place["name"] == "v-innocent").unwrap();
    let problem = place["problem"].as_str().unwrap();
    assert!(problem.contains("is attached already, and is left alone"), "{problem}");
    assert!(run("ip", &["-d", "link", "show", "v-innocent"]).unwrap().1.contains(&foreign), "it is gone");
    drop_net(&["10.9.2.2"]);
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
        filtered(host, "nft");
        wait_for("the wire", 10, || host.pings()).unwrap();
    }
    serve(8080);
    // Somebody else's table stays as it is.
    assert!(run("nft", &["add", "table", "inet", "other"]).unwrap().0);
    drop_net(&["10.9.1.2", "--for", "1h"]);
    drop_net(&["10.9.1.0/24", "--port", "8080", "--force"]);
    drop_net(&["2001:db8:1::/48", "--force"]);
    assert!(!attacker.pings().unwrap() && !attacker.pings_at(attacker.here[1]).unwrap());
    assert!(innocent.pings().unwrap() && innocent.gets(8080).unwrap());
    // Again, for another time: it takes the place of the first.
    drop_net(&["10.9.1.2", "--for", "2h"]);
    assert!(run("portcullis", &["undrop", "10.9.1.2"]).unwrap().0);
    assert!(attacker.pings().unwrap() && !attacker.gets(8080).unwrap(), "the lease for a port is left");
    assert!(attacker.run("ip", &["addr", "add", "10.9.1.9/24", "dev", "e0"]).unwrap().0);
    drop_net(&["10.9.0.0/16", "--force"]);
    let here = attacker.here[0].to_string();
    assert!(attacker.run("ping", &["-n", "-c1", "-W1", "-I", "10.9.1.9", &here]).unwrap().0, "it is allowed");
    assert!(!innocent.pings().unwrap());
    assert!(run("portcullis", &["undrop", "10.9.0.0/16"]).unwrap().0);
    drop_net(&["10.9.2.2", "--for", "5s"]);
    agent::kill_9().unwrap();
    assert!(!innocent.pings().unwrap() && !attacker.gets(8080).unwrap());
    wait_for("the end of the lease", 10, || innocent.pings()).unwrap();
    start_agent();
    let list: String = (0..20_000_u32).map(|n| format!("11.0.{}.{}\n", n >> 8, n & 255)).collect();
    std::fs::write("/root/list", list).unwrap();
    drop_net(&["--file", "/root/list"]);
    assert!(!attacker.gets(8080).unwrap(), "given back by the store");
    std::fs::write("/etc/portcullis/portcullis.toml", "break_glass = \"admin\"\n").unwrap();
    assert!(run("portcullis", &["reload"]).unwrap().0);
    wait_for("the filter's end", 10, || attacker.gets(8080)).unwrap();
    let tables = run("nft", &["list", "tables"]).unwrap().1;
    assert!(tables.contains("other") && !tables.contains("portcullis"), "{tables}");
}
