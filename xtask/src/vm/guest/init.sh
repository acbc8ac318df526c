#!/bin/bash
# First process of the guest: brings up what the checks need, makes each, says what came of it, and
# turns the machine off. Lines that begin with @@ are read by the host (vm/report.rs).
export PATH=/bin HOME=/root LC_ALL=C

# Whatever happens, the machine ends.
trap 'poweroff -f' EXIT

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t bpf bpf /sys/fs/bpf
for module in /modules/*; do
    insmod "$module" || echo "cannot insert $module"
done
ip link set lo up
echo "@@ kernel $(uname -r)"

# check NAME COMMAND...: a verdict and a time. The limit is far above what is ever needed,
# also beside tests that use the same cores.
check() {
    local name=$1 begin=${EPOCHREALTIME/./} verdict=passed
    shift
    echo "== $name"
    timeout 700 "$@" || verdict=failed
    local tenths=$(( (${EPOCHREALTIME/./} - begin) / 100000 ))
    echo "@@ $verdict $name $((tenths / 10)).$((tenths % 10))"
}

check nics bash /checks/nics
check lab nat-tests --binary /bin/nat-ctl "$(cat /filter)"
