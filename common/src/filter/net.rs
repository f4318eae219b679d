//! Networks: what a lease and an allow-list name.
//!
//! Invariants: a network has no bits behind its length; IPv4 written as v4-mapped IPv6 (`::ffff:192.0.2.1`) is IPv4, as
//! it is in packets, so one address never has two names.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

/// Length of an IPv4 address that stands for one source.
pub const HOST_4: u8 = 32;
/// Length of the IPv6 network that stands for one source.
pub const HOST_6: u8 = 64;

/// An IPv4 or IPv6 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Net {
    /// IPv4: address in host order, length 0 to 32.
    V4(u32, u8),
    /// IPv6: address in host order, length 0 to 128.
    V6(u128, u8),
}

/// Why a text names no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetError {
    /// The address is none.
    Address,
    /// The length is no number, or too long for the address.
    Length,
    /// Bits are set behind the length; the network that was probably meant.
    HostBits(Net),
    /// A v4-mapped network wider than all of IPv4.
    Mapped,
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("is no IPv4 or IPv6 address or network (names are not looked up)"),
            Self::Length => f.write_str("has a length that is none: at most 32 for IPv4, 128 for IPv6"),
            Self::HostBits(net) => write!(f, "has bits set behind its length: write {net}"),
            Self::Mapped => f.write_str("is v4-mapped and wider than IPv4: write the IPv4 network"),
        }
    }
}

impl core::error::Error for NetError {}

impl Net {
    /// The network of `length` bits around `address`; a length that is too long counts as the whole address.
    #[must_use]
    pub fn around(address: IpAddr, length: u8) -> Self {
        match address {
            IpAddr::V4(address) => {
                let length = length.min(32);
                Self::V4(u32::from(address) & mask_4(length), length)
            }
            IpAddr::V6(address) => match address.to_ipv4_mapped() {
                Some(address) => Self::around(IpAddr::V4(address), length.saturating_sub(96)),
                None => {
                    let length = length.min(128);
                    Self::V6(u128::from(address) & mask_6(length), length)
                }
            },
        }
    }

    /// The source that an address is counted as: an IPv4 address by itself, an IPv6 address by its /64.
    #[must_use]
    pub fn source(address: IpAddr) -> Self {
        match address.to_canonical() {
            address @ IpAddr::V4(_) => Self::around(address, HOST_4),
            address @ IpAddr::V6(_) => Self::around(address, HOST_6),
        }
    }

    /// Bits of the network.
    #[must_use]
    pub const fn length(self) -> u8 {
        match self {
            Self::V4(_, length) | Self::V6(_, length) => length,
        }
    }

    /// The first address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        match self {
            Self::V4(address, _) => IpAddr::V4(Ipv4Addr::from(address)),
            Self::V6(address, _) => IpAddr::V6(Ipv6Addr::from(address)),
        }
    }

    /// Whether `address` lies in it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        match (self, address.to_canonical()) {
            (Self::V4(net, length), IpAddr::V4(address)) => u32::from(address) & mask_4(length) == net,
            (Self::V6(net, length), IpAddr::V6(address)) => u128::from(address) & mask_6(length) == net,
            _ => false,
        }
    }

    /// Whether all of `other` lies in it.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.length() <= other.length() && self.contains(other.address())
    }

    /// Whether the two have an address in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// Whether it is one source: looked up in a hash table, not in a trie.
    #[must_use]
    pub const fn is_host(self) -> bool {
        matches!(self, Self::V4(_, HOST_4) | Self::V6(_, HOST_6))
    }
}

const fn mask_4(length: u8) -> u32 {
    if length == 0 { 0 } else { u32::MAX << (32 - length) }
}

const fn mask_6(length: u8) -> u128 {
    if length == 0 { 0 } else { u128::MAX << (128 - length) }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address, 32) => write!(f, "{}", Ipv4Addr::from(*address)),
            Self::V4(address, length) => write!(f, "{}/{length}", Ipv4Addr::from(*address)),
            Self::V6(address, length) => write!(f, "{}/{length}", Ipv6Addr::from(*address)),
        }
    }
}

impl FromStr for Net {
    type Err = NetError;

    /// An IPv4 address is itself; an IPv6 address without a length is the source it is counted as, its /64.
    fn from_str(text: &str) -> Result<Self, NetError> {
        let Some((address, length)) = text.split_once('/') else {
            return text.parse().map(Self::source).map_err(|_| NetError::Address);
        };
        let address: IpAddr = address.parse().map_err(|_| NetError::Address)?;
        let digits = !length.is_empty() && length.bytes().all(|digit| digit.is_ascii_digit());
        let length: u8 = length.parse().ok().filter(|_| digits).ok_or(NetError::Length)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        if length > most {
            return Err(NetError::Length);
        }
        if address.is_ipv6() && address.to_canonical().is_ipv4() && length < 96 {
            return Err(NetError::Mapped);
        }
        let net = Self::around(address, length);
        if net.address() == address.to_canonical() { Ok(net) } else { Err(NetError::HostBits(net)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_name_networks() {
        for (text, shown) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1/32", "192.0.2.1"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::1", "2001:db8::/64"),
            ("2001:db8::1/128", "2001:db8::1/128"),
            ("2001:db8::/48", "2001:db8::/48"),
            ("::/0", "::/0"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ] {
            assert_eq!(text.parse::<Net>().unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_names_none_is_told() {
        for (text, error) in [
            ("", NetError::Address),
            ("example.org", NetError::Address),
            ("192.0.2", NetError::Address),
            ("192.0.2.1/33", NetError::Length),
            ("192.0.2.1/-1", NetError::Length),
            ("192.0.2.1/+8", NetError::Length),
            ("192.0.2.1/", NetError::Length),
            ("2001:db8::/129", NetError::Length),
            ("192.0.2.1/24", NetError::HostBits(Net::V4(0xc000_0200, 24))),
            ("::ffff:0:0/90", NetError::Mapped),
        ] {
            assert_eq!(text.parse::<Net>(), Err(error), "{text}");
        }
    }

    #[test]
    fn families_never_cover_each_other() {
        let all: Net = "::/0".parse().unwrap();
        assert!(!all.contains("192.0.2.1".parse().unwrap()));
        assert!(!all.contains("::ffff:192.0.2.1".parse().unwrap()));
        assert!(all.overlaps("2001:db8::/32".parse().unwrap()));
        let mapped: Net = "192.0.2.0/24".parse().unwrap();
        assert!(mapped.contains("::ffff:192.0.2.9".parse().unwrap()));
    }
}
