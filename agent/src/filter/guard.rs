//! What is not dropped: an allow-listed network, and without `--force` what cuts this host or the one who asks off.
//!
//! Pure but for [`gateways`], which reads the routes, and [`addresses`], which asks the kernel for this host's own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Cause, Net};

/// Shorter networks are taken for a slip.
const WIDE_4: u8 = 8;
const WIDE_6: u8 = 16;
const RTF_GATEWAY: u32 = 2;

/// What a drop is held against.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Networks that are never dropped.
    pub allow: Vec<Net>,
    /// Ways out of this host.
    pub gateways: Vec<IpAddr>,
    /// This host's own addresses.
    pub own: Vec<IpAddr>,
    /// Where the one who asks comes from.
    pub sessions: Vec<IpAddr>,
}

impl Surroundings {
    /// Why `net` is not dropped; none: nothing is against it. `force`: what only cuts off is no reason.
    #[must_use]
    pub fn against(&self, net: Net, cause: Cause, force: bool) -> Option<String> {
        if let Some(allowed) = self.allow.iter().find(|allowed| allowed.covers(net)) {
            return Some(format!(
                "{allowed} is on the allow-list, which the kernel looks at before it drops: take it off filter.allow"
            ));
        }
        if (force && cause == Cause::Administrator) || cfg!(feature = "mutation-cut-off") {
            return None;
        }
        let how = if cause == Cause::Administrator { "; use --force if that is meant" } else { "" };
        let wide = match net {
            Net::V4(..) => WIDE_4,
            Net::V6(..) => WIDE_6,
        };
        if net.length() == 0 {
            return Some(format!("that is everybody{how}"));
        }
        if let Some(session) = self.sessions.iter().find(|session| net.contains(**session)) {
            return Some(format!("your own session comes from {session}{how}"));
        }
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        if Net::V4(0x7f00_0000, 8).covers(net) || loopback.iter().any(|address| net.contains(*address)) {
            return Some(format!("it is the loopback, this host itself{how}"));
        }
        if let Some(gateway) = self.gateways.iter().find(|gateway| net.contains(**gateway)) {
            return Some(format!("{gateway} is a gateway of this host{how}"));
        }
        if net.length() < wide {
            return Some(format!("it is wider than /{wide}{how}"));
        }
        if let Some(own) = self.own.iter().find(|own| net.contains(**own)) {
            return Some(format!("{own} is an address of this host{how}"));
        }
        None
    }
}

/// The gateways of all routes. What cannot be read has none.
#[must_use]
pub fn gateways() -> Vec<IpAddr> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let mut found: Vec<IpAddr> = read("/proc/net/route").lines().skip(1).filter_map(gateway_4).collect();
    found.extend(read("/proc/net/ipv6_route").lines().filter_map(gateway_6));
    found.sort();
    found.dedup();
    found
}

/// Addresses of all interfaces of this host.
///
/// # Errors
/// The kernel's words.
pub fn addresses() -> std::io::Result<Vec<IpAddr>> {
    let mut found: Vec<IpAddr> = nix::ifaddrs::getifaddrs()?
        .filter_map(|interface| {
            let address = interface.address?;
            let four = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            four.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        })
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// Of a line of /proc/net/route: interface, destination, gateway, flags; numbers in the host's order.
fn gateway_4(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace().skip(2);
    let gateway = u32::from_str_radix(words.next()?, 16).ok()?;
    let flags = u32::from_str_radix(words.next()?, 16).ok()?;
    (flags & RTF_GATEWAY != 0).then(|| IpAddr::V4(Ipv4Addr::from(gateway.to_ne_bytes())))
}

/// Of a line of /proc/net/ipv6_route: destination, length, source, length, next hop, metric, references, use, flags.
fn gateway_6(line: &str) -> Option<IpAddr> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let gateway = u128::from_str_radix(words.get(4)?, 16).ok()?;
    let flags = u32::from_str_radix(words.get(8)?, 16).ok()?;
    (flags & RTF_GATEWAY != 0).then(|| IpAddr::V6(Ipv6Addr::from(gateway)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn against(text: &str, cause: Cause, force: bool) -> Option<String> {
        let surroundings = Surroundings {
            allow: vec!["198.51.100.0/24".parse().unwrap()],
            gateways: vec!["192.0.2.1".parse().unwrap(), "fe80::1".parse().unwrap()],
            own: vec!["192.0.2.77".parse().unwrap(), "2001:db8:5::77".parse().unwrap()],
            sessions: vec!["203.0.113.9".parse().unwrap()],
        };
        surroundings.against(text.parse().unwrap(), cause, force)
    }

    #[test]
    fn what_cuts_off_is_refused_with_its_reason() {
        for (text, word) in [
            ("0.0.0.0/0", "everybody"),
            ("::/0", "everybody"),
            ("127.0.0.1", "loopback"),
            ("127.1.0.0/16", "loopback"),
            ("::1", "loopback"),
            ("192.0.2.1", "gateway"),
            ("192.0.2.77", "192.0.2.77 is an address of this host"),
            ("192.0.2.64/26", "192.0.2.77 is an address of this host"),
            ("192.0.0.0/16", "gateway"),
            ("2001:db8:5::/64", "2001:db8:5::77 is an address of this host"),
            ("fe80::/64", "gateway"),
            ("203.0.113.0/24", "your own session"),
            ("64.0.0.0/7", "wider than /8"),
            ("2000::/8", "wider than /16"),
        ] {
            let reason = against(text, Cause::Administrator, false).unwrap();
            assert!(reason.contains(word) && reason.contains("--force"), "{text}: {reason}");
            assert_eq!(against(text, Cause::Administrator, true), None, "{text}");
            let reason = against(text, Cause::Policy, true).unwrap();
            assert!(reason.contains(word) && !reason.contains("--force"), "{text}: {reason}");
        }
        assert_eq!(against("203.0.113.8", Cause::Administrator, false), None);
    }

    #[test]
    fn this_hosts_addresses_are_read() {
        assert!(addresses().unwrap().contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }

    #[test]
    fn nobody_forces_an_allowed_network() {
        for text in ["198.51.100.7", "198.51.100.0/25", "198.51.100.0/24"] {
            assert!(against(text, Cause::Administrator, true).unwrap().contains("filter.allow"), "{text}");
        }
        // What lies around it is dropped, it is not: the kernel looks at the allow-list first.
        assert_eq!(against("198.51.0.0/16", Cause::Administrator, false), None);
    }

    #[test]
    fn gateways_are_read_off_the_routes() {
        let line =
            format!("eth0\t00000000\t{:08X}\t0003\t0\t0\t0\t00000000", u32::from_ne_bytes([192, 0, 2, 1]));
        assert_eq!(gateway_4(&line), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(gateway_4("eth0\t000200C0\t00000000\t0001\t0"), None);
        let line = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                    fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth0";
        assert_eq!(gateway_6(line), Some("fe80::1".parse().unwrap()));
        assert_eq!(gateway_6("short"), None);
    }
}
