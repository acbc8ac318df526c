//! Rules that other gateways need for FTP, and this one does not.
//!
//! There data connections go through rules: port 20 for active ones, a range for passive ones. Here
//! the FTP engine opens exactly what a session announces, so next to a rule for the control port they
//! only stand open. They do no harm to FTP, and may serve another purpose: a note, no more.

use super::{Finding, Severity, Subject};
use crate::{
    output::{ForwardView, OneToOneView, PortsView, RuleView},
    rules::{Alg, FTP_CONTROL_PORT, InboundProtocol, Protocol},
};

/// The port that servers dial active data connections from (RFC 959, 3.2).
const DATA_PORT: u16 = 20;
/// Passive ports lie above those of the system.
const FIRST_PASSIVE_PORT: u16 = 1024;

pub(super) fn check(subject: &Subject, findings: &mut Vec<Finding>) {
    for rule in &subject.rules {
        match rule {
            RuleView::Forward(view) => findings.extend(forward(subject, view)),
            RuleView::OneToOne(view) => findings.extend(one_to_one(view)),
        }
    }
}

/// A forward of data ports to a host whose control port is led to it as well.
fn forward(subject: &Subject, view: &ForwardView) -> Option<Finding> {
    let ports = view.public_ports?;
    if !view.protocol.each().contains(&Protocol::Tcp) {
        return None;
    }
    let control = subject.rules.iter().find(|rule| match rule {
        RuleView::Forward(other) => {
            other.to == view.to && other.public == view.public && follows(other)
        }
        RuleView::OneToOne(_) => false,
    })?;
    let is_control = control.name() == view.name;
    let RuleView::Forward(control) = control else { return None };
    let rest = match is_control {
        // The control port and more in one rule.
        true if contains(ports, DATA_PORT) => format!("port {DATA_PORT}"),
        true => return None,
        false if ports.first == DATA_PORT && ports.last == DATA_PORT => format!("port {DATA_PORT}"),
        false if ports.first >= FIRST_PASSIVE_PORT && ports.last > ports.first => {
            format!("ports {}-{}", ports.first, ports.last)
        }
        false => return None,
    };
    let found = match is_control {
        true => format!("rule '{}' forwards {rest} beside the control port", view.name),
        false => format!(
            "rule '{}' forwards {rest} to {}, whose control port rule '{}' forwards",
            view.name, view.to, control.name
        ),
    };
    let (why, advice) = if rest.starts_with("port ") {
        (
            data_port(),
            match is_control {
                true => format!("let rule '{}' forward its control port alone", view.name),
                false => format!("nat-ctl forward remove {}", view.name),
            },
        )
    } else {
        (
            "each passive port is opened when the server announces it, for that client alone: the \
             range is open to everybody all the time"
                .to_owned(),
            format!(
                "nat-ctl forward remove {}; for FTP over TLS, which can't be read, give rule '{}' \
                 the --passive-range {}-{} instead: it opens to clients with an encrypted session \
                 alone",
                view.name, control.name, ports.first, ports.last
            ),
        )
    };
    Some(note(vec![view.name.clone()], found, why, advice))
}

/// Data ports among what a one-to-one rule lets in.
fn one_to_one(view: &OneToOneView) -> Option<Finding> {
    let tcp = |protocol| protocol == InboundProtocol::Only(Protocol::Tcp.into());
    let listed = view.inbound.iter().filter(|inbound| tcp(inbound.protocol));
    let ranges: Vec<PortsView> = listed.filter_map(|inbound| inbound.ports).collect();
    if view.alg != Some(Alg::Ftp) || !ranges.iter().any(|it| contains(*it, FTP_CONTROL_PORT)) {
        return None;
    }
    let mut needless = vec![];
    if ranges.iter().any(|range| contains(*range, DATA_PORT)) {
        needless.push(format!("tcp:{DATA_PORT}"));
    }
    for range in ranges {
        if range.first >= FIRST_PASSIVE_PORT && range.last > range.first {
            needless.push(format!("tcp:{}-{}", range.first, range.last));
        }
    }
    if needless.is_empty() {
        return None;
    }
    let needless = needless.join(" and ");
    Some(note(
        vec![view.name.clone()],
        format!("rule '{}' lets {needless} in beside the control port", view.name),
        if needless == format!("tcp:{DATA_PORT}") {
            data_port()
        } else {
            "data connections are opened as sessions announce them, each for one client".to_owned()
        },
        format!("let in tcp:{FTP_CONTROL_PORT} in its place (remove the rule and add it again)"),
    ))
}

fn data_port() -> String {
    format!(
        "a server dials from port {DATA_PORT} and nobody dials it: its active data connections leave \
         with the public address, and from port {DATA_PORT} where that is free, without a rule"
    )
}

fn note(about: Vec<String>, found: String, why: String, advice: String) -> Finding {
    Finding { severity: Severity::Note, check: "needless", about, found, why, advice }
}

/// Whether control connections are followed through a forward.
fn follows(view: &ForwardView) -> bool {
    view.alg == Some(Alg::Ftp)
        && view
            .public_ports
            .is_none_or(|ports| contains(ports, FTP_CONTROL_PORT) || ports.first == ports.last)
}

fn contains(range: PortsView, port: u16) -> bool {
    (range.first..=range.last).contains(&port)
}
