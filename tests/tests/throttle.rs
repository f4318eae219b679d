//! Throttles on the wire: rates held, shares, leases.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "this is how a test fails, in its helpers too"
)]

use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, socket};
use portcullis_tests::agent;
use portcullis_tests::drops::{CONFIG, ON, filtered, hosts, start_agent};
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::stack::must;
use portcullis_tests::system::{portcullis, run, wait_for};
use portcullis_tests::wire::Host;
use serde_json::Value;

/// What a rate may be off by.
const OFF: f64 = 0.05;

fn throttle(words: &str) -> String {
    let all: Vec<&str> = ["throttle"].into_iter().chain(words.split_whitespace()).collect();
    must("portcullis", &all).unwrap()
}

fn about(found: f64, wanted: f64, off: f64) -> bool {
    (found / wanted - 1.0).abs() <= off
}

/// iperf3 from a host to here; the client's words. Its server is here for this one run.
fn iperf(host: &Host, words: &str) -> Value {
    let mut server = std::process::Command::new("iperf3")
        .args(["-s", "-1", "-p", "5201"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_for("iperf3", 10, || Ok(run("ss", &["-Hltn", "sport = :5201"])?.1.contains("5201"))).unwrap();
    let here = host.here[0].to_string();
    let words: Vec<&str> = ["-c", here.as_str(), "-p", "5201", "-J", "--connect-timeout", "5000"]
        .into_iter()
        .chain(words.split_whitespace())
        .collect();
    let (done, text) = host.run("iperf3", &words).unwrap();
    assert!(done, "{text}");
    server.wait().unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Bits a second that arrived.
fn received(answer: &Value) -> f64 {
    answer["end"]["sum_received"]["bits_per_second"].as_f64().unwrap()
}

/// Counts datagrams that arrive at a port, by source.
struct Sink {
    counts: Arc<[AtomicU64; 256]>,
}

impl Sink {
    fn at(port: u16) -> Self {
        let socket = UdpSocket::bind(("0.0.0.0", port)).unwrap();
        let counts = Arc::new([const { AtomicU64::new(0) }; 256]);
        let into = Arc::clone(&counts);
        std::thread::spawn(move || {
            let mut bytes = [0; 2_048];
            while let Ok((_, from)) = socket.recv_from(&mut bytes) {
                if let IpAddr::V4(address) = from.ip() {
                    // 10.9.NET.2
                    into[usize::from(address.octets()[2])].fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { counts }
    }

    fn from(&self, net: usize) -> u64 {
        self.counts[net].load(Ordering::Relaxed)
    }
}

/// Sends datagrams from a host at a rate, for so long; how many.
fn send(host: &Host, port: u16, rate: u64, time: Duration) -> std::thread::JoinHandle<u64> {
    let (host, here) = (host.clone(), host.here[0]);
    std::thread::spawn(move || {
        host.inside(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            let begin = Instant::now();
            let mut sent = 0;
            while begin.elapsed() < time {
                let due = begin.elapsed().as_micros() as u64 * rate / 1_000_000;
                while sent < due {
                    // A full queue is the sender's own.
                    let _ = socket.send_to(&[7; 100], (here, port));
                    sent += 1;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            sent
        })
        .unwrap()
    })
}

/// Sends so many datagrams at once, and counts those that arrive.
fn at_once(host: &Host, port: u16, count: usize) -> usize {
    let sink = UdpSocket::bind((host.here[0], port)).unwrap();
    sink.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let here = host.here[0];
    host.inside(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for _ in 0..count {
            socket.send_to(&[7; 100], (here, port)).unwrap();
        }
    })
    .unwrap();
    let mut bytes = [0; 128];
    std::iter::from_fn(|| sink.recv(&mut bytes).ok()).take(count).count()
}

#[test]
fn packets_and_bytes_are_held_to_what_was_asked() {
    if !enter("packets_and_bytes_are_held_to_what_was_asked", &ON) {
        return;
    }
    let (attacker, innocent) = hosts().unwrap();
    // Bytes, UDP: 30 of 20 Mbit/s; what iperf3 counts is 1400 of 1442 bytes.
    throttle("10.9.1.2 --rate 20mbit --burst 70k");
    let found = received(&iperf(&attacker, "-u -b 30M -l 1400 -t 5"));
    assert!(about(found, 20e6 * 1400.0 / 1442.0, OFF), "{found} of 20 Mbit/s (UDP)");
    // The same by packets: 1500 of 1000.
    throttle("10.9.1.2 --rate 1000pps --burst 50");
    must("portcullis", &["unthrottle", "10.9.1.2"]).unwrap();
    throttle("10.9.1.2 --rate 1000pps --burst 50");
    let answer = iperf(&attacker, "-u -b 12M -l 1000 -t 5");
    let sum = &answer["end"]["sum"];
    let number = |key: &str| sum[key].as_f64().unwrap();
    assert!(number("packets") > 7_000.0, "{sum}");
    let found = (number("packets") - number("lost_packets")) / number("seconds");
    assert!(about(found, 1_000.0, OFF), "{found} of 1000 packets a second");
    must("portcullis", &["unthrottle", "10.9.1.2"]).unwrap();
    // Bytes, TCP, which finds its own rate below.
    throttle("10.9.1.2 --rate 50mbit");
    let found = received(&iperf(&attacker, "-t 6 -O 2"));
    assert!(about(found, 50e6, OFF), "{found} of 50 Mbit/s (TCP)");
    let free = received(&iperf(&innocent, "-t 1"));
    assert!(free > 200e6, "nobody else is held to it: {free}");
    let shown = portcullis(&["throttles"]).unwrap();
    assert!(shown[0]["limited"].as_u64().unwrap() > 0, "{shown}");
    must("portcullis", &["unthrottle", "10.9.1.2"]).unwrap();
    let free = received(&iperf(&attacker, "-t 1"));
    assert!(free > 200e6, "nor is it any more: {free}");
}

#[test]
fn a_burst_passes_and_no_more() {
    if !enter("a_burst_passes_and_no_more", &ON) {
        return;
    }
    let (attacker, _) = hosts().unwrap();
    for target in ["10.9.1.2", "9000", "v-attacker", "10.9.0.0/16"] {
        throttle(&format!("{target} --rate 1pps --burst 20"));
        let arrived = at_once(&attacker, 9_000, 100);
        // One comes with each second; neighbour discovery may have taken some.
        assert!((17..=22).contains(&arrived), "{target}: {arrived}");
        must("portcullis", &["unthrottle", target]).unwrap();
        assert_eq!(at_once(&attacker, 9_000, 100), 100, "{target}");
    }
    throttle("9000 --rate 1pps --burst 20");
    assert_eq!(at_once(&attacker, 9_001, 100), 100, "another port");
    must("portcullis", &["unthrottle", "9000"]).unwrap();
    // What is around it holds too.
    throttle("10.9.1.2 --rate 1pps --burst 60");
    throttle("10.9.0.0/16 --rate 1pps --burst 30");
    let arrived = at_once(&attacker, 9_000, 100);
    assert!((26..=33).contains(&arrived), "{arrived}");
    let (done, text) = run("portcullis", &["throttle", "10.9.1.9", "--rate", "1pps"]).unwrap();
    assert!(!done && text.contains("allow-list"), "{text}");
    for (target, rate, word) in
        [("lo", "1pps", "interface"), ("22", "fast", "1000pps"), ("22", "0pps", "range")]
    {
        let (done, text) = run("portcullis", &["throttle", target, "--rate", rate]).unwrap();
        assert!(!done && text.contains(word), "{text}");
    }
}

#[test]
fn xdp_holds_to_a_rate_as_the_classifier_does() {
    let config = format!("{CONFIG}xdp = [\"v-attacker\"]\n");
    if !enter(
        "xdp_holds_to_a_rate_as_the_classifier_does",
        &Setup { config: Some(&config), no_agent: false, bare: false },
    ) {
        return;
    }
    let attacker = Host::new("attacker", 1).unwrap();
    filtered(&attacker, "xdp").unwrap();
    wait_for("the wire", 10, || attacker.pings()).unwrap();
    for target in ["10.9.1.2", "9000", "v-attacker"] {
        throttle(&format!("{target} --rate 1pps --burst 20"));
        let arrived = at_once(&attacker, 9_000, 100);
        assert!((17..=22).contains(&arrived), "{target}: {arrived}");
        must("portcullis", &["unthrottle", target]).unwrap();
    }
}

#[test]
fn connections_are_held_to_a_rate_and_those_that_are_there_go_on() {
    if !enter("connections_are_held_to_a_rate_and_those_that_are_there_go_on", &ON) {
        return;
    }
    let (attacker, _) = hosts().unwrap();
    let listener = TcpListener::bind("0.0.0.0:7000").unwrap();
    let accepted = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&accepted);
    std::thread::spawn(move || {
        // Held open, so that each is one.
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept() {
            held.push(stream);
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    for rate in ["20syn", "20flows"] {
        throttle(&format!("7000 --rate {rate} --burst 5"));
        let before = accepted.load(Ordering::Relaxed);
        let seconds = knock(&attacker, 7_000, 5);
        let found = accepted.load(Ordering::Relaxed) - before;
        assert!(about(found as f64, 20.0 * seconds + 5.0, OFF), "{rate}: {found} in {seconds} s");
        must("portcullis", &["unthrottle", "7000"]).unwrap();
    }
    // A flow that is there is no new one, whatever it sends.
    throttle("9000 --rate 1flows --burst 5");
    assert_eq!(at_once(&attacker, 9_000, 100), 100);
}

/// Asks for 100 connections a second from a host, each by one SYN; how long it took.
fn knock(host: &Host, port: u16, seconds: u64) -> f64 {
    let IpAddr::V4(here) = host.here[0] else { unreachable!() };
    let to = SockaddrIn::from(std::net::SocketAddrV4::new(here, port));
    host.inside(move || {
        let begin = Instant::now();
        let mut turn = 0;
        // Open until it is answered, closed before it would ask again.
        let mut open = std::collections::VecDeque::new();
        while begin.elapsed() < Duration::from_secs(seconds) {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let fd = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
            let _ = connect(fd.as_raw_fd(), &to);
            turn += 1;
            open.push_back(fd);
            if open.len() > 30 {
                open.pop_front();
            }
            std::thread::sleep(
                (begin + Duration::from_millis(10 * turn)).saturating_duration_since(Instant::now()),
            );
        }
        begin.elapsed().as_secs_f64()
    })
    .unwrap()
}

#[test]
fn sources_of_one_network_share_its_rate() {
    if !enter("sources_of_one_network_share_its_rate", &ON) {
        return;
    }
    let (one, other) = hosts().unwrap();
    let sink = Sink::at(9_000);
    throttle("10.9.0.0/16 --rate 200pps --burst 50");
    let time = Duration::from_secs(6);
    let senders = [send(&one, 9_000, 400, time), send(&other, 9_000, 2_000, time)];
    let sent: Vec<u64> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
    assert!(sent[0] > 2_000 && sent[1] > 9_000, "{sent:?}");
    let (first, second) = (sink.from(1) as f64, sink.from(2) as f64);
    assert!(about(first + second, 200.0 * 6.0 + 50.0, 0.06), "{first} + {second}");
    assert!(about(first, second, 0.2), "{first} and {second} of two that each want more");
    // Who wants less than his half gets all of it, beside a flood.
    let before = sink.from(1);
    let senders = [send(&one, 9_000, 50, time), send(&other, 9_000, 2_000, time)];
    let sent: Vec<u64> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
    let arrived = sink.from(1) - before;
    assert!(arrived as f64 > 0.9 * sent[0] as f64, "{arrived} of {sent:?}");
}

#[test]
fn a_throttle_ends_without_the_agent() {
    if !enter("a_throttle_ends_without_the_agent", &ON) {
        return;
    }
    let (attacker, _) = hosts().unwrap();
    throttle("10.9.1.2 --rate 1pps --burst 5 --for 4s");
    agent::kill_9().unwrap();
    assert!(at_once(&attacker, 9_000, 50) <= 8, "it holds without the agent");
    wait_for("its end", 10, || Ok(at_once(&attacker, 9_000, 50) == 50)).unwrap();
    start_agent().unwrap();
    assert_eq!(portcullis(&["throttles"]).unwrap(), serde_json::json!([]));
}

#[test]
fn throttles_are_kept_over_a_restart_and_come_back_after_a_reboot() {
    if !enter("throttles_are_kept_over_a_restart_and_come_back_after_a_reboot", &ON) {
        return;
    }
    let (attacker, innocent) = hosts().unwrap();
    throttle("10.9.1.2 --rate 1pps --burst 10 --for 1h --reason kept");
    throttle("9001 --rate 8mbit");
    let held = || at_once(&attacker, 9_000, 100) < 20;
    assert!(held());
    let before = portcullis(&["throttles"]).unwrap();
    agent::kill_9().unwrap();
    let mut second = agent::start().unwrap();
    let after = portcullis(&["throttles"]).unwrap();
    for key in ["rule", "target", "reason", "limited", "burst"] {
        assert_eq!(after[0][key], before[0][key], "{key}");
    }
    second.kill().unwrap();
    second.wait().unwrap();
    std::fs::remove_dir_all("/sys/fs/bpf/portcullis").unwrap();
    wait_for("the filter's end", 10, || Ok(!held())).unwrap();
    assert!(run("portcullisd", &["gate"]).unwrap().0);
    assert!(held(), "the oneshot alone gives throttles back");
    assert!(innocent.pings().unwrap());
    start_agent().unwrap();
    let after = portcullis(&["throttles"]).unwrap();
    let find = |list: &Value, target: &str| {
        list.as_array().unwrap().iter().find(|one| one["target"] == target).cloned().unwrap()
    };
    for target in ["10.9.1.2", "9001"] {
        for key in ["rate", "burst", "reason", "cause", "unit"] {
            assert_eq!(find(&after, target)[key], find(&before, target)[key], "{target}: {key}");
        }
    }
    let minute = |list: &Value| find(list, "10.9.1.2")["until"].as_str().unwrap()[..16].to_owned();
    assert_eq!(minute(&after), minute(&before), "the time left, not the whole time");
}
