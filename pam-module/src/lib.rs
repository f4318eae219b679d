//! `pam_portcullis.so`: counts authentication attempts in the gate and refuses locked accounts.
//!
//! * `ffi`: everything of libpam, and the only `unsafe` of the crate.
//! * `module`: what the module decides, over the trait `world::World`.
//! * `options`: the words on the PAM line.
//!
//! Invariants: the module never grants (PAM_IGNORE or an error, nothing else); no panic leaves it; nothing it is told
//! from outside (user, rhost, tty, service) is more than bytes to it.

mod ffi;
mod module;
mod options;
mod status;
#[cfg(test)]
mod tests;
mod world;
