//! The decision table of docs/sources.md, each row by counting and policy alone, and with real logons.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use portcullis_common::abi::{op, outcome, source as kind, verdict};
use portcullis_common::ledger::{Actor, Call, Ledger, Rule};
use portcullis_common::sources::{Bucket, Happened, SourceRule};
use portcullis_policy::Boot;
use portcullis_policy::sources::{
    Action, Answer, Counts, Input, Net, Notice, Rules, Source, Sources, Target,
};
use portcullis_tests::decisions::{Besides, Fate, Row, rows};
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::siege::{Logon, Siege, source};
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::su::{self, JON, KON};
use portcullis_tests::system::{password, portcullis, run, wait_for, write};
use portcullis_tests::wire::Host;

const SECOND: u64 = 1_000_000_000;
const ACCOUNTS: [&str; 3] = ["jon", "kon", "admin"];

/// The limits of the page.
const CONFIG: &str = r#"
break_glass = "admin"
[default]
deny = 3
scope = "pair"
account_deny = 6
[filter]
enabled = true
[sc5]
deny = 4
accounts = 3
local = "refuse"
drop_time = "1h"
"#;
const LIMITS: SourceRule = SourceRule { find_time: 600 * SECOND, deny: 4, accounts: 3 };

/// An account: for each source, and for all.
struct Account {
    pairs: BTreeMap<Source, Ledger>,
    all: Ledger,
}

impl Account {
    const RULE: Rule = Rule { deny: 3, ..Rule::DEFAULT };
    const ALL: Rule = Rule { deny: 6, ..Rule::DEFAULT };

    fn guess(&mut self, now: u64, from: Source, right: bool) {
        let pair = self.pairs.entry(from).or_insert(Ledger::EMPTY);
        let mut tokens = [0; 2];
        for (token, (ledger, rule)) in
            tokens.iter_mut().zip([(&mut *pair, &Self::RULE), (&mut self.all, &Self::ALL)])
        {
            let mut admit = Call::new(op::ADMIT);
            admit.actor = Actor { kind: kind::IPV4, id: 1 };
            let step = ledger.apply(now, rule, &admit);
            if step.verdict != verdict::ADMITTED {
                return;
            }
            *token = step.token;
        }
        for (token, (ledger, rule)) in tokens.iter().zip([(pair, &Self::RULE), (&mut self.all, &Self::ALL)]) {
            let mut call = Call::new(op::RESOLVE);
            call.token = *token;
            call.arg = if right { outcome::PASS } else { outcome::FAIL };
            ledger.apply(now, rule, &call);
            if right {
                call.op = op::CONFIRM;
                ledger.apply(now, rule, &call);
            }
        }
    }
}

/// What the policy says of what a source does; what is left of its trips.
struct World {
    policy: Sources,
    counted: BTreeMap<Source, Bucket>,
    accounts: Vec<Account>,
    administrators: Vec<Net>,
    fates: BTreeMap<Source, Fate>,
    now: u64,
}

impl World {
    fn new(row: &Row, exempt: &[Net]) -> Self {
        let word = if row.monitor { Answer::Monitor } else { Answer::Act };
        let policy = Sources::new(Rules {
            guess: word,
            spray: word,
            local: word,
            accounts: LIMITS.accounts,
            drop_time: 600 * SECOND,
            max_drop_time: 3_600 * SECOND,
            decay: 3_600 * SECOND,
            escalate: 8,
            exempt: exempt.to_vec(),
        });
        let account = || Account { pairs: BTreeMap::new(), all: Ledger::EMPTY };
        Self {
            policy,
            counted: BTreeMap::new(),
            accounts: (0..row.accounts).map(|_| account()).collect(),
            administrators: Vec::new(),
            fates: BTreeMap::new(),
            now: 1_000 * SECOND,
        }
    }

    fn logon(&mut self, from: Source, account: usize, right: bool) {
        self.now += SECOND;
        if let Some(account) = self.accounts.get_mut(account) {
            account.guess(self.now, from, right);
        }
        let what = Happened { kind: kind::IPV4, id: 1, account: account as u64, pass: u32::from(right) };
        let told = self.counted.entry(from).or_insert(Bucket::EMPTY).count(self.now, &LIMITS, &what);
        if told.tripped == 0 {
            return;
        }
        let counts = Counts {
            failures: told.failures,
            accounts: told.accounts,
            unknown: told.unknown,
            service: [0; 16],
        };
        let administrators = self.administrators.clone();
        let tripped = Input::Tripped { source: from, at: Boot(self.now), counts, administrators };
        for action in self.policy.step(Boot(self.now), tripped) {
            let fate = match action {
                Action::Answer { target, class, .. } => {
                    let net = Net::of(from).map_or(Target::Local(2001), Target::Net);
                    assert_eq!(target, net, "somebody else is answered");
                    Fate::Answered(class.word())
                }
                Action::Tell { notice: Notice::Exempt { .. }, .. } => Fate::Exempt,
                Action::Tell { notice: Notice::Tripped { acted: false, .. }, .. } => Fate::Told,
                _ => continue,
            };
            self.fates.insert(from, fate);
        }
    }
}

/// The order in which a source fails: account, and whether a logon follows.
fn guesses(row: &Row) -> impl Iterator<Item = (usize, bool)> + '_ {
    let logs_on = row.besides == Besides::LogsOn;
    (0..row.failures).map(move |number| (number % row.accounts, logs_on && number % 2 == 1))
}

#[test]
fn each_row_is_what_counting_and_policy_say() {
    let rows = rows().unwrap();
    assert!(rows.len() >= 10, "{rows:?}");
    for row in &rows {
        let sources: Vec<Source> = match (row.hosts, row.besides) {
            (0, _) => vec![Source::Local(2001)],
            (_, Besides::Near) => vec![Source::Near(0x2001_0db8 << 96 | 2)],
            (hosts, _) => (0..hosts).map(|host| Source::V4(0xc000_0207 + u32::from(host) * 256)).collect(),
        };
        let nets: Vec<Net> = sources.iter().filter_map(|source| Net::of(*source)).collect();
        let mut world = World::new(row, if row.besides == Besides::Exempt { &nets } else { &[] });
        let own = Net::V6(0x2001_0db8 << 96 | 1, 128);
        let _ = world.policy.step(Boot(world.now), Input::Own(vec![own]));
        if row.besides == Besides::Administrator {
            world.administrators = nets;
            world.logon(sources[0], row.accounts, true);
        }
        for from in &sources {
            for (account, then) in guesses(row) {
                world.logon(*from, account, false);
                if then {
                    world.logon(*from, account, true);
                }
            }
        }
        for from in &sources {
            assert_eq!(world.fates.get(from).copied().unwrap_or(Fate::None), row.source, "{row:?}");
        }
        assert_eq!(world.accounts[0].all.locked(), row.locked, "{row:?}");
    }
}

/// The playing field: two hosts, and what rows need of them.
struct Field {
    siege: Siege,
    /// The attacker's host as it is reached by IPv6, in this host's own network.
    six: Host,
}

impl Field {
    /// Addresses of its own for each source of a row, on the attacker's host.
    fn addresses(&self, number: usize, row: &Row) -> Vec<IpAddr> {
        let last = |host: u8| 100 + 4 * u8::try_from(number).unwrap() + host;
        let address = |host| match row.besides {
            Besides::Near => IpAddr::from([0x2001, 0xdb8, 0x11, 0, 0, 0, 0, u16::from(last(host))]),
            _ => IpAddr::from([10, 9, 11, last(host)]),
        };
        let attacker = &self.siege.attacker;
        (0..row.hosts)
            .map(|host| {
                let length = if address(host).is_ipv4() { 24 } else { 64 };
                let net = format!("{}/{length}", address(host));
                let mut words = vec!["addr", "add", net.as_str(), "dev", "e0"];
                words.extend((length == 64).then_some("nodad"));
                assert!(attacker.run("ip", &words).unwrap().0);
                address(host)
            })
            .collect()
    }

    fn attacker(&self, address: IpAddr) -> &Host {
        if address.is_ipv4() { &self.siege.attacker } else { &self.six }
    }

    fn logon(&self, address: IpAddr, user: &str, password: &str) -> Logon {
        self.siege.logon_from(self.attacker(address), address, user, password).unwrap()
    }

    fn pings(&self, address: IpAddr) -> bool {
        let host = self.attacker(address);
        let (from, here) = (address.to_string(), host.here[0].to_string());
        host.run("ping", &["-n", "-c1", "-W1", "-I", &from, &here]).unwrap().0
    }

    /// A session of the administrator from an address.
    fn session(&self, address: IpAddr) -> Child {
        write(Path::new("/run/utmp"), "").unwrap();
        let host = self.attacker(address);
        // A terminal: sshd notes such sessions alone.
        let session = Command::new("ip")
            .args(["netns", "exec", host.name, "sshpass", "-p", &password("admin"), "ssh", "-tt", "-p2323"])
            .args(["-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-oLogLevel=ERROR"])
            .args(["-b", &address.to_string(), &format!("admin@{}", host.here[0]), "sleep 300"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("the session's note", 20, || Ok(!std::fs::read("/run/utmp").unwrap().is_empty())).unwrap();
        session
    }
}

fn configure(row: &Row, addresses: &[IpAddr]) {
    let word = if row.monitor { "monitor" } else { "drop" };
    let exempt = if row.besides == Besides::Exempt { addresses } else { &[] };
    let exempt: Vec<String> = exempt.iter().map(|address| format!("\"{address}\"")).collect();
    let text = format!("{CONFIG}guess = \"{word}\"\nspray = \"{word}\"\nexempt = [{}]\n", exempt.join(", "));
    write(Path::new("/etc/portcullis/portcullis.toml"), &text).unwrap();
    must("portcullis", &["reload"]).unwrap();
}

fn told(word: &str, address: IpAddr) -> bool {
    let events = run("portcullis", &["events", "--json"]).unwrap().1;
    events.lines().any(|line| line.contains(word) && line.contains(&address.to_string()))
}

fn dropped(address: IpAddr) -> bool {
    let net = if address.is_ipv4() { address.to_string() } else { format!("{address}/128") };
    portcullis(&["drops"]).unwrap().as_array().unwrap().iter().any(|drop| drop["net"] == net.as_str())
}

/// kon tries accounts of others by su.
fn by_su(row: &Row) {
    for number in 0..row.failures {
        assert!(!su::attempt(KON, ["jon", "admin", "root"][number % row.accounts], "wrong").unwrap().let_in);
    }
    let refused = || Ok(run("portcullis", &["sources"])?.1.contains("refused"));
    wait_for("the refusal", 10, refused).unwrap();
    assert_eq!(row.source, Fate::Answered("local"), "{row:?}");
    assert!(!su::attempt(KON, "jon", &password("jon")).unwrap().let_in, "with the right password, too");
    assert!(su::attempt(JON, "kon", &password("kon")).unwrap().let_in, "jon is refused as well");
    must("portcullis", &["unlock", "kon"]).unwrap();
}

fn by_ssh(field: &Field, number: usize, row: &Row) {
    let addresses = field.addresses(number, row);
    configure(row, &addresses);
    let session = (row.besides == Besides::Administrator).then(|| field.session(addresses[0]));
    for address in &addresses {
        for (account, then) in guesses(row) {
            let user = ACCOUNTS[account];
            assert_ne!(field.logon(*address, user, "wrong"), Logon::LetIn, "{row:?}");
            if then {
                assert_eq!(field.logon(*address, user, &password(user)), Logon::LetIn, "{row:?}");
            }
        }
    }
    for address in &addresses {
        let address = *address;
        match row.source {
            Fate::None => assert_eq!(source(address).unwrap()["trips"], 0, "{row:?}"),
            Fate::Told => {
                wait_for("the word of the trip", 10, || Ok(told("source_tripped", address))).unwrap();
            }
            Fate::Exempt => wait_for("the word", 10, || Ok(told("source_exempt", address))).unwrap(),
            Fate::Answered(class) => {
                wait_for("the drop", 10, || Ok(dropped(address))).unwrap();
                assert_eq!(source(address).unwrap()["class"], class, "{row:?}");
            }
        }
        let answered = matches!(row.source, Fate::Answered(_));
        assert_eq!((dropped(address), field.pings(address)), (answered, !answered), "{row:?}");
    }
    if let Some(mut session) = session {
        session.kill().unwrap();
        session.wait().unwrap();
    }
}

#[test]
fn each_row_is_what_real_logons_get() {
    let setup = Setup { config: Some(CONFIG), no_agent: false, bare: false };
    if !enter("each_row_is_what_real_logons_get", &setup) {
        return;
    }
    without_delays().unwrap();
    let siege = Siege::begin().unwrap();
    let six = Host { here: [siege.attacker.here[1]; 2], ..siege.attacker.clone() };
    let field = Field { siege, six };
    assert_eq!(field.six.here[0], IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0x11, 0, 0, 0, 0, 1)));
    for (number, row) in rows().unwrap().iter().enumerate() {
        println!("{row:?}");
        if row.hosts == 0 {
            by_su(row)
        } else {
            by_ssh(&field, number, row)
        }
        let expected = if row.locked { Logon::Refused } else { Logon::LetIn };
        let others = field.siege.logon(&field.siege.innocent, "jon", &password("jon")).unwrap();
        assert_eq!(others, expected, "jon, for others: {row:?}");
        for account in ACCOUNTS {
            must("portcullis", &["unlock", account]).unwrap();
        }
    }
}
