//! Tells who started the agent that packets flow: a line on stdout, and systemd.
//!
//! Invariant: nothing else is ever written to stdout.

use std::{
    env,
    io::{self, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

/// Says `ready`. Nobody may be there to read it, which is no error.
pub fn ready() {
    let mut stdout = io::stdout().lock();
    let _unread = writeln!(stdout, "ready").and_then(|()| stdout.flush());
    notify("READY=1\n");
}

/// Says that the agent is about to end.
pub fn stopping() {
    notify("STOPPING=1\n");
}

/// sd_notify(3): a datagram to the socket that the environment names; `@` stands for NUL.
fn notify(text: &str) {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else { return };
    let name = name.into_encoded_bytes();
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(String::from_utf8_lossy(&name).as_ref()),
    };
    let sent = address
        .and_then(|address| UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::warn!("tell systemd (NOTIFY_SOCKET): {error}");
    }
}
