//! `metrics`: the state of a gateway as Prometheus reads it.
//!
//! Invariant: names follow Prometheus' rules (base units, `_total` for what only grows), words of labels
//! are those of the other output; the text is OpenMetrics 1.0, made by the library.

use std::{collections::BTreeMap, io};

use nat_common::counter::Counter as Counted;
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::Registry,
};
use serde::{Deserialize, Serialize};

use super::{
    printer::{Format, Printer},
    view::{DropsView, InterfaceMode, Role, StatusView, Usage},
};

/// What the text has to be served as.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that is measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsView {
    /// Version of the agent.
    pub release: String,
    /// Seconds since the last beat of the agent; null where it has ended in good order.
    pub heartbeat_age_s: Option<u64>,
    /// One screen.
    pub status: StatusView,
    /// Drops by reason.
    pub drops: DropsView,
    /// Counters of the data plane by name.
    pub counters: BTreeMap<String, u64>,
}

/// Labels of a sample.
type Labels = Vec<(&'static str, String)>;

impl MetricsView {
    /// The text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Only a writer can fail, and a string never does.
        let _written = encode(&mut text, &self.registry());
        text
    }

    fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("nat");
        let status = &self.status;
        let build = vec![("version", self.release.clone())];
        registry.register("build", "Version of the agent", Info::new(build));
        let instance = vec![("instance", status.instance.clone())];
        registry.register("instance", "Name of the gateway", Info::new(instance));
        let modes = Family::<Labels, Gauge>::default();
        for interface in &status.interfaces {
            let role = match interface.role {
                Role::Wan => "wan",
                Role::Lan => "lan",
            };
            let mode = match interface.mode {
                InterfaceMode::Xdp => "xdp",
                InterfaceMode::Tc => "tc",
            };
            let labels = vec![
                ("interface", escaped(&interface.name)),
                ("role", role.to_owned()),
                ("mode", mode.to_owned()),
            ];
            modes.get_or_create(&labels).set(i64::from(!interface.gone));
        }
        registry.register(
            "interface_mode",
            "Hook of each interface: 1 for the one it has, 0 while it is gone",
            modes,
        );
        let mut gauge = |name: &str, help: &str, value: u64| {
            let gauge: Gauge = Gauge::default();
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            registry.register(name, help, gauge);
        };
        gauge("ready", "Whether packets flow", u64::from(status.ready));
        gauge("agent_up", "Whether an agent is at work", u64::from(status.uptime_s > 0));
        gauge("uptime_seconds", "Time since the agent started", status.uptime_s);
        if let Some(age) = self.heartbeat_age_s {
            gauge("agent_heartbeat_age_seconds", "Time since the last beat of the agent", age);
        }
        gauge("ftp_sessions", "FTP control connections that are followed", status.ftp_sessions);
        for (what, Usage { used, max }) in [
            ("flows", status.flows),
            ("flows6", status.flows6),
            ("ports", status.ports),
            ("expectations", status.expectations),
        ] {
            gauge(what, &format!("Entries in use: {what}"), used);
            gauge(&format!("{what}_limit"), &format!("Room for entries: {what}"), max);
        }
        self.count(&mut registry);
        registry
    }

    /// What only grows.
    fn count(&self, registry: &mut Registry) {
        let drops = Family::<Labels, Counter>::default();
        for (reason, count) in &self.drops.0 {
            drops.get_or_create(&vec![("reason", reason.clone())]).inc_by(*count);
        }
        registry.register("dropped_packets", "Packets dropped, by reason", drops);
        let packets = Family::<Labels, Counter>::default();
        for counter in Counted::ALL {
            let count = self.counters.get(counter.name()).copied().unwrap_or_default();
            let mut alone = |name: &str, help: &str| {
                let alone: Counter = Counter::default();
                alone.inc_by(count);
                registry.register(name, help, alone);
            };
            match counter {
                Counted::Xdp
                | Counted::Tc
                | Counted::Stack
                | Counted::Punted
                | Counted::Copied
                | Counted::Six => {
                    let way = vec![("way", counter.name().to_owned())];
                    packets.get_or_create(&way).inc_by(count);
                }
                Counted::Flows => alone("flows_made", "Flows made"),
                Counted::Expected => {
                    alone("data_connections", "Announced data connections that were opened");
                }
                Counted::PortClash => {
                    alone("port_clashes", "Own ports that the pool had given away already");
                }
            }
        }
        registry.register(
            "packets",
            "Packets that were not dropped, by what became of them",
            packets,
        );
    }
}

/// A name that the kernel lets anybody choose, as the format wants it; the library leaves that to us.
fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\").replace('"', "\\\"")
}

impl Printer {
    /// `metrics`: the text, whatever the width of the terminal; or the numbers as JSON.
    ///
    /// # Errors
    /// Where stdout can't be written; a closed pipe is fine.
    pub fn metrics(&self, view: &MetricsView) -> io::Result<()> {
        match self.format() {
            Format::Table => self.object(view, |out| out.write_all(view.text().as_bytes())),
            Format::Json | Format::Jsonl => self.object(view, |_| Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{InterfaceView, PacketsView};
    use nat_common::reason::Reason;

    fn view() -> MetricsView {
        let usage = |used| Usage { used, max: 1000 };
        MetricsView {
            release: "1.2.3".to_owned(),
            heartbeat_age_s: Some(1),
            status: StatusView {
                instance: "default".to_owned(),
                ready: true,
                uptime_s: 7,
                interfaces: vec![InterfaceView {
                    name: "e\"\\0".to_owned(),
                    role: Role::Wan,
                    mode: InterfaceMode::Xdp,
                    reason: "asked for".to_owned(),
                    gone: false,
                }],
                flows: usage(3),
                flows6: usage(8),
                ports: usage(4),
                expectations: usage(5),
                ftp_sessions: 6,
                drops: 0,
                packets: PacketsView::default(),
                overload: vec![],
            },
            drops: DropsView::new(|reason| u64::from(reason == Reason::NoSyn) * 9),
            counters: Counted::ALL.iter().map(|it| (it.name().to_owned(), 11)).collect(),
        }
    }

    /// Samples of the text, by name and labels: read by the rules of the format, line by line.
    fn samples(text: &str) -> BTreeMap<String, f64> {
        let mut families = BTreeMap::new();
        let mut samples = BTreeMap::new();
        let body = text.strip_suffix("# EOF\n").expect("an end");
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# ") {
                let words: Vec<&str> = rest.splitn(3, ' ').collect();
                let [kind, family, about] = words[..] else { panic!("{line}") };
                assert!(["HELP", "TYPE", "UNIT"].contains(&kind) && !about.is_empty(), "{line}");
                if kind == "TYPE" {
                    families.insert(family.to_owned(), about.to_owned());
                }
                continue;
            }
            let (name, value) = line.rsplit_once(' ').expect("a sample");
            let bare = name.split('{').next().expect("a name");
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(bare.starts_with("nat_") && bare.chars().all(plain), "{line}");
            let family = families.iter().find(|(family, kind)| match kind.as_str() {
                "counter" => bare.strip_suffix("_total") == Some(family),
                "info" => bare.strip_suffix("_info") == Some(family),
                _ => bare == **family,
            });
            assert!(family.is_some(), "a sample without its family: {line}");
            assert!(samples.insert(name.to_owned(), value.parse().expect("a number")).is_none());
        }
        samples
    }

    #[test]
    fn every_number_is_there_under_its_name() {
        let samples = samples(&view().text());
        for (name, value) in [
            ("nat_build_info{version=\"1.2.3\"}", 1.0),
            ("nat_instance_info{instance=\"default\"}", 1.0),
            ("nat_interface_mode{interface=\"e\\\"\\\\0\",role=\"wan\",mode=\"xdp\"}", 1.0),
            ("nat_ready", 1.0),
            ("nat_agent_up", 1.0),
            ("nat_uptime_seconds", 7.0),
            ("nat_agent_heartbeat_age_seconds", 1.0),
            ("nat_flows", 3.0),
            ("nat_flows_limit", 1000.0),
            ("nat_flows6", 8.0),
            ("nat_packets_total{way=\"ipv6\"}", 11.0),
            ("nat_ports", 4.0),
            ("nat_expectations", 5.0),
            ("nat_ftp_sessions", 6.0),
            ("nat_dropped_packets_total{reason=\"no-syn\"}", 9.0),
            ("nat_dropped_packets_total{reason=\"table-full\"}", 0.0),
            ("nat_packets_total{way=\"punted\"}", 11.0),
            ("nat_flows_made_total", 11.0),
            ("nat_data_connections_total", 11.0),
        ] {
            assert_eq!(samples.get(name), Some(&value), "{name} in {samples:#?}");
        }
        let drops = samples.keys().filter(|name| name.starts_with("nat_dropped_packets_total"));
        assert_eq!(drops.count(), Reason::ALL.len());
    }

    #[test]
    fn without_an_agent_there_is_no_age_of_its_heartbeat() {
        let mut view = view();
        view.heartbeat_age_s = None;
        view.status.uptime_s = 0;
        let samples = samples(&view.text());
        assert_eq!(samples.get("nat_agent_up"), Some(&0.0));
        assert!(!samples.contains_key("nat_agent_heartbeat_age_seconds"));
    }
}
