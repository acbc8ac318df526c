#!/bin/bash
# The gateway between real drivers: five virtio NICs on two hubs (vm/machine.rs).
#
#   inside         hub 0         gateway (this namespace)         hub 1         outside
#   10.0.1.2 :01 --------- :02 10.0.1.1      203.0.113.1 :03 --------- :04 203.0.113.10
#
# Mode auto has to choose XDP, which has to carry the data; mode tc has to carry it without XDP, and by
# tunnels whose packets have no Ethernet header. Tagged frames belong to the VLAN interfaces, one in the other
# to the outside (IEEE 802.1ad), whatever there is on the interfaces below. An agent that was killed is succeeded
# in place. Files arrive whole where both ends lose and reorder what they send. A bond of :03 and :05 is a WAN, in
# TC as mode auto has it, before and after a failover. At the end nothing is attached.
#
#   inside                                 gateway                                    outside
#   vlan0 10.0.5.2 == tag 5 == 10.0.5.1 vlan0   qinq0 198.18.7.1 == 100, 7 == 198.18.7.10 qinq0
#                                               tun0  192.0.2.1  ~~ IPIP ~~~~ 192.0.2.2   tun0
#                                               wg0   198.18.8.1 ~~ WireGuard 198.18.8.10 wg0
#                                        :03, :05 == pair0 203.0.113.1
set -Eeuo pipefail

log=/tmp/agent.log
agent=
fail() {
    echo "FAILED: $*"
    echo "--- agent"; tail -n 60 "$log"
    nat-ctl --color never status || true
    nat-ctl drops || true
    dmesg | tail -n 5
    exit 1
}
trap 'fail "line $LINENO: $BASH_COMMAND"' ERR

# by_address BYTE NAME [NAMESPACE]
by_address() {
    local folder
    for folder in /sys/class/net/*; do
        # With bonds there is also a file, which lists them.
        if [[ -d $folder && $(cat "$folder/address") == "02:00:00:00:00:$1" ]]; then
            ip link set "${folder##*/}" name "$2"
            [[ -z ${3:-} ]] || ip link set "$2" netns "$3"
            return
        fi
    done
    fail "no NIC $1"
}
within() { nsenter --net="/run/netns/$1" -- "${@:2}"; }

for namespace in inside outside; do
    ip netns add "$namespace"
    within "$namespace" ip link set lo up
done
by_address 01 in0 inside
by_address 02 lan0
by_address 03 wan0
by_address 05 wan1
by_address 04 out0 outside
within inside ip address add 10.0.1.2/24 dev in0
within inside ip link set in0 up
within outside ip address add 203.0.113.10/24 dev out0
within outside ip link set out0 up
ip address add 10.0.1.1/24 dev lan0
ip address add 203.0.113.1/24 dev wan0
ip link set lan0 up
ip link set wan0 up
within inside ip route add default via 10.0.1.1

mkdir -p /srv/ftp /srv/empty
head -c 3000000 /dev/urandom > /srv/ftp/file.bin
head -c 200000 /srv/ftp/file.bin > /srv/ftp/small.bin
cat > /tmp/vsftpd.conf <<END
listen=YES
listen_ipv6=NO
background=NO
anonymous_enable=YES
no_anon_password=YES
local_enable=NO
ftp_username=daemon
anon_root=/srv/ftp
secure_chroot_dir=/srv/empty
port_promiscuous=NO
pasv_promiscuous=NO
connect_from_port_20=YES
xferlog_enable=NO
seccomp_sandbox=NO
isolate=NO
isolate_network=NO
END
within outside vsftpd /tmp/vsftpd.conf &
server=$!

# Small tables, as an emulated machine takes seconds for large ones.
cat > /tmp/nat.toml <<END
[gateway]
wan = ["wan0"]
lan = ["lan0"]

[limits]
flows = 65536
END

# start WORDS...: an agent that is ready.
start() {
    nat-ctl run --config /tmp/nat.toml "$@" > "$log" 2>&1 &
    agent=$!
    local tries
    for tries in {1..900}; do
        ! grep -qx ready "$log" || return 0
        kill -0 "$agent" || fail "the agent ended"
        sleep 0.1
    done
    fail "the agent is not ready"
}

# end SIGNAL
end() {
    kill "-$1" "$agent"
    wait "$agent" 2> /dev/null || [[ $1 == KILL ]]
}

# status: the state of the gateway as JSON without blanks.
status() {
    local text
    text=$(nat-ctl --output json status)
    echo "${text//[[:space:]]/}"
}

# counts NAME: sets NAME_xdp and NAME_tc to the packets translated so far.
counts() {
    local status
    status=$(status)
    [[ $status =~ \"packets\":\{[^}]*\"xdp\":([0-9]+) ]] || fail "no packets.xdp in $status"
    printf -v "$1_xdp" %s "${BASH_REMATCH[1]}"
    [[ $status =~ \"packets\":\{[^}]*\"tc\":([0-9]+) ]] || fail "no packets.tc in $status"
    printf -v "$1_tc" %s "${BASH_REMATCH[1]}"
}

# transfer HOOK WORDS...: a download of $file, carried by that hook alone but for its first packets; or by any.
transfer() {
    local hook=$1 seconds xdp tc before_xdp before_tc after_xdp after_tc
    shift
    counts before
    seconds=$(within inside curl --disable --silent --show-error --max-time 60 "$@" \
        --user anonymous:lab@example.net --output /tmp/got --write-out '%{time_total}' \
        "ftp://${far:-203.0.113.10}/${file:-file.bin}")
    cmp /tmp/got "/srv/ftp/${file:-file.bin}"
    counts after
    xdp=$((after_xdp - before_xdp)) tc=$((after_tc - before_tc))
    echo "$(wc -c < /tmp/got) bytes by curl $* in $seconds s: $xdp packets in XDP, $tc in TC"
    case $hook in
        xdp) (( xdp > 1000 && tc * 20 < xdp )) || fail "the packets are not in XDP" ;;
        # GRO makes up to 64 KB of a packet before TC counts it.
        tc) (( tc > 50 && xdp == 0 )) || fail "the packets are not in TC" ;;
    esac
}

# datagrams: ten of them arrive whole at a closed port there, which counts only those with a right sum.
datagrams() {
    local before number
    closed_port() { within outside sed -n 's/^Udp: [0-9]* \([0-9]*\) .*/\1/p' /proc/net/snmp; }
    before=$(closed_port)
    for number in {1..10}; do
        # The answer is an ICMP error, which the next write to the same socket would see.
        within inside bash -c "echo $number > /dev/udp/${far:-203.0.113.10}/9"
    done
    for number in {1..50}; do
        (( $(closed_port) - before < 10 )) || return 0
        sleep 0.1
    done
    fail "$(( $(closed_port) - before )) of 10 datagrams arrived"
}

# files HOOK: a passive and an active transfer.
files() {
    transfer "$1" --disable-epsv --no-ftp-skip-pasv-ip
    transfer "$1" --disable-eprt --ftp-port -
}

# round HOOK: ICMP, UDP, files; from the host $far, or the nearest one.
round() {
    within inside ping -c 2 -W 3 "${far:-203.0.113.10}" > /dev/null
    datagrams
    files "$1"
}

# bad_lines: files arrive whole where each end loses, delays and reorders what it sends. (These NICs have no GSO, so that
# a loss is of one packet.)
bad_lines() {
    local at lost=0
    for at in inside:in0 outside:out0; do
        within "${at%:*}" tc qdisc add dev "${at#*:}" root netem loss 3% delay 20ms 5ms reorder 20%
    done
    file=small.bin files any
    for at in inside:in0 outside:out0; do
        [[ $(within "${at%:*}" tc -s qdisc show dev "${at#*:}") =~ dropped\ ([0-9]+) ]]
        lost=$((lost + BASH_REMATCH[1]))
        within "${at%:*}" tc qdisc del dev "${at#*:}" root
    done
    echo "$lost packets were lost"
    (( lost > 0 )) || fail "no packet was lost"
}

# address DEVICE ADDRESS [NAMESPACE]: gives it the address, and brings it up.
address() {
    local where=()
    [[ -z ${3:-} ]] || where=(within "$3")
    "${where[@]}" ip address add "$2" dev "$1"
    "${where[@]}" ip link set "$1" up
}

# tags DEVICE [NAMESPACE]: qinq0 on it.
tags() {
    local where=()
    [[ -z ${2:-} ]] || where=(within "$2")
    "${where[@]}" ip link add link "$1" name service0 type vlan protocol 802.1ad id 100
    "${where[@]}" ip link set service0 up
    "${where[@]}" ip link add link service0 name qinq0 type vlan protocol 802.1Q id 7
}

# has_filter DEVICE: there is one of ours on its way in.
has_filter() { [[ $(tc filter show dev "$1" ingress 2> /dev/null) == *'handle 0x'* ]]; }

# nothing_left: no program on an interface, no pin, forwarding as it was.
nothing_left() {
    local device hook
    for device in lan0 "$wan"; do
        for hook in ingress egress; do
            [[ -z $(tc filter show dev "$device" "$hook" 2>&1) ]] || fail "$device has a filter"
        done
        [[ $(ip -d link show dev "$device") != *xdp* ]] || fail "$device has an XDP program"
    done
    [[ ! -e /sys/fs/bpf/nat-ctl/default ]] || fail "pins are left"
    [[ $(cat /proc/sys/net/ipv4/ip_forward) == 0 ]] || fail "forwarding is left on"
}

# filters: how many of ours there are, one a hook.
filters() {
    { tc filter show dev lan0 ingress; tc filter show dev "$wan" ingress; tc filter show dev "$wan" egress; } |
        grep -c 'handle 0x' || true
}

wan=wan0
start --mode auto
[[ $(status) == *'"mode":"xdp"'*'"mode":"xdp"'* ]] || fail "auto chose no XDP"
round xdp
bad_lines
end KILL
(( $(filters) == 3 )) || fail "$(filters) filters after a kill, not 3"

# VLANs on interfaces whose own programs are in XDP.
tags wan0
address qinq0 198.18.7.1/24
tags out0 outside
address qinq0 198.18.7.10/24 outside
ip link add link lan0 name vlan0 type vlan id 5
address vlan0 10.0.5.1/24
within inside ip link add link in0 name vlan0 type vlan id 5
address vlan0 10.0.5.2/24 inside
within inside ip route add 198.18.7.0/24 via 10.0.5.1
start --mode auto --wan wan0,qinq0 --lan lan0,vlan0
round xdp
far=198.18.7.10 round tc
(( $(filters) == 3 )) || fail "$(filters) filters after a takeover, not 3"
end TERM
nothing_left

# Tunnels without Ethernet headers, and VLANs on interfaces whose own programs are in TC.
ip link add tun0 type ipip local 203.0.113.1 remote 203.0.113.10
address tun0 192.0.2.1/30
within outside ip link add tun0 type ipip local 203.0.113.10 remote 203.0.113.1
address tun0 192.0.2.2/30 outside
umask 077
for end in near far; do
    wg genkey > "/tmp/$end.key"
    wg pubkey < "/tmp/$end.key" > "/tmp/$end.pub"
done
ip link add wg0 type wireguard
wg set wg0 listen-port 51820 private-key /tmp/near.key \
    peer "$(cat /tmp/far.pub)" allowed-ips 198.18.8.0/24 endpoint 203.0.113.10:51820
address wg0 198.18.8.1/24
within outside ip link add wg0 type wireguard
within outside wg set wg0 listen-port 51820 private-key /tmp/far.key \
    peer "$(cat /tmp/near.pub)" allowed-ips 198.18.8.0/24
address wg0 198.18.8.10/24 outside

start --mode tc --persist --wan wan0,tun0,wg0,qinq0 --lan lan0,vlan0
round tc
far=192.0.2.2 files tc
far=198.18.8.10 round tc
far=198.18.7.10 files tc
for device in tun0 wg0 qinq0 vlan0; do
    has_filter "$device" || fail "$device has no filter"
done
end TERM
(( $(filters) == 3 )) || fail "$(filters) filters are at work without an agent, not 3"

# The same VLANs on interfaces that are not named: a successor has let those go.
start --mode tc --persist --wan qinq0 --lan vlan0
for device in lan0 wan0 tun0 wg0; do
    ! has_filter "$device" || fail "$device has a filter, and was not named"
done
(( $(filters) == 0 )) || fail "$(filters) filters on interfaces that were not named"
far=198.18.7.10 round tc
end TERM
nat-ctl down
nothing_left

# A bond for a WAN. Mode auto has it in TC, as it is a virtual device, and the LAN in XDP.
for device in service0 tun0 wg0; do ip link delete "$device"; done
ip address flush dev wan0
ip link add pair0 type bond mode active-backup miimon 100
for device in wan0 wan1; do
    ip link set "$device" down
    ip link set "$device" master pair0
done
address pair0 203.0.113.1/24
active() { cat /sys/class/net/pair0/bonding/active_slave; }
wan=pair0
start --mode auto --wan pair0
echo "pair0: $(status)" | grep -o '"name":"pair0"[^}]*'
round any
[[ $(active) == wan0 ]] || fail "the bond uses $(active), not wan0"
ip link set wan0 down
for tries in {1..50}; do
    [[ $(active) != wan1 ]] || break
    sleep 0.1
done
[[ $(active) == wan1 ]] || fail "the bond uses $(active), not wan1"
round any
bad_lines
end TERM
nothing_left
kill "$server"
