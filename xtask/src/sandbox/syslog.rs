//! The sandbox's log daemon: what programs and PAM modules send to /dev/log ends in /var/log/auth.log, one line each.

use crate::error::{Error, Result};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

const SOCKET: &str = "/dev/log";
const LOG: &str = "/var/log/auth.log";
/// Longer messages are cut.
const MESSAGE_MAX: usize = 8192;

/// Starts to collect, in a thread that ends with the sandbox.
pub fn start() -> Result<()> {
    let (socket_path, log_path) = (Path::new(SOCKET), Path::new(LOG));
    let socket = UnixDatagram::bind(socket_path).map_err(Error::file("create", socket_path))?;
    std::fs::set_permissions(socket_path, PermissionsExt::from_mode(0o666))
        .map_err(Error::file("set the mode of", socket_path))?;
    let mut log = std::fs::File::create(log_path).map_err(Error::file("create", log_path))?;
    std::thread::spawn(move || {
        let mut buffer = [0; MESSAGE_MAX];
        while let Ok(length) = socket.recv(&mut buffer) {
            let message = buffer.get(..length).unwrap_or_default();
            let text: String = String::from_utf8_lossy(message)
                .trim_end_matches(['\0', '\n'])
                .chars()
                .map(|letter| if letter.is_control() { '?' } else { letter })
                .collect();
            // A full disk in memory is no reason to stop reading: senders would block.
            let _ = log.write_all(format!("{text}\n").as_bytes());
        }
    });
    Ok(())
}
