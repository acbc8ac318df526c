//! What moves most, between two looks at the flows: `top`.
//!
//! Invariant: pure but for the screen; a flow that began between the looks counts with all that it has
//! carried, one that ended in between with nothing.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    io::{self, IsTerminal, Write},
    time::Duration,
};

use clap::ValueEnum;
use serde::Serialize;

use super::{
    printer::{Format, Pretty, Printer, Tabular, json, versioned},
    tables::endpoint,
    units::bytes,
    view::FlowView,
    watch::{Reader, Watched, at_once},
};

/// What a row stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum By {
    /// One flow.
    #[default]
    Flow,
    /// All flows of a host inside.
    Host,
    /// All flows that came in by a rule.
    Rule,
}

/// A second of a row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Mover {
    /// The flow, host or rule.
    pub who: String,
    /// Flows that it has.
    pub flows: u64,
    /// Bytes a second that initiators have sent.
    pub original_bytes_s: u64,
    /// Bytes a second that they were answered.
    pub reply_bytes_s: u64,
    /// Packets a second, both ways.
    pub packets_s: u64,
}

impl Tabular for Mover {
    const COLUMNS: &'static [&'static str] =
        &["", ">FLOWS", ">SENT/S", ">ANSWERED/S", ">PACKETS/S"];

    fn row(&self) -> Vec<String> {
        vec![
            self.who.clone(),
            self.flows.to_string(),
            bytes(self.original_bytes_s),
            bytes(self.reply_bytes_s),
            self.packets_s.to_string(),
        ]
    }
}

/// The last look.
#[derive(Debug, Default)]
pub struct Top {
    last: Option<HashMap<<FlowView as Watched>::Key, FlowView>>,
}

impl Top {
    /// What has moved since the last look, `elapsed` ago, the most bytes first; `None` at the first
    /// one.
    pub fn look(&mut self, now: Vec<FlowView>, by: By, elapsed: Duration) -> Option<Vec<Mover>> {
        let now: HashMap<_, _> = now.into_iter().map(|flow| (flow.key(), flow)).collect();
        let movers = self.last.take().map(|last| movers(&last, &now, by, elapsed));
        self.last = Some(now);
        movers
    }
}

fn movers(
    last: &HashMap<<FlowView as Watched>::Key, FlowView>,
    now: &HashMap<<FlowView as Watched>::Key, FlowView>,
    by: By,
    elapsed: Duration,
) -> Vec<Mover> {
    let mut rows = BTreeMap::<String, Mover>::new();
    for (key, flow) in now {
        let Some(who) = who(flow, by) else { continue };
        let before = last.get(key).filter(|before| !flow.is_another(before));
        let (there, back) = before.map_or((None, None), |it| (Some(it.original), Some(it.reply)));
        let more = |now: u64, before: Option<u64>| now.saturating_sub(before.unwrap_or(0));
        let row = rows.entry(who).or_default();
        row.flows += 1;
        row.original_bytes_s += more(flow.original.bytes, there.map(|end| end.bytes));
        row.reply_bytes_s += more(flow.reply.bytes, back.map(|end| end.bytes));
        row.packets_s += more(flow.original.packets, there.map(|end| end.packets))
            + more(flow.reply.packets, back.map(|end| end.packets));
    }
    let mut rows: Vec<Mover> = rows
        .into_iter()
        .map(|(who, row)| Mover {
            who,
            flows: row.flows,
            original_bytes_s: a_second(row.original_bytes_s, elapsed),
            reply_bytes_s: a_second(row.reply_bytes_s, elapsed),
            packets_s: a_second(row.packets_s, elapsed),
        })
        .collect();
    rows.sort_by_key(|row| Reverse((row.original_bytes_s + row.reply_bytes_s, row.packets_s)));
    rows
}

fn who(flow: &FlowView, by: By) -> Option<String> {
    let (there, back) = (&flow.original, &flow.reply);
    match by {
        By::Flow => Some(format!(
            "{} {} > {}",
            flow.protocol,
            endpoint(there.src, there.sport),
            endpoint(there.dst, there.dport)
        )),
        // Whose destination is rewritten comes from outside; between inside hosts both ends are. Of IPv6 none may
        // be, and what a rule has let in comes from outside.
        By::Host
            if there.src == back.dst
                && (there.dst != back.src || flow.rule.is_some() && flow.related_to.is_none()) =>
        {
            Some(back.src.to_string())
        }
        By::Host => Some(there.src.to_string()),
        By::Rule => flow.rule.clone(),
    }
}

fn counted(flows: u64) -> String {
    if flows == 1 { "1 flow".to_owned() } else { format!("{flows} flows") }
}

fn a_second(count: u64, elapsed: Duration) -> u64 {
    let micros = elapsed.as_micros().max(1);
    u64::try_from(u128::from(count) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

impl Printer {
    /// The first `rows` of what moves: on a terminal in place of what was there, else below it; for
    /// scripts an object a line.
    ///
    /// # Errors
    /// Where stdout can't be written.
    pub fn movers(&self, movers: &[Mover], rows: usize) -> io::Result<Reader> {
        let shown = movers.get(..rows).unwrap_or(movers);
        let mut text = vec![];
        match self.format() {
            Format::Json | Format::Jsonl => {
                for mover in shown {
                    json(&mut text, &versioned(mover), Pretty::No)?;
                    text.push(b'\n');
                }
            }
            Format::Table => {
                if io::stdout().is_terminal() {
                    // To the upper left, and nothing below (ECMA-48: CUP, ED).
                    text.extend(b"\x1b[H\x1b[J");
                }
                let sum = |of: fn(&Mover) -> u64| movers.iter().map(of).sum::<u64>();
                writeln!(
                    text,
                    "{}, {}/s sent, {}/s answered, {} packets/s\n",
                    counted(sum(|it| it.flows)),
                    bytes(sum(|it| it.original_bytes_s)),
                    bytes(sum(|it| it.reply_bytes_s)),
                    sum(|it| it.packets_s),
                )?;
                self.table(&mut text, Mover::COLUMNS, shown.iter().map(Tabular::row))?;
                if !io::stdout().is_terminal() {
                    text.push(b'\n');
                }
            }
        }
        at_once(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{End, tests::flow};

    const SECOND: Duration = Duration::from_secs(1);

    fn carried(flow: FlowView, bytes: u64) -> FlowView {
        let end = |end: End| End { bytes, packets: bytes / 100, ..end };
        FlowView { original: end(flow.original), reply: end(flow.reply), ..flow }
    }

    #[test]
    fn what_has_moved_is_told_by_the_second() {
        let mut top = Top::default();
        assert_eq!(top.look(vec![carried(flow(), 1000)], By::Flow, SECOND), None);
        let half = Duration::from_millis(500);
        let rows = top.look(vec![carried(flow(), 1600)], By::Flow, half).expect("rows");
        assert_eq!(
            rows,
            [Mover {
                who: rows[0].who.clone(),
                flows: 1,
                original_bytes_s: 1200,
                reply_bytes_s: 1200,
                packets_s: 24
            }]
        );
        assert!(rows[0].who.starts_with("tcp "), "{}", rows[0].who);
    }

    #[test]
    fn a_new_flow_counts_whole_and_one_that_began_anew_too() {
        let mut top = Top::default();
        top.look(vec![], By::Flow, SECOND);
        let rows = top.look(vec![carried(flow(), 700)], By::Flow, SECOND).expect("rows");
        assert_eq!(rows[0].original_bytes_s, 700);
        let again = FlowView { age_s: 0, ..carried(flow(), 800) };
        let rows = top.look(vec![again], By::Flow, SECOND).expect("rows");
        assert_eq!(rows[0].original_bytes_s, 800);
        assert_eq!(top.look(vec![], By::Flow, SECOND), Some(vec![]));
    }

    #[test]
    fn the_host_of_a_flow_is_the_one_inside() {
        let outward = flow();
        assert_eq!(who(&outward, By::Host), Some(outward.original.src.to_string()));
        let [client, public, inside] =
            ["198.51.100.9", "203.0.113.10", "192.168.1.10"].map(|text| text.parse().unwrap());
        let inward = FlowView {
            original: End { src: client, dst: public, ..flow().original },
            reply: End { src: inside, dst: client, ..flow().reply },
            rule: Some("web".to_owned()),
            ..flow()
        };
        assert_eq!(who(&inward, By::Host), Some(inside.to_string()));
        assert_eq!(who(&inward, By::Rule), Some("web".to_owned()));
        assert_eq!(who(&FlowView { rule: None, ..flow() }, By::Rule), None);
        let between = FlowView {
            original: End { src: client, dst: public, ..flow().original },
            reply: End { src: inside, dst: public, ..flow().reply },
            ..flow()
        };
        assert_eq!(who(&between, By::Host), Some(client.to_string()));
        let six = FlowView { reply: End { src: public, dst: client, ..flow().reply }, ..inward };
        assert_eq!(who(&six, By::Host), Some(public.to_string()));
        let dialled = FlowView { rule: None, ..six };
        assert_eq!(who(&dialled, By::Host), Some(client.to_string()));
    }

    #[test]
    fn the_most_bytes_come_first() {
        let end = |sport: u16| End { sport, ..flow().original };
        let other = FlowView { original: end(7), ..flow() };
        let mut top = Top::default();
        top.look(vec![], By::Flow, SECOND);
        let now = vec![carried(flow(), 100), carried(other, 900)];
        let rows = top.look(now.clone(), By::Flow, SECOND).expect("rows");
        assert_eq!(rows.iter().map(|row| row.original_bytes_s).collect::<Vec<_>>(), [900, 100]);
        let mut top = Top::default();
        top.look(vec![], By::Host, SECOND);
        let rows = top.look(now, By::Host, SECOND).expect("rows");
        assert_eq!((rows.len(), rows[0].flows, rows[0].original_bytes_s), (1, 2, 1000));
    }
}
