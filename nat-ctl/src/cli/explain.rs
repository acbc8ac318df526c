//! `explain`: what would become of a packet.
//!
//! Invariant: reading changes nothing.

use std::net::{IpAddr, SocketAddr};

use clap::Args;
use nat_ctl::{
    error::{Exit, Failure},
    options::Instance,
    output::{Printer, Question},
    rules::{FlowProtocol, Protocol},
};

use super::{state::source, written};

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// tcp, udp or icmp; icmpv6 is icmp between addresses of IPv6
    #[arg(long, value_name = "PROTO")]
    protocol: FlowProtocol,
    /// Where it comes from: 198.51.100.7:40000, [2001:db8::7]:40000; for icmp the address, or
    /// address:identifier
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
    address: IpAddr,
    port: Option<u16>,
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(place) = text.parse::<SocketAddr>() {
            return Ok(Self { address: place.ip(), port: Some(place.port()) });
        }
        let address = text
            .parse()
            .map_err(|_| "an address and a port (192.0.2.1:80, [2001:db8::1]:80)".to_owned())?;
        Ok(Self { address, port: None })
    }
}

/// Asks and prints.
pub fn explain(args: ExplainArgs, instance: &Instance, printer: &Printer) -> Result<(), Failure> {
    let ExplainArgs { protocol, src, dst, interface, ack } = args;
    if src.address.is_ipv4() != dst.address.is_ipv4() {
        let why = "explain: no packet has an address of IPv4 and one of IPv6";
        return Err(Failure::new(Exit::Usage, format_args!("{why}")));
    }
    let is_echo = protocol == FlowProtocol::ICMPV6 || protocol == Protocol::Icmp.into();
    let port = |place: Place, name: &str| match (place.port, place.address) {
        (Some(port), _) => Ok(port),
        (None, _) if is_echo => Ok(1),
        (None, address) => {
            let wanted = match address {
                IpAddr::V4(address) => format!("{address}:PORT"),
                IpAddr::V6(address) => format!("[{address}]:PORT"),
            };
            Err(Failure::new(
                Exit::Usage,
                format_args!("explain: {name} {address} lacks a port: write {wanted}"),
            ))
        }
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
