//! `explain`: what would become of a packet.
//!
//! Invariant: reading changes nothing.

use std::net::{Ipv4Addr, SocketAddrV4};

use clap::Args;
use nat_ctl::{
    error::{Exit, Failure},
    options::Instance,
    output::{Printer, Question},
    rules::Protocol,
};

use super::{state::source, written};

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// tcp, udp or icmp
    #[arg(long, value_name = "PROTO")]
    protocol: Protocol,
    /// Where it comes from: 198.51.100.7:40000; for icmp the address, or address:identifier
    #[arg(value_name = "SRC:PORT")]
    src: Place,
    /// Where it goes: 203.0.113.10:21; for icmp the address
    #[arg(value_name = "DST:PORT")]
    dst: Place,
    /// The interface that it comes in by; that which leads to its source where nothing is said
    #[arg(long, value_name = "IF")]
    interface: Option<String>,
    /// A packet of a connection that is open, not the SYN of a new one
    #[arg(long)]
    ack: bool,
}

/// An address and a port that may be left out.
#[derive(Debug, Clone, Copy)]
struct Place {
    address: Ipv4Addr,
    port: Option<u16>,
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(place) = text.parse::<SocketAddrV4>() {
            return Ok(Self { address: *place.ip(), port: Some(place.port()) });
        }
        let address = text.parse();
        let address =
            address.map_err(|_| "an IPv4 address and a port (192.0.2.1:80)".to_owned())?;
        Ok(Self { address, port: None })
    }
}

/// Asks and prints.
pub fn explain(args: ExplainArgs, instance: &Instance, printer: &Printer) -> Result<(), Failure> {
    let ExplainArgs { protocol, src, dst, interface, ack } = args;
    let port = |place: Place, name: &str| match (place.port, protocol) {
        (Some(port), _) => Ok(port),
        (None, Protocol::Icmp) => Ok(1),
        (None, Protocol::Tcp | Protocol::Udp) => Err(Failure::new(
            Exit::Usage,
            format_args!(
                "explain: {name} {} lacks a port: write {}:PORT",
                place.address, place.address
            ),
        )),
    };
    let question = Question {
        protocol,
        src: src.address,
        sport: port(src, "the source")?,
        dst: dst.address,
        dport: port(dst, "the destination")?,
        interface,
        ack,
    };
    printer.explained(&source(instance)?.explain(&question)?).map_err(written)
}
