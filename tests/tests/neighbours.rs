//! A guesser in this host's own IPv6 network: dropped alone, by the address, with real ssh from two hosts on one bridge.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::siege::{Logon, Siege, source};
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::system::{password, portcullis, wait_for};

const CONFIG: &str = r#"
break_glass = "admin"
[default]
deny = 10
[filter]
enabled = true
[sc5]
guess = "drop"
deny = 4
drop_time = "10s"
"#;

#[test]
fn a_guesser_in_this_hosts_own_ipv6_network_is_dropped_alone() {
    let setup = Setup { config: Some(CONFIG), no_agent: false, bare: false };
    if !enter("a_guesser_in_this_hosts_own_ipv6_network_is_dropped_alone", &setup) {
        return;
    }
    without_delays().unwrap();
    let siege = Siege::on_one_network().unwrap();
    let (guesser, neighbour) = (&siege.attacker, &siege.innocent);
    // This host's way out lies there, too.
    must("ip", &["-6", "route", "add", "default", "via", "2001:db8:77::3"]).unwrap();
    // An address is there once the kernel knows that nobody else has it.
    wait_for("the wire", 10, || Ok(guesser.pings()? && neighbour.pings()?)).unwrap();
    let dropped = || {
        let drops = portcullis(&["drops"])?;
        Ok(drops.as_array().unwrap().iter().map(|drop| drop["net"].clone()).collect::<Vec<_>>())
    };
    // A neighbour who mistypes is none of his guesses.
    for (host, times) in [(guesser, 3), (neighbour, 1)] {
        for _ in 0..times {
            assert_eq!(siege.logon(host, "jon", "wrong").unwrap(), Logon::Refused);
        }
    }
    wait_for("the count of the neighbour", 10, || Ok(source(neighbour.addresses[0])?["failures"] == 1))
        .unwrap();
    assert_eq!(source(guesser.addresses[0]).unwrap()["failures"], 3);
    assert!(dropped().unwrap().is_empty() && guesser.pings().unwrap());
    assert_ne!(siege.logon(guesser, "jon", "wrong").unwrap(), Logon::LetIn);
    wait_for("the drop", 10, || Ok(dropped()? == ["2001:db8:77::2/128"])).unwrap();
    assert!(!guesser.pings().unwrap());
    assert_eq!(siege.logon(guesser, "jon", &password("jon")).unwrap(), Logon::NoAnswer);
    let row = source(guesser.addresses[0]).unwrap();
    assert_eq!((&row["answered"], &row["class"]), (&true.into(), &"guess".into()), "{row}");
    // Neighbour, gateway (the same host here) and this host go on.
    assert!(neighbour.pings().unwrap());
    assert_eq!(siege.logon(neighbour, "jon", &password("jon")).unwrap(), Logon::LetIn);
    must("ping", &["-n", "-c1", "-W2", "2001:db8:77::3"]).unwrap();
    wait_for("the end of the drop", 30, || Ok(dropped()?.is_empty() && guesser.pings()?)).unwrap();
}
