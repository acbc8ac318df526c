//! Traffic beside FTP: datagrams that never stop, echoes, frames made by hand.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{netns::Namespace, process, wait};

/// Pace of [`Chatter`].
const PACE: Duration = Duration::from_millis(2);

/// A host that keeps sending datagrams, from four sockets by turns, until it is dropped.
#[derive(Debug)]
pub struct Chatter {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Chatter {
    /// Starts to send from `namespace`.
    pub fn start(namespace: &Namespace, to: SocketAddrV4) -> Result<Self> {
        let sockets = (0..4).map(|_| udp_socket(namespace, 0)).collect::<Result<Vec<_>>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            for socket in sockets.iter().cycle() {
                if seen.load(Ordering::Relaxed) {
                    return;
                }
                // Refused and unreachable are answers to what was sent before; they don't matter.
                let _ = socket.send_to(b"chatter", to);
                thread::sleep(PACE);
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Chatter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A datagram socket of a namespace; port 0 stands for any.
pub fn udp_socket(namespace: &Namespace, port: u16) -> Result<UdpSocket> {
    udp_socket_at(namespace, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))
}

/// A datagram socket that answers from this very address.
pub fn udp_socket_at(namespace: &Namespace, at: SocketAddrV4) -> Result<UdpSocket> {
    // A child of another thread may hold a copy of the last one for an instant, until its exec.
    let socket = wait::until(Duration::from_secs(5), "a free UDP port", || {
        match namespace.enter(|| UdpSocket::bind(at))? {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            bound => bound
                .map(Some)
                .with_context(|| format!("open UDP socket {at} in {}", namespace.name())),
        }
    })?;
    socket.set_read_timeout(Some(Duration::from_secs(5))).context("limit reads")?;
    Ok(socket)
}

/// Sends a frame as it is.
pub fn send_frame(namespace: &Namespace, device: &str, frame: &[u8]) -> Result<()> {
    send_frames(namespace, device, frame, 1)
}

/// Sends a frame as it is, so many times.
pub fn send_frames(namespace: &Namespace, device: &str, frame: &[u8], count: u32) -> Result<()> {
    let hexadecimal = frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let script = "import socket, sys\n\
                  s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n\
                  s.bind((sys.argv[1], 0))\n\
                  frame = bytes.fromhex(sys.argv[2])\n\
                  for _ in range(int(sys.argv[3])):\n\
                  \x20   s.send(frame)\n";
    let count = count.to_string();
    process::must(&mut python(namespace, script, &[device, &hexadecimal, &count])).map(drop)
}

/// Sends an echo request and waits for its reply; an error if none comes within two seconds.
pub fn echo(namespace: &Namespace, to: Ipv4Addr) -> Result<()> {
    let script = "import os, socket, struct, sys\n\
                  s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)\n\
                  s.settimeout(2)\n\
                  ident = os.getpid() & 0xffff\n\
                  body = struct.pack('!BBHHH', 8, 0, 0, ident, 1) + bytes(range(48))\n\
                  total = sum(struct.unpack('!28H', body))\n\
                  total = (total >> 16) + (total & 0xffff)\n\
                  total = ~(total + (total >> 16)) & 0xffff\n\
                  s.sendto(body[:2] + struct.pack('!H', total) + body[4:], (sys.argv[1], 0))\n\
                  while True:\n\
                  \x20   packet, peer = s.recvfrom(2000)\n\
                  \x20   reply = packet[(packet[0] & 15) * 4:]\n\
                  \x20   kind, number = reply[0], struct.unpack('!H', reply[4:6])[0]\n\
                  \x20   if kind == 0 and number == ident and peer[0] == sys.argv[1]:\n\
                  \x20       assert reply[8:] == bytes(range(48))\n\
                  \x20       break\n";
    process::must(&mut python(namespace, script, &[&to.to_string()])).map(drop)
}

fn python(namespace: &Namespace, script: &str, arguments: &[&str]) -> Command {
    let mut command = namespace.command("python3");
    command.args(["-c", script]).args(arguments);
    command
}

/// Sends datagrams that nobody may cut to `to` until the kernel has heard of an MTU below 1,500, or below
/// the larger one that it began with, ten seconds at most; which one it knows then. `ports` are the own
/// one, where 0 is any, and the other.
pub fn path_mtu(from: &Namespace, to: IpAddr, size: u16, ports: [u16; 2]) -> Result<String> {
    // Socket level, MTU_DISCOVER and MTU (linux/in.h, linux/in6.h), and what stands for any address.
    let (family, level, discover, mtu, any) = match to {
        IpAddr::V4(_) => ("AF_INET", "IPPROTO_IP", "10", "14", "0.0.0.0"),
        IpAddr::V6(_) => ("AF_INET6", "IPPROTO_IPV6", "23", "24", "::"),
    };
    let script = "import socket, sys, time\n\
                  family, level, discover, mtu, any = sys.argv[1:6]\n\
                  to, size, own, other = sys.argv[6], *map(int, sys.argv[7:])\n\
                  level, discover, mtu = getattr(socket, level), int(discover), int(mtu)\n\
                  s = socket.socket(getattr(socket, family), socket.SOCK_DGRAM)\n\
                  s.setsockopt(level, discover, 2)\n\
                  s.bind((any, own))\n\
                  s.connect((to, other))\n\
                  first = max(1500, s.getsockopt(level, mtu))\n\
                  end = time.monotonic() + 10\n\
                  while time.monotonic() < end:\n\
                  \x20   try:\n\
                  \x20       s.send(bytes(size))\n\
                  \x20   except OSError:\n\
                  \x20       pass\n\
                  \x20   if s.getsockopt(level, mtu) < first:\n\
                  \x20       break\n\
                  \x20   time.sleep(0.05)\n\
                  print(s.getsockopt(level, mtu))\n";
    let mut command = from.command("python3");
    command.args(["-c", script, family, level, discover, mtu, any, &to.to_string()]);
    command.arg(size.to_string()).args(ports.map(|port| port.to_string()));
    Ok(process::must(&mut command)?.trim().to_owned())
}
