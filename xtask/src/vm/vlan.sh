# A source behind a VLAN device is dropped, and one beside it on the parent: with the filter on both, on the VLAN device
# alone, on the parent alone by the classifier and by XDP; tags that the driver took off (skb->vlan_tci: what a VLAN device
# sends over veth) and tags in the packet (what a packet socket sends).
config=/etc/portcullis/portcullis.toml
cp $config /root/before.toml
fail() {
    echo "$*"
    portcullis status
    portcullis drops
    cp /root/before.toml $config
    portcullis reload >/dev/null
    exit 1
}
wait_for() {
    turn=0
    until "$@"; do
        turn=$((turn + 1))
        [ $turn -lt 300 ] || fail "in vain: $*"
        sleep 0.1
    done
}
ip netns add far && ip link add w0 type veth peer name w1 && ip link set w1 netns far || fail 'no veth'
ip link add link w0 name w0.7 type vlan id 7 && ip -n far link add link w1 name w1.7 type vlan id 7 || fail 'no VLAN'
ip addr add 10.9.1.1/24 dev w0; ip addr add 10.9.7.1/24 dev w0.7
ip -n far addr add 10.9.1.2/24 dev w1; ip -n far addr add 10.9.7.2/24 dev w1.7
for device in w0 w0.7; do ip link set $device up; done
for device in w1 w1.7; do ip -n far link set $device up; done
pings() { ip netns exec far ping -n -c1 -W3 $1 >/dev/null 2>&1; }
packets() { portcullis drops | awk '$1 == "10.9.7.2" { print $(NF - 2) }'; }
counted() { [ "$(packets)" = "$1" ]; }
# An echo request of 10.9.7.2 to 10.9.7.1 with its tag in the packet, ten times.
tagged() {
    ip netns exec far python3 -c '
import socket
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind(("w1", 0))
packet = bytes.fromhex("4500001c00090000400100000a0907020a0907010800f7ff00000000")
for _ in range(10):
    wire.send(b"\xff" * 6 + bytes.fromhex("020000000009" "81000007" "0800") + packet)
'
}
hangs() { portcullis status | grep -q "^filter .*$1"; }
# What it is, lines of [filter], where it must hang, whether the parent is filtered.
try() {
    { cat /root/before.toml; printf '\n[filter]\nenabled = true\n%s\n' "$2"; } > $config
    said=$(portcullis reload 2>&1) || fail "$1: reload: $said"
    wait_for hangs "$3"
    wait_for pings 10.9.7.1
    wait_for pings 10.9.1.1
    portcullis drop 10.9.7.2 >/dev/null || fail "$1: drop"
    ! pings 10.9.7.1 || fail "$1: 10.9.7.2 is not dropped"
    pings 10.9.1.1 || fail "$1: 10.9.1.2 is dropped"
    before=$(packets)
    [ "$before" -ge 1 ] || fail "$1: not counted"
    tagged || fail "$1: no frames"
    wait_for counted $((before + 10))
    portcullis undrop 10.9.7.2 >/dev/null
    portcullis drop 10.9.1.2 >/dev/null || fail "$1: drop"
    pings 10.9.7.1 || fail "$1: 10.9.7.2 is dropped still"
    if [ "$4" = yes ]; then ! pings 10.9.1.1; else pings 10.9.1.1; fi || fail "$1: 10.9.1.2 on the parent"
    portcullis undrop 10.9.1.2 >/dev/null
    echo "$1: $(portcullis status | sed -n 's/^filter  *on //p');"
}
try both '' 'w0.7 (' yes
try 'VLAN device' 'interfaces = ["w0.7"]' 'on w0.7 (' no
try parent 'interfaces = ["w0"]' 'on w0 (' yes
# Before 5.18 the kernel refuses our XDP program.
case $(uname -r) in 5.*) hook=clsact ;; *) hook=xdp ;; esac
try XDP 'interfaces = ["w0"]
xdp = ["w0"]' "on w0 ($hook" yes
cp /root/before.toml $config
portcullis reload >/dev/null
ip netns del far
