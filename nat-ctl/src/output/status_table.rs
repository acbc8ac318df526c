//! `status` as people read it.
//!
//! Invariant: one screen.

use std::io;

use super::{
    printer::Printer,
    units::seconds,
    view::{InterfaceMode, OverloadView, Role, StatusView, Usage},
};

impl Printer {
    /// `status`.
    ///
    /// # Errors
    /// See [`Printer::count`].
    pub fn status(&self, status: &StatusView) -> io::Result<()> {
        self.object(status, |out| {
            let ready = if status.ready { "ready" } else { "starting" };
            let up = seconds(status.uptime_s);
            self.lines(
                out,
                &[
                    ("instance", format!("{}, {ready}, up {up}", status.instance)),
                    ("flows", usage(status.flows)),
                    ("ipv6 flows", usage(status.flows6)),
                    ("ports", usage(status.ports)),
                    ("expectations", usage(status.expectations)),
                    ("ftp sessions", status.ftp_sessions.to_string()),
                    ("packets", {
                        let by = status.packets;
                        format!(
                            "{} xdp, {} tc, {} ipv6, {} stack, {} agent",
                            by.xdp, by.tc, by.ipv6, by.stack, by.punted
                        )
                    }),
                    (
                        "drops",
                        match status.drops {
                            0 => "0".to_owned(),
                            drops => format!("{drops} ('nat-ctl drops' says why)"),
                        },
                    ),
                ],
            )?;
            let overload: Vec<_> = status.overload.iter().map(overload).collect();
            self.lines(out, &overload)?;
            writeln!(out)?;
            let rows = status.interfaces.iter().map(|interface| {
                vec![
                    interface.name.clone(),
                    match interface.role {
                        Role::Wan => "wan".to_owned(),
                        Role::Lan => "lan".to_owned(),
                    },
                    match interface.mode {
                        InterfaceMode::Xdp => "xdp".to_owned(),
                        InterfaceMode::Tc => "tc".to_owned(),
                    },
                    interface.reason.clone(),
                ]
            });
            self.table(out, &["INTERFACE", "ROLE", "MODE", "REASON"], rows)
        })
    }
}

fn overload(view: &OverloadView) -> (&'static str, String) {
    let OverloadView { state, refused, ended, for_s, hosts } = view;
    let for_s = seconds(*for_s);
    if state == OverloadView::PRESSURE {
        let text = format!("{state}: {ended} unanswered flows were ended to make room in {for_s}");
        return ("overload    ", text);
    }
    let of: String = hosts.iter().map(|host| format!(" {host}")).collect();
    let of = if of.is_empty() { of } else { format!(" of{of}") };
    // As wide as the keys above it.
    ("overload    ", format!("{state}: new flows{of} are refused, {refused} packets in {for_s}"))
}

fn usage(usage: Usage) -> String {
    match usage.max {
        0 => usage.used.to_string(),
        max => {
            let percent = usage.used.saturating_mul(100) / max;
            format!("{} of {max} ({percent} %)", usage.used)
        }
    }
}
