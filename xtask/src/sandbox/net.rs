//! Brings the loopback interface of the sandbox's network namespace up.

use crate::error::{Error, Result};
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

/// `ip link set lo up`, without iproute2.
pub fn loopback_up() -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(failed)?;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING)
                .unwrap_or(libc::c_short::MAX),
        },
    };
    for (place, byte) in request.ifr_name.iter_mut().zip(*b"lo") {
        *place = libc::c_char::try_from(byte).unwrap_or(0);
    }
    // SAFETY: SIOCSIFFLAGS reads one ifreq; `request` is one, complete, and outlives the call.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) };
    if answer == 0 { Ok(()) } else { Err(failed(std::io::Error::last_os_error())) }
}

fn failed(source: std::io::Error) -> Error {
    Error::File { action: "bring up", path: "the loopback interface".into(), source }
}
