//! What each defence is told: the same sources in every list; of forged ones, which are on none, a limit in nftables.

use std::fmt::Write as _;
use std::path::Path;

use super::floods::{KNOWN, Kind};
use super::scene::{ATTACKERS, Defence, Place, SERVICE, Scene};
use crate::Result;
use crate::bench::filter::fill::word;
use crate::system::write;
use crate::traffic::must;

const LIST: &str = "/run/flood.list";
const SCRIPT: &str = "/run/flood.nft";
/// SYNs a second that nftables lets through when their sources are forged: more than innocents send here.
pub const SYNS: u32 = 20_000;
/// Elements of one statement.
const STATEMENT: usize = 1_000;

/// What is done against a kind of flood; none: nothing that this defence has.
#[must_use]
pub const fn answer(defence: Defence, kind: Kind) -> Option<&'static str> {
    match (defence, kind.is_known()) {
        (Defence::None, _) => Some("nothing"),
        (Defence::Xdp | Defence::Tcx, true) => Some("its sources are dropped"),
        (Defence::Xdp | Defence::Tcx, false) => None,
        (Defence::Ingress | Defence::Input, true) => Some("its sources are in a set"),
        (Defence::Ingress | Defence::Input, false) => Some("20,000 SYNs a second"),
    }
}

/// Puts all sources on all lists.
///
/// # Errors
/// What `portcullis` and nft(8) say.
pub fn fill(scene: &Scene) -> Result<()> {
    let known: Vec<String> = (0..KNOWN).map(|place| word(false, place)).collect();
    let mut ours = known.join("\n");
    for place in &scene.places {
        let attackers: Vec<String> = (0..ATTACKERS).map(|which| place.attacker(which).to_string()).collect();
        if place.defence.is_ours() {
            let _ = write!(ours, "\n{}", attackers.join("\n"));
        } else if let Some(table) = table(place) {
            nft(place, &table)?;
            let elements: Vec<&str> = known.iter().chain(&attackers).map(String::as_str).collect();
            let mut script = String::new();
            for part in elements.chunks(STATEMENT) {
                let _ = writeln!(script, "add element {} flood bad {{ {} }}", family(place), part.join(", "));
            }
            nft(place, &script)?;
        }
    }
    write(Path::new(LIST), &(ours + "\n"))?;
    must("portcullis", &["drop", "--file", LIST]).map(drop)
}

/// Before a kind of flood: the limit of SYNs is there for forged ones only.
///
/// # Errors
/// nft(8)'s words.
pub fn prepare(scene: &Scene, kind: Kind) -> Result<()> {
    for place in scene.places.iter().filter(|place| table(place).is_some()) {
        let mut script = format!("flush chain {} flood syns\n", family(place));
        if !kind.is_known() {
            let _ = writeln!(
                script,
                "add rule {} flood syns tcp dport {SERVICE} tcp flags & (syn | ack) == syn \
                 limit rate over {SYNS}/second burst {SYNS} packets drop",
                family(place)
            );
        }
        nft(place, &script)?;
    }
    Ok(())
}

const fn family(place: &Place) -> &'static str {
    if matches!(place.defence, Defence::Input) { "inet" } else { "netdev" }
}

/// The table of a place that has nftables.
fn table(place: &Place) -> Option<String> {
    let hook = match place.defence {
        Defence::Ingress => format!("hook ingress device \"{}\" priority 0", place.port.name),
        Defence::Input => "hook input priority filter".to_owned(),
        _ => return None,
    };
    let set = "set bad { type ipv4_addr; size 65536; }";
    Some(format!(
        "table {} flood {{ {set}\n chain syns {{ }}\n chain first {{ type filter {hook};\n \
         ip saddr @bad drop\n jump syns\n }}\n}}\n",
        family(place)
    ))
}

fn nft(place: &Place, script: &str) -> Result<()> {
    write(Path::new(SCRIPT), script)?;
    place.inside("nft", &["-f", SCRIPT])
}
