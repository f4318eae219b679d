//! `portcullis drop`, `undrop`, `drops`.
//!
//! Invariants: of a list each bad line is named with its number; with `--all-or-none` nothing is sent where one is bad;
//! nothing is looked up by name.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use portcullis_common::filter::Net;

use super::table::{Table, until};
use super::{CliError, Context, duration, json, need_root, session, write};
use crate::api::drops::{DropAnswer, DropRequest, DropView, SampleView, UndropRequest};
use crate::api::view::Until;
use crate::cli::client::ClientError;
use crate::exit::Exit;
use crate::filter::PORTS;

/// Bytes of a list: over a million networks.
const LARGEST: u64 = 48 << 20;
/// Refusals shown one by one.
const SHOWN: usize = 20;

#[derive(Debug, Args)]
pub(super) struct DropArguments {
    /// Addresses or networks: 192.0.2.7, 192.0.2.0/24, 2001:db8::/48; an IPv6 address alone is its /64.
    #[arg(required_unless_present = "file")]
    net: Vec<String>,
    /// Take them from a file, one a line; - is standard input. What follows # or ; is a remark.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How long: 90s, 15m, 2h, 1d.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    length: Option<Duration>,
    /// Only packets to this port; may be given up to four times.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Vec<u16>,
    /// Why, in words; shown by `portcullis drops`.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// Also what cuts this host or yourself off: a gateway, everybody, your own session's address.
    #[arg(long)]
    force: bool,
    /// Another program reports it: it never shortens a drop that holds, and nothing is forced.
    #[arg(long, conflicts_with = "force")]
    reported: bool,
    /// Where one line is bad or refused, drop none.
    #[arg(long)]
    all_or_none: bool,
}

#[derive(Debug, Args)]
pub(super) struct UndropArguments {
    /// Addresses or networks, as `portcullis drops` shows them.
    #[arg(required_unless_present = "file")]
    net: Vec<String>,
    /// Take them from a file, one a line; - is standard input.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Another program asks: only what was dropped with --reported.
    #[arg(long)]
    reported: bool,
}

/// A network and where it was read.
struct Line {
    place: String,
    net: Net,
}

impl Context {
    pub(super) async fn drop_nets(&self, arguments: &DropArguments) -> Result<Exit, CliError> {
        need_root()?;
        if arguments.port.len() > PORTS {
            return Err(CliError::Failed(format!(
                "a drop is for at most {PORTS} ports: leave --port out for all"
            )));
        }
        let (lines, bad) = lines(&arguments.net, arguments.file.as_deref())?;
        complain(&bad);
        if arguments.all_or_none && !bad.is_empty() {
            return Err(CliError::Failed(
                "nothing is dropped: mend those lines, or leave out --all-or-none".into(),
            ));
        }
        let request = DropRequest {
            nets: lines.iter().map(|line| line.net.to_string()).collect(),
            seconds: arguments.length.map(|length| length.as_secs()),
            ports: arguments.port.clone(),
            reason: arguments.reason.clone(),
            force: arguments.force,
            reported: arguments.reported,
            all_or_none: arguments.all_or_none,
            sessions: session::addresses(),
        };
        let answer: DropAnswer = self.client.post("/v1/drops", &request).await?;
        self.print(&answer, given)?;
        if arguments.all_or_none && answer.done == 0 && !answer.refused.is_empty() {
            eprintln!("portcullis: nothing is dropped, as --all-or-none asks for, since:");
        }
        self.refused(&answer, &lines, bad.len())
    }

    pub(super) async fn undrop(&self, arguments: &UndropArguments) -> Result<Exit, CliError> {
        need_root()?;
        let (lines, bad) = lines(&arguments.net, arguments.file.as_deref())?;
        complain(&bad);
        let request = UndropRequest {
            nets: lines.iter().map(|line| line.net.to_string()).collect(),
            reported: arguments.reported,
        };
        let answer: DropAnswer = self.client.post("/v1/undrop", &request).await?;
        self.print(&answer, taken)?;
        self.refused(&answer, &lines, bad.len())
    }

    /// Says what was refused, and where it was read.
    fn refused(&self, answer: &DropAnswer, lines: &[Line], bad: usize) -> Result<Exit, CliError> {
        for refused in answer.refused.iter().take(SHOWN) {
            let place = lines.get(refused.index).map_or("", |line| line.place.as_str());
            eprintln!("portcullis: {place}{}", refused.why);
        }
        if answer.refused.len() > SHOWN {
            eprintln!("portcullis: and {} more", answer.refused.len() - SHOWN);
        }
        Ok(if answer.refused.is_empty() && bad == 0 { Exit::Ok } else { Exit::Failure })
    }

    pub(super) async fn drops(&self, follow: bool) -> Result<(), CliError> {
        if follow {
            return self.samples().await;
        }
        let drops: Vec<DropView> = self.client.get("/v1/drops").await?;
        self.print(&drops, |drops| table(drops, Timestamp::now()))
    }

    async fn samples(&self) -> Result<(), CliError> {
        let mut result = Ok(());
        self.client
            .lines("/v1/drops/samples?follow=true", |line| {
                result = self.sample(line);
                result.is_ok()
            })
            .await?;
        result
    }

    fn sample(&self, line: &[u8]) -> Result<(), CliError> {
        let sample: SampleView =
            serde_json::from_slice(line).map_err(|error| ClientError::Broken { what: error.to_string() })?;
        if self.json {
            return write(&format!("{}\n", json(&sample)?));
        }
        let source = sample.source.map_or_else(|| "?".to_owned(), |source| source.to_string());
        let port = sample.port.map_or_else(String::new, |port| format!(" to port {port}"));
        write(&format!(
            "{} dropped {source}{port} on {}, {} bytes, drop {} ({})\n",
            sample.time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            sample.interface,
            sample.length,
            sample.rule,
            sample.cause
        ))
    }
}

/// The networks of a command line and a file, and the lines that are none.
fn lines(nets: &[String], file: Option<&Path>) -> Result<(Vec<Line>, Vec<String>), CliError> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    let mut read = |text: &str, place: String| match text.parse::<Net>() {
        Ok(net) => good.push(Line { place, net }),
        Err(error) => bad.push(format!("{place}{} {error}", crate::text::escape(text.as_bytes()))),
    };
    for net in nets {
        read(net, String::new());
    }
    if let Some(file) = file {
        let name = crate::text::escape(file.as_os_str().as_encoded_bytes());
        for (number, line) in (1..).zip(contents(file)?.lines()) {
            let text = line.split(['#', ';']).next().unwrap_or_default().trim();
            if !text.is_empty() {
                read(text, format!("{name}:{number}: "));
            }
        }
    }
    Ok((good, bad))
}

fn contents(file: &Path) -> Result<String, CliError> {
    let failed = |error| {
        CliError::Failed(format!("{}: {error}", crate::text::escape(file.as_os_str().as_encoded_bytes())))
    };
    let source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).map_err(failed)?)
    };
    let mut bytes = Vec::new();
    source.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err(CliError::Failed(format!("a list of over {LARGEST} bytes: split it")));
    }
    // What is no UTF-8 is no address either, and is named with its line.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn complain(bad: &[String]) {
    for line in bad.iter().take(SHOWN) {
        eprintln!("portcullis: {line}");
    }
    if bad.len() > SHOWN {
        eprintln!("portcullis: and {} more bad lines", bad.len() - SHOWN);
    }
}

fn ports(ports: &[u16]) -> String {
    if ports.is_empty() {
        return "all".to_owned();
    }
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
}

fn given(answer: &DropAnswer) -> String {
    let now = Timestamp::now();
    let mut text = match (answer.done, answer.drops.as_slice()) {
        (0, _) => return String::new(),
        (1, [drop]) => {
            let ports = match drop.ports.as_slice() {
                [] => String::new(),
                some => format!(" to port {}", ports(some)),
            };
            let end = match drop.until {
                Until::Never => format!("until `portcullis undrop {}`", drop.net),
                Until::At(_) => format!("until {}", until(drop.until, now)),
            };
            format!("{}{ports} is dropped {end}\n", drop.net)
        }
        (count, _) => format!("{count} networks are dropped, {} of them were before\n", answer.renewed),
    };
    text.push_str(&match answer.connections {
        Some(0) => String::new(),
        Some(count) => format!("{count} established connections were ended\n"),
        None => "established connections stay until they time out: this kernel cannot end them \
                 (CONFIG_INET_DIAG_DESTROY)\n"
            .to_owned(),
    });
    text
}

fn taken(answer: &DropAnswer) -> String {
    match (answer.done, answer.drops.as_slice()) {
        (0, _) => String::new(),
        (1, [drop]) => format!("{} is dropped no more; {} packets were\n", drop.net, drop.packets),
        (count, _) => format!("{count} networks are dropped no more\n"),
    }
}

fn table(drops: &[DropView], now: Timestamp) -> String {
    if drops.is_empty() {
        return "nothing is dropped\n".to_owned();
    }
    let mut table = Table::new(["NETWORK", "PORTS", "UNTIL", "PACKETS", "BY", "DROP", "REASON"]);
    for drop in drops {
        table.row([
            drop.net.clone(),
            ports(&drop.ports),
            until(drop.until, now),
            drop.packets.to_string(),
            drop.cause.clone(),
            drop.rule.to_string(),
            drop.reason.clone(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_lines_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("list");
        std::fs::write(
            &file,
            b"# a list\n192.0.2.7\n\n 198.51.100.0/24 ; remark\n192.0.2.300\n2001:db8::/33x\n\xff\n",
        )
        .unwrap();
        let (good, bad) = lines(&["203.0.113.1".to_owned(), "nonsense".to_owned()], Some(&file)).unwrap();
        let good: Vec<String> = good.iter().map(|line| line.net.to_string()).collect();
        assert_eq!(good, ["203.0.113.1", "192.0.2.7", "198.51.100.0/24"]);
        assert_eq!(bad.len(), 4);
        assert!(bad[0].starts_with("nonsense is no IPv4"), "{bad:?}");
        assert!(bad[1].contains("list:5: 192.0.2.300 is no"), "{bad:?}");
        assert!(bad[2].contains("list:6: ") && bad[3].contains("list:7: "), "{bad:?}");
    }
}
