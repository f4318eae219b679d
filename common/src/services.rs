//! The PAM services in whose account phase a locked account is refused; everywhere else a lock is no obstacle: cron,
//! runuser, user managers are the machine's own work. The module goes by this list, and `portcullis doctor` looks for the
//! account line in these.

/// Logon services: refused whoever calls.
pub const LOGON: [&str; 15] = [
    "sshd",
    "login",
    "remote",
    "rlogin",
    "rsh",
    "ftp",
    "vsftpd",
    "gdm-password",
    "gdm-fingerprint",
    "gdm-smartcard",
    "lightdm",
    "sddm",
    "xdm",
    "greetd",
    "cockpit",
];

/// Services that change the user: refused unless the caller is root himself.
pub const SWITCH: [&str; 3] = ["su", "su-l", "doas"];

/// Whether `service` is in [`LOGON`].
#[must_use]
pub fn is_logon(service: &[u8]) -> bool {
    LOGON.iter().any(|name| name.as_bytes() == service)
}

/// Whether `service` is in [`SWITCH`].
#[must_use]
pub fn is_switch(service: &[u8]) -> bool {
    SWITCH.iter().any(|name| name.as_bytes() == service)
}
