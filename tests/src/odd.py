"""Odd packets from one source to this host, out of e0. Arguments: IPv4 and IPv6 source, IPv4 and IPv6 destination.
Prints how many were sent, all of them with a source that can be read."""
import logging
import sys

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
from scapy.all import (  # noqa: E402
    Dot1AD, Dot1Q, Ether, GRE, ICMP, ICMPv6EchoRequest, IP, IPOption_RR, IPOption_Timestamp, IPv6,
    IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, PadN, Raw, SCTP, TCP, UDP,
    conf, fragment, fragment6, sendp,
)

conf.verb = 0
four, six, to_four, to_six = sys.argv[1:5]
ether = Ether(src="02:00:00:00:00:09", dst="ff:ff:ff:ff:ff:ff")
v4, v6 = IP(src=four, dst=to_four), IPv6(src=six, dst=to_six)
options = [PadN(optdata=b"\0" * 4)]
hop, dest = IPv6ExtHdrHopByHop(options=options), IPv6ExtHdrDestOpt(options=options)
route = IPv6ExtHdrRouting(addresses=[to_six])
tcp, udp, data = TCP(sport=4000, dport=22), UDP(sport=4000, dport=22), Raw(b"x" * 64)

packets = [
    # Plain, and with flags no connection has.
    ether / v4 / tcp, ether / v6 / tcp,
    *[ether / v4 / TCP(dport=22, flags=flags) for flags in ("", "F", "FPU", "SF", "SFRPAUEC")],
    ether / v4 / udp / data, ether / v4 / ICMP() / data, ether / v6 / ICMPv6EchoRequest() / data,
    ether / v4 / SCTP(dport=22) / data, ether / v4 / GRE() / IP(src="198.51.100.1", dst=to_four) / udp,
    # Headers that lie, as far as the source can still be read.
    ether / IP(src=four, dst=to_four, ttl=0) / udp, ether / IP(src=four, dst=to_four, chksum=1) / udp,
    ether / IP(src=four, dst=to_four, len=65535) / udp, ether / IP(src=four, dst=to_four, proto=253) / data,
    ether / IPv6(src=six, dst=to_six, plen=65535) / udp, ether / IPv6(src=six, dst=to_six, hlim=0) / udp,
    # Options.
    ether / IP(src=four, dst=to_four, options=[IPOption_RR(), IPOption_Timestamp()]) / tcp,
    ether / IP(src=four, dst=to_four, options=b"\x83\x27" + b"\0" * 37 + b"\0") / tcp,
    # Fragments: whole sets, tiny ones, overlapping ones, later ones alone.
    *[ether / part for part in fragment(v4 / udp / Raw(b"y" * 200), fragsize=64)],
    *[ether / part for part in fragment(v4 / tcp / data, fragsize=8)],
    ether / IP(src=four, dst=to_four, flags="MF", frag=0, proto=6) / Raw(bytes(tcp)[:8]),
    ether / IP(src=four, dst=to_four, flags="MF", frag=1, proto=6) / Raw(bytes(tcp)[:16]),
    ether / IP(src=four, dst=to_four, frag=8191, proto=6) / data,
    *[ether / part for part in fragment6(v6 / IPv6ExtHdrFragment() / udp / Raw(b"z" * 400), 200)],
    ether / v6 / IPv6ExtHdrFragment(offset=1, m=0, nh=6) / data,
    ether / v6 / IPv6ExtHdrFragment() / IPv6ExtHdrFragment() / udp,
    # Extension headers: one, all, in the wrong order, more than anybody looks at, one that ends nowhere.
    ether / v6 / hop / tcp, ether / v6 / hop / dest / route / IPv6ExtHdrFragment() / dest / tcp,
    ether / v6 / dest / hop / tcp, ether / v6 / IPv6ExtHdrRouting(addresses=[to_six] * 12) / tcp,
    ether / IPv6(src=six, dst=to_six, nh=0) / Raw(b"\x06\xff" + b"\0" * 6),
    ether / IPv6(src=six, dst=to_six, nh=59) / data,
    # Tags.
    ether / Dot1Q(vlan=7) / v4 / tcp, ether / Dot1Q(vlan=7, prio=5) / v6 / tcp,
    ether / Dot1Q(vlan=7) / Dot1Q(vlan=8) / v4 / udp, ether / Dot1AD(vlan=7) / Dot1Q(vlan=8) / v6 / hop / udp,
]
many = v6
for _ in range(12):
    many = many / IPv6ExtHdrDestOpt(options=options)
packets.append(ether / many / tcp)
# Cut anywhere behind the addresses.
packets += [Raw(bytes(ether / v4 / tcp)[: 14 + cut]) for cut in (20, 21, 23, 24, 39)]
packets += [Raw(bytes(ether / v6 / hop / tcp)[: 14 + cut]) for cut in (40, 41, 47, 48, 51)]
packets += [Raw(bytes(ether / Dot1Q(vlan=7) / v4 / tcp)[: 18 + cut]) for cut in (20, 22)]
sendp(packets, iface="e0")
print(len(packets))
