//! Which account, and who asks from where.

use std::hash::Hasher as _;
use std::net::IpAddr;

use portcullis_common::abi::{Detail, UNKNOWN, source};
use portcullis_common::pair::PAIR;
use siphasher::sip::SipHasher24;

use super::trouble::Trouble;
use crate::world::World;

/// Accounts are keyed by uid, since directory services take several spellings of a name; names that no user has go by a
/// keyed hash into a table of their own.
pub fn account_of(world: &impl World, user: &[u8]) -> Result<u64, Trouble> {
    if let Some(uid) = world.uid(user).map_err(Trouble::Users)? {
        return Ok(u64::from(uid));
    }
    let [k0, k1] = world.hash_key().map_err(Trouble::Gate)?;
    let mut hash = SipHasher24::new_with_keys(k0, k1);
    hash.write(user);
    Ok((hash.finish() & !PAIR) | UNKNOWN)
}

/// Who asks, from where. RHOST and TTY are a claim unless the caller is root.
pub fn detail(world: &impl World) -> Detail {
    let (pid, parent) = world.process();
    let mut detail = Detail { uid: world.real_uid(), pid, parent, source: source::LOCAL, ..Detail::EMPTY };
    let trusted = world.effective_uid() == 0 || cfg!(feature = "mutation-believe-rhost");
    copy(&mut detail.service, &world.service());
    if trusted {
        let tty = world.tty();
        copy(&mut detail.tty, tty.strip_prefix(b"/dev/").unwrap_or(&tty));
        let rhost = world.rhost();
        if !rhost.is_empty() {
            detail.source = source::NONE;
            locate(&mut detail, &rhost);
        } else if let Some(login) = world.login_uid() {
            // Who logged in at first answers for what he does as others.
            detail.uid = login;
        }
    }
    detail
}

/// Takes a literal address; names are never resolved, so they stay `source::NONE`.
fn locate(detail: &mut Detail, rhost: &[u8]) {
    let literal = std::str::from_utf8(rhost).unwrap_or_default();
    let literal = literal.split_once('%').map_or(literal, |(address, _zone)| address);
    if let Ok(address) = literal.parse::<IpAddr>() {
        detail.locate(address);
    }
}

fn copy<const N: usize>(to: &mut [u8; N], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}
