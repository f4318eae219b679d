//! The filter on the wire: an attacker and an innocent behind veth pairs, real ping, curl and ssh.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use portcullis_tests::agent;
use portcullis_tests::drops::{ON, drop_net, filtered, hosts, serve, start_agent};
use portcullis_tests::inside::enter;
use portcullis_tests::ssh::Sshd;
use portcullis_tests::system::{portcullis, run, wait_for};
use portcullis_tests::wire::Host;
use serde_json::Value;

#[test]
fn a_dropped_source_is_gone_and_an_innocent_one_stays() {
    if !enter("a_dropped_source_is_gone_and_an_innocent_one_stays", &ON) {
        return;
    }
    let (attacker, innocent) = hosts().unwrap();
    serve(8080).unwrap();
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
    let text = drop_net(&["10.9.1.2", "--reason", "a test"]).unwrap();
    assert!(text.contains("10.9.1.2 is dropped until `portcullis undrop 10.9.1.2`"), "{text}");
    assert_eq!(reaches(&attacker), [false, true, false, false], "one address of it is dropped");
    drop_net(&["2001:db8:1::2", "--force"]).unwrap();
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
    drop_net(&["10.9.1.0/24", "--port", "2222", "--force"]).unwrap();
    assert_eq!(reaches(&attacker), [true, true, true, false]);
}

#[test]
fn a_drop_outlives_the_agent_and_ends_without_it() {
    if !enter("a_drop_outlives_the_agent_and_ends_without_it", &ON) {
        return;
    }
    let (attacker, innocent) = hosts().unwrap();
    drop_net(&["10.9.1.2", "--for", "6s"]).unwrap();
    agent::kill_9().unwrap();
    assert!(!attacker.pings().unwrap(), "the drop went with the agent");
    assert!(innocent.pings().unwrap());
    wait_for("the end of the lease", 10, || attacker.pings()).unwrap();
    // The next one finds what is left, and takes it out.
    start_agent().unwrap();
    assert_eq!(portcullis(&["drops"]).unwrap(), serde_json::json!([]));
}

#[test]
fn drops_are_kept_over_a_restart_and_come_back_after_a_reboot() {
    if !enter("drops_are_kept_over_a_restart_and_come_back_after_a_reboot", &ON) {
        return;
    }
    let (attacker, innocent) = hosts().unwrap();
    drop_net(&["10.9.1.2", "--for", "1h", "--reason", "kept"]).unwrap();
    drop_net(&["2001:db8:1::/48", "--port", "22", "--port", "443", "--force"]).unwrap();
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
    start_agent().unwrap();
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
    filtered(&attacker, "tcx").unwrap();
    filtered(&friend, "tcx").unwrap();
    wait_for("the wire", 10, || Ok(attacker.pings()? && friend.pings_at(friend.here[1])?)).unwrap();
    drop_net(&["10.9.0.0/16", "2001:db8::/32", "--force"]).unwrap();
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
    let (attacker, innocent) = hosts().unwrap();
    let listener = TcpListener::bind("[::]:7000").unwrap();
    let mut clients = Vec::new();
    let mut servers = Vec::new();
    for (host, here) in
        [(&attacker, attacker.here[0]), (&innocent, innocent.here[0]), (&attacker, attacker.here[1])]
    {
        clients.push(host.inside(move || TcpStream::connect((here, 7000)).unwrap()).unwrap());
        servers.push(listener.accept().unwrap().0);
    }
    let text = drop_net(&["10.9.1.2"]).unwrap();
    if text.contains("this kernel cannot end them") {
        eprintln!("skipped: no CONFIG_INET_DIAG_DESTROY");
        return;
    }
    assert!(text.contains("1 established connections were ended"), "{text}");
    let ended = |server: &mut TcpStream| {
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        server.read(&mut [0; 1]).unwrap_err().raw_os_error()
    };
    assert_eq!(ended(&mut servers[0]), Some(libc::ECONNABORTED));
    servers[2].write_all(b"x").unwrap();
    clients[2].read_exact(&mut [0; 1]).unwrap();
    // Of a network, by IPv6, and for a port that is not the connection's.
    let text = drop_net(&["2001:db8:1::/65", "--force", "--port", "22"]).unwrap();
    assert!(!text.contains("established"), "{text}");
    let text = drop_net(&["2001:db8:1::2/127", "--port", "7000"]).unwrap();
    assert!(text.contains("1 established connections were ended"), "{text}");
    assert_eq!(ended(&mut servers[2]), Some(libc::ECONNABORTED));
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
    filtered(&friend, "tcx").unwrap();
    wait_for("the wire", 10, || friend.pings()).unwrap();
    assert!(friend.run("ip", &["addr", "del", "10.9.1.2/24", "dev", "e0"]).unwrap().0);
    assert!(friend.run("ip", &["addr", "add", "10.9.1.9/24", "dev", "e0"]).unwrap().0);
    let listener = TcpListener::bind("0.0.0.0:7000").unwrap();
    let here = friend.here[0];
    let mut client = friend.inside(move || TcpStream::connect((here, 7000)).unwrap()).unwrap();
    let (mut server, from) = listener.accept().unwrap();
    assert_eq!(from.ip().to_string(), "10.9.1.9");
    // This host's own 10.9.1.1 lies in it, too.
    let text = drop_net(&["10.9.1.0/24", "--force"]).unwrap();
    assert!(!text.contains("1 established"), "{text}");
    server.write_all(b"x").unwrap();
    let mut byte = [0; 1];
    client.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x", "it is on the allow-list");
}

#[test]
fn dropped_packets_are_shown_as_samples() {
    if !enter("dropped_packets_are_shown_as_samples", &ON) {
        return;
    }
    let (attacker, _) = hosts().unwrap();
    drop_net(&["10.9.1.2"]).unwrap();
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
