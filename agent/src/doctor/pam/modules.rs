//! What is known about modules by name.

use super::load::{Handler, What};

/// What a module does with secrets in the auth stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// pam_portcullis.
    Ours,
    /// The same where it only has another factor asked for.
    Factor,
    /// Checks a password, and takes the one that a line above has asked for.
    Password,
    /// Checks passwords and other things; takes a password that was asked for.
    Mixed,
    /// Asks for something else than the password: a code, a touch, a finger.
    Asks,
    /// Checks no secret.
    Harmless,
    /// Grants.
    Permit,
    /// Refuses.
    Deny,
    /// A counter of failures: two of them count two ways.
    Counter,
    /// Not known here.
    Unknown,
}

impl Nature {
    /// Whether what the user types or shows is checked.
    #[must_use]
    pub const fn secret(self) -> bool {
        matches!(self, Self::Password | Self::Mixed | Self::Asks)
    }
}

const PASSWORD: [&str; 22] = [
    "pam_unix",
    "pam_unix_auth",
    "pam_unix2",
    "pam_tcb",
    "pam_extrausers",
    "pam_ldap",
    "pam_ldapdb",
    "pam_krb5",
    "pam_krb5_migrate",
    "pam_winbind",
    "pam_userdb",
    "pam_pwdfile",
    "pam_mysql",
    "pam_pgsql",
    "pam_sqlite",
    "pam_afs_session",
    "pam_smbpass",
    "pam_systemd_home",
    "pam_vas3",
    "pam_lsass",
    "pam_centrifydc",
    "pam_dhkeys",
];
const MIXED: [&str; 4] = ["pam_sss", "pam_radius_auth", "pam_tacplus", "pam_himmelblau"];
const ASKS: [&str; 20] = [
    "pam_oath",
    "pam_google_authenticator",
    "pam_u2f",
    "pam_yubico",
    "pam_fprintd",
    "pam_fprint",
    "pam_duo",
    "pam_otpw",
    "pam_opie",
    "pam_barada",
    "pam_securid",
    "pam_pkcs11",
    "pam_p11",
    "pam_poldi",
    "pam_sss_gss",
    "pam_ssh",
    "pam_ssh_agent_auth",
    "pam_usb",
    "pam_howdy",
    "pam_kanidm",
];
const COUNTERS: [&str; 5] = ["pam_faillock", "pam_tally2", "pam_tally", "pam_abl", "pam_shield"];
const HARMLESS: [&str; 56] = [
    "pam_access",
    "pam_apparmor",
    "pam_cap",
    "pam_cgfs",
    "pam_ck_connector",
    "pam_debug",
    "pam_echo",
    "pam_ecryptfs",
    "pam_elogind",
    "pam_env",
    "pam_exec",
    "pam_faildelay",
    "pam_filter",
    "pam_fscrypt",
    "pam_ftp",
    "pam_gdm",
    "pam_gnome_keyring",
    "pam_group",
    "pam_issue",
    "pam_keyinit",
    "pam_kwallet",
    "pam_kwallet5",
    "pam_lastlog",
    "pam_lastlog2",
    "pam_limits",
    "pam_listfile",
    "pam_localuser",
    "pam_loginuid",
    "pam_mail",
    "pam_mkhomedir",
    "pam_motd",
    "pam_mount",
    "pam_namespace",
    "pam_nologin",
    "pam_passwdqc",
    "pam_pwhistory",
    "pam_pwquality",
    "pam_rhosts",
    "pam_rootok",
    "pam_securetty",
    "pam_selinux",
    "pam_sepermit",
    "pam_setquota",
    "pam_shells",
    "pam_stress",
    "pam_succeed_if",
    "pam_systemd",
    "pam_time",
    "pam_timestamp",
    "pam_tmpdir",
    "pam_tty_audit",
    "pam_umask",
    "pam_usertype",
    "pam_warn",
    "pam_wheel",
    "pam_xauth",
];

/// What this entry's module is.
#[must_use]
pub fn nature(handler: &Handler) -> Nature {
    let name = handler.module();
    let name = name.as_str();
    let What::Module { words, .. } = &handler.what else {
        return Nature::Harmless;
    };
    match name {
        "pam_portcullis" if words.iter().any(|word| word == b"factor") => Nature::Factor,
        "pam_portcullis" => Nature::Ours,
        "pam_permit" => Nature::Permit,
        "pam_deny" => Nature::Deny,
        // With this word its program gets the password.
        "pam_exec" if words.iter().any(|word| word == b"expose_authtok") => Nature::Password,
        _ if PASSWORD.contains(&name) => Nature::Password,
        _ if MIXED.contains(&name) => Nature::Mixed,
        _ if ASKS.contains(&name) => Nature::Asks,
        _ if COUNTERS.contains(&name) => Nature::Counter,
        _ if HARMLESS.contains(&name) => Nature::Harmless,
        _ => Nature::Unknown,
    }
}
