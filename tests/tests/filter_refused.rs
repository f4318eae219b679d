//! What is not dropped, and why: what cuts this host or the one who asks off, bad lines, absurd numbers.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use portcullis_tests::drops::{ON, drop_net, hosts};
use portcullis_tests::inside::enter;
use portcullis_tests::system::{portcullis, run, wait_for};

#[test]
fn what_cuts_off_is_refused_and_a_list_is_loaded_line_by_line() {
    if !enter("what_cuts_off_is_refused_and_a_list_is_loaded_line_by_line", &ON) {
        return;
    }
    let (attacker, innocent) = hosts().unwrap();
    assert!(run("ip", &["route", "add", "default", "via", "10.9.1.2"]).unwrap().0);
    for (arguments, words) in [
        ("drop 0.0.0.0/0", "that is everybody"),
        ("drop ::/0", "that is everybody"),
        ("drop 127.0.0.1", "the loopback"),
        ("drop 10.9.1.0/24", "10.9.1.2 is a gateway of this host"),
        ("drop 10.9.1.2/33", "length that is none"),
        ("drop example.org", "names are not looked up"),
        ("drop 192.0.2.7 --port 0", "0 is not in 1..=65535"),
        ("drop 192.0.2.7 --port 65536", "65536 is not in 1..=65535"),
        ("drop 192.0.2.7 --port=-1", "-1 is not in 1..=65535"),
        (
            "drop 192.0.2.7 --port 1 --port 2 --port 3 --port 4 --port 5",
            "for at most 4 ports: leave --port out",
        ),
        ("drop 192.0.2.7 --for 0s", "0s"),
        ("drop 192.0.2.7 --for 99999999999999999999d", "longer than ten years: write at most"),
        ("drop 192.0.2.7 --for=-5m", "write a whole number and a unit"),
        ("drop 192.0.2.7 --for 5", "has no unit: write \"5s\" for seconds"),
        ("drop 192.0.2.0/-1", "length that is none"),
        ("drop 192.0.2.7/99999999999999999999", "length that is none"),
        ("drop 192.0.2.7/24", "write 192.0.2.0/24"),
        ("drop 1.0.0.0/7", "has bits set behind its length"),
        ("drop 2.0.0.0/7", "wider than /8; use --force if that is meant"),
        ("drop 2001:db8:1::1", "2001:db8:1::1 is an address of this host"),
        ("drop --file /root/none", "/root/none: "),
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
    // Who insists gets it, and can take it back: this is asked on a unix socket.
    for net in ["10.9.1.2", "10.9.1.0/24", "0.0.0.0/0"] {
        drop_net(&[net, "--force"]).unwrap();
        assert!(!attacker.pings().unwrap(), "{net}");
        assert_eq!(innocent.pings().unwrap(), net != "0.0.0.0/0");
        assert!(run("portcullis", &["undrop", net]).unwrap().0);
        assert!(attacker.pings().unwrap(), "{net}");
    }
    drop_net(&["127.0.0.1", "--force"]).unwrap();
    assert!(run("ping", &["-n", "-c1", "-W1", "127.0.0.1"]).unwrap().0, "the loopback is never filtered");
    assert!(run("portcullis", &["undrop", "127.0.0.1"]).unwrap().0);
    let forced = "env -i portcullis drop 10.9.2.0/24 --force --for 1s; exit $?";
    assert!(run("env", &[own, "sh", "-c", forced]).unwrap().0);
    wait_for("the end of that drop", 10, || innocent.pings()).unwrap();

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
