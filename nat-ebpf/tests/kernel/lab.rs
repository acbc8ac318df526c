//! A network namespace of a thread, with the interfaces of the gateway; both end with the thread.

use nix::{
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};
use std::{
    env, fs,
    net::{TcpListener, UdpSocket},
    path::PathBuf,
    process::Command,
    thread,
};

/// Interfaces and routes as [`crate::common::gateway::world`] has them.
const SETUP: &[&str] = &[
    "link set lo up",
    "link add lan0 index 2 address 02:00:00:00:00:02 type veth peer name lan1 index 12",
    "link add wan0 index 3 address 02:00:00:00:00:03 type veth peer name wan1 index 13",
    "link add other0 index 4 address 02:00:00:00:00:04 type veth peer name other1 index 14",
    "address add 10.0.1.254/24 dev lan0",
    "address add 203.0.113.1/24 dev wan0",
    "address add 203.0.113.2/24 dev wan0",
    "address add 192.168.9.1/24 dev other0",
    "link set lan0 up",
    "link set lan1 up",
    "link set wan0 up",
    "link set wan1 up",
    "link set other0 up",
    "link set other1 up",
    "route add default via 203.0.113.254",
    "route add unreachable 100.64.0.0/10",
];

/// Neighbours by interface.
const NEIGHBOURS: &[(&str, &str, &[&str])] = &[
    (
        "lan0",
        "02:00:00:00:01:02",
        &["10.0.1.2", "10.0.1.3", "10.0.1.5", "10.0.1.6", "10.0.1.7", "10.0.1.9"],
    ),
    ("wan0", "02:00:00:00:01:03", &["203.0.113.254", "203.0.113.9"]),
    ("other0", "02:00:00:00:01:04", &["192.168.9.9"]),
];

/// What the programs of the gateway listen on.
pub struct Sockets {
    _ssh: TcpListener,
    _dns: UdpSocket,
}

/// The object, where it was built, or where the environment says.
fn object() -> PathBuf {
    let built = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/nat-ebpf.o");
    env::var_os("NAT_EBPF_OBJECT").map_or_else(built, PathBuf::from)
}

/// Runs `test` with the object in a namespace of its own, or says why it cannot.
pub fn run(name: &str, test: impl FnOnce(Vec<u8>) + Send + 'static) {
    if !geteuid().is_root() {
        eprintln!("SKIPPED {name}: not root, no program can be loaded");
        return;
    }
    let path = object();
    let object = match fs::read(&path) {
        Ok(object) => object,
        Err(error) => {
            eprintln!(
                "SKIPPED {name}: {}: {error}; make it with `cargo xtask build --ebpf-only`",
                path.display()
            );
            return;
        }
    };
    let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        test(object);
    });
    if let Err(panic) = thread.expect("a thread").join() {
        std::panic::resume_unwind(panic);
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2");
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
}

/// IPv6 of the same interfaces, as [`crate::common::six`] has it.
const SETUP_SIX: &[&str] = &[
    "address add 2001:db8:1::fe/64 dev lan0 nodad",
    "address add 2001:db8:f::1/64 dev wan0 nodad",
    "address add 2001:db8:4::1/64 dev other0 nodad",
    "-6 route add default via 2001:db8:f::fe",
    "-6 route add unreachable 2001:db8:66::/48",
];

/// Adds IPv6 to what [`set_up`] has made.
pub fn set_up_six() {
    for command in SETUP_SIX {
        ip(command);
    }
    fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").expect("forwarding turned on");
}

/// Makes interfaces, routes, neighbours and sockets in the namespace of this thread.
pub fn set_up() -> Sockets {
    for command in SETUP {
        ip(command);
    }
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("forwarding turned on");
    for (interface, link, addresses) in NEIGHBOURS {
        for address in *addresses {
            ip(&format!("neighbour replace {address} lladdr {link} dev {interface} nud permanent"));
        }
    }
    Sockets {
        _ssh: TcpListener::bind("203.0.113.1:22").expect("a listening socket"),
        _dns: UdpSocket::bind("203.0.113.1:53").expect("a datagram socket"),
    }
}
