//! The end of what went by a public address that is gone.
//!
//! Invariant: nothing hangs in silence: the inside end of each connection is told by a RST.

use std::net::Ipv4Addr;

use super::{report, reset, send::RawSender};
use crate::{
    options::Instance,
    plane::{Inspector, Pair},
};

/// Ends the flows that the outside saw at that address. Takes as long as to read the flow table.
pub fn end_flows(instance: &Instance, address: Ipv4Addr) {
    let ended = match Inspector::open(instance) {
        Ok(mut inspector) => inspector.delete_flows_of(address),
        Err(error) => return report::failed(&error),
    };
    if ended.is_empty() {
        return;
    }
    match RawSender::open() {
        Ok(sender) => tell(&sender, &ended),
        Err(error) => tracing::error!("tell inside hosts that {address} is gone: {error}"),
    }
    tracing::info!("{address} is gone: {} flows ended", ended.len());
}

fn tell(sender: &RawSender, ended: &[Pair]) {
    for packet in ended.iter().filter_map(reset::to_inside) {
        if let Err(error) = sender.send(&packet, None) {
            tracing::debug!("a RST to an inside host: {error}");
        }
    }
}
