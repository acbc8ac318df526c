#!/bin/bash
# The gateway between real drivers: four virtio NICs on two hubs (vm/machine.rs).
#
#   inside         hub 0         gateway (this namespace)         hub 1         outside
#   10.0.1.2 :01 --------- :02 10.0.1.1      203.0.113.1 :03 --------- :04 203.0.113.10
#
# Mode auto has to choose XDP, which has to carry the data; mode tc has to carry it without XDP. An
# agent that was killed is succeeded in place. At the end nothing is attached.
set -euo pipefail

log=/tmp/agent.log
agent=
fail() {
    echo "FAILED: $*"
    echo "--- agent"; tail -n 60 "$log"
    nat-ctl status || true
    nat-ctl drops || true
    dmesg | tail -n 5
    exit 1
}
trap 'fail "line $LINENO: $BASH_COMMAND"' ERR

# by_address BYTE NAME [NAMESPACE]
by_address() {
    local folder
    for folder in /sys/class/net/*; do
        if [[ $(cat "$folder/address") == "02:00:00:00:00:$1" ]]; then
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
head -c 10000000 /dev/urandom > /srv/ftp/file.bin
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

# start WORDS...: an agent that is ready.
start() {
    nat-ctl run --wan wan0 --lan lan0 "$@" > "$log" 2>&1 &
    agent=$!
    local tries
    for tries in {1..300}; do
        ! grep -qx ready "$log" || return 0
        kill -0 "$agent" || fail "the agent ended"
        sleep 0.1
    done
    fail "the agent is not ready"
}

# end SIGNAL
end() {
    kill "-$1" "$agent"
    wait "$agent" || [[ $1 == KILL ]]
}

# packets HOOK: translated so far.
packets() {
    local status
    status=$(nat-ctl -o json status)
    [[ $status =~ \"packets\":\{[^}]*\"$1\":([0-9]+) ]] || fail "no packets.$1 in $status"
    echo "${BASH_REMATCH[1]}"
}

# transfer HOOK WORDS...: a download, carried by that hook alone but for its first packets.
transfer() {
    local hook=$1 other=tc before_hook before_other grown stray
    [[ $hook == xdp ]] || other=xdp
    shift
    before_hook=$(packets "$hook") before_other=$(packets "$other")
    within inside curl --disable --silent --show-error --max-time 60 "$@" \
        --user anonymous:lab@example.net --output /tmp/got ftp://203.0.113.10/file.bin
    cmp /tmp/got /srv/ftp/file.bin
    grown=$(( $(packets "$hook") - before_hook )) stray=$(( $(packets "$other") - before_other ))
    echo "$(wc -c < /tmp/got) bytes by curl $*: $grown packets in $hook, $stray in $other"
    (( grown > 1000 && stray * 20 < grown )) || fail "the packets are not in $hook"
}

# round HOOK: ICMP, passive and active, by both generations of commands.
round() {
    within inside ping -c 2 -W 3 203.0.113.10 > /dev/null
    transfer "$1" --disable-epsv --no-ftp-skip-pasv-ip
    transfer "$1" --ftp-pasv
    transfer "$1" --disable-eprt --ftp-port -
    transfer "$1" --ftp-port -
}

# nothing_left: no program on an interface, no pin, forwarding as it was.
nothing_left() {
    local device hook
    for device in lan0 wan0; do
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
    { tc filter show dev lan0 ingress; tc filter show dev wan0 ingress; tc filter show dev wan0 egress; } |
        grep -c 'handle 0x' || true
}

start --mode auto
[[ $(nat-ctl -o json status) == *'"mode":"xdp"'*'"mode":"xdp"'* ]] || fail "auto chose no XDP"
round xdp
end KILL
(( $(filters) == 3 )) || fail "$(filters) filters after a kill, not 3"
start --mode auto
round xdp
(( $(filters) == 3 )) || fail "$(filters) filters after a takeover, not 3"
end TERM
nothing_left

start --mode tc --persist
round tc
end TERM
(( $(filters) == 3 )) || fail "$(filters) filters are at work without an agent, not 3"
start --mode tc --persist
round tc
end TERM
nat-ctl down
nothing_left
kill "$server"
