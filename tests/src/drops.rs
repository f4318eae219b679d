//! Hosts behind filtered interfaces, and what tests of the filter ask for again and again.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::Value;

use crate::inside::Setup;
use crate::stack::must;
use crate::system::{portcullis, wait_for};
use crate::wire::Host;
use crate::{Error, Result, agent};

/// The filter is on; one address and one network are on its allow-list.
pub const CONFIG: &str =
    "break_glass = \"admin\"\n[filter]\nenabled = true\nallow = [\"10.9.1.9/32\", \"2001:db8:7::/64\"]\n";
/// A sandbox with [`CONFIG`].
pub const ON: Setup<'static> = Setup { config: Some(CONFIG), no_agent: false, bare: false };

/// A page for everybody.
///
/// # Errors
/// When the port is taken.
pub fn serve(port: u16) -> Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", port))
        .map_err(|source| Error::File { path: format!("port {port}").into(), source })?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nok\n");
        }
    });
    Ok(())
}

/// Both hosts, with the filter on their interfaces: one that is to be dropped, one that is innocent.
///
/// # Errors
/// When one of them cannot be made, or the filter does not come to an interface.
pub fn hosts() -> Result<(Host, Host)> {
    let (attacker, innocent) = (Host::new("attacker", 1)?, Host::new("innocent", 2)?);
    for host in [&attacker, &innocent] {
        filtered(host, "tcx")?;
        wait_for("the wire", 10, || host.pings())?;
    }
    Ok((attacker, innocent))
}

/// Where the filter hangs, as `portcullis status` has it.
///
/// # Errors
/// When the agent does not answer.
pub fn places() -> Result<Value> {
    Ok(portcullis(&["status"])?.pointer("/filter/interfaces").cloned().unwrap_or_default())
}

/// Waits until the filter hangs on a host's interface.
///
/// # Errors
/// When it does not come there.
pub fn filtered(host: &Host, hook: &str) -> Result<()> {
    wait_for("the filter on the interface", 10, || {
        let places = places()?;
        let place = places.as_array().and_then(|places| {
            places.iter().find(|place| place.get("name").is_some_and(|name| *name == *host.interface))
        });
        Ok(place.and_then(|place| place.get("hook")).is_some_and(|found| *found == *hook))
    })
}

/// `portcullis drop ARGUMENTS`, which must do it.
///
/// # Errors
/// With its words.
pub fn drop_net(arguments: &[&str]) -> Result<String> {
    let all: Vec<&str> = ["drop"].iter().chain(arguments).copied().collect();
    must("portcullis", &all)
}

/// The agent again; its end is the sandbox's.
///
/// # Errors
/// When it does not start.
#[allow(clippy::zombie_processes, reason = "it is killed with the sandbox")]
pub fn start_agent() -> Result<()> {
    agent::start().map(drop)
}

/// Packets that the kernel dropped for administrators.
///
/// # Errors
/// When the agent does not answer.
pub fn dropped() -> Result<u64> {
    let status = portcullis(&["status"])?;
    status
        .pointer("/filter/dropped/0/1")
        .and_then(Value::as_u64)
        .ok_or_else(|| Error::Answer { program: "portcullis status".into(), output: status.to_string() })
}
