//! What changes between two looks at a list: `flows watch`, `expectations watch`, `drops --watch`.
//!
//! Invariant: pure; what comes and goes between two looks is not seen, and what ends and begins anew
//! under the same name is told as both.

use std::{
    collections::HashMap,
    hash::Hash,
    io::{self, Write},
};

use serde::Serialize;

use super::{
    printer::{Format, Pretty, Printer, json, versioned},
    tables::endpoint,
    units::{bytes, seconds},
    view::{DropsView, ExpectationView, FlowView},
};

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Happening {
    /// It was not there before.
    New,
    /// It is in another state.
    Update,
    /// It is gone; shown as it was last seen.
    Destroy,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event<T> {
    /// What.
    pub event: Happening,
    /// To what.
    #[serde(flatten)]
    pub subject: T,
}

/// An element of a list that is watched.
pub trait Watched: Clone {
    /// What tells it from the others.
    type Key: Hash + Eq + Clone;
    /// That.
    fn key(&self) -> Self::Key;
    /// Whether it is in another state than before.
    fn differs(&self, before: &Self) -> bool;
    /// Whether it is another one that has the key now.
    fn is_another(&self, before: &Self) -> bool;
}

/// Two looks at a list, one after the other.
#[derive(Debug)]
pub struct Watch<T: Watched> {
    last: Option<HashMap<T::Key, T>>,
}

impl<T: Watched> Default for Watch<T> {
    fn default() -> Self {
        Self { last: None }
    }
}

impl<T: Watched> Watch<T> {
    /// What has happened since the last look; nothing at the first one.
    pub fn look(&mut self, now: Vec<T>) -> Vec<Event<T>> {
        let now: HashMap<T::Key, T> = now.into_iter().map(|it| (it.key(), it)).collect();
        let Some(last) = self.last.take() else {
            self.last = Some(now);
            return vec![];
        };
        let mut events = vec![];
        let mut tell = |event, subject: &T| events.push(Event { event, subject: subject.clone() });
        for (key, before) in &last {
            match now.get(key) {
                Some(after) if !after.is_another(before) => {}
                Some(_) | None => tell(Happening::Destroy, before),
            }
        }
        for (key, after) in &now {
            match last.get(key) {
                Some(before) if after.is_another(before) => tell(Happening::New, after),
                Some(before) if after.differs(before) => tell(Happening::Update, after),
                Some(_) => {}
                None => tell(Happening::New, after),
            }
        }
        self.last = Some(now);
        events
    }
}

type Ends = [(std::net::IpAddr, u16); 4];

impl Watched for FlowView {
    type Key = (crate::rules::FlowProtocol, Ends);

    fn key(&self) -> Self::Key {
        let (there, back) = (&self.original, &self.reply);
        let ends = [
            (there.src, there.sport),
            (there.dst, there.dport),
            (back.src, back.sport),
            (back.dst, back.dport),
        ];
        (self.protocol, ends)
    }

    fn differs(&self, before: &Self) -> bool {
        self.state != before.state
    }

    fn is_another(&self, before: &Self) -> bool {
        self.age_s < before.age_s
    }
}

impl Watched for ExpectationView {
    type Key = (crate::rules::Protocol, std::net::IpAddr, std::net::IpAddr, u16);

    fn key(&self) -> Self::Key {
        (self.protocol, self.src, self.dst, self.dport)
    }

    fn differs(&self, before: &Self) -> bool {
        (self.to, self.to_port, self.session) != (before.to, before.to_port, before.session)
    }

    fn is_another(&self, before: &Self) -> bool {
        // It only runs out: one that has more time left was announced anew.
        self.expires_s > before.expires_s
    }
}

/// Drops of a reason since the last look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DropEvent {
    /// The reason.
    pub reason: String,
    /// Packets since the last look.
    pub packets: u64,
    /// All packets.
    pub total: u64,
}

impl DropEvent {
    /// Reasons that have occurred between two looks.
    pub fn between(before: &DropsView, now: &DropsView) -> Vec<Self> {
        let more = |(reason, total): (&String, &u64)| {
            let packets = total.saturating_sub(before.0.get(reason).copied().unwrap_or(0));
            (packets > 0).then(|| Self { reason: reason.clone(), packets, total: *total })
        };
        now.0.iter().filter_map(more).collect()
    }
}

/// Whether anybody still reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Somebody does.
    There,
    /// The pipe is closed.
    Gone,
}

impl Printer {
    /// Events of flows, a line each.
    ///
    /// # Errors
    /// Where stdout can't be written.
    pub fn flow_events(&self, events: &[Event<FlowView>]) -> io::Result<Reader> {
        self.events(events, |Event { event, subject: flow }| {
            let (there, back) = (&flow.original, &flow.reply);
            let mut line = format!(
                "{:<9}{:<7}{:<13}{} > {}  {} > {}",
                word(*event),
                flow.protocol,
                flow.state,
                endpoint(there.src, there.sport),
                endpoint(there.dst, there.dport),
                endpoint(back.src, back.sport),
                endpoint(back.dst, back.dport),
            );
            if let Some(rule) = &flow.rule {
                line += &format!("  rule {rule}");
            }
            if flow.alg.is_some() {
                line += "  ftp";
            }
            if let Some(session) = flow.related_to {
                line += &format!("  session {session}");
            }
            if *event == Happening::Destroy {
                let packets = there.packets.saturating_add(back.packets);
                let volume = bytes(there.bytes.saturating_add(back.bytes));
                line += &format!("  {packets} packets, {volume}, {}", seconds(flow.age_s));
            }
            line
        })
    }

    /// Events of expectations, a line each.
    ///
    /// # Errors
    /// Where stdout can't be written.
    pub fn expectation_events(&self, events: &[Event<ExpectationView>]) -> io::Result<Reader> {
        self.events(events, |Event { event, subject: it }| {
            format!(
                "{:<9}{:<5}{} > {}  led to {}  session {}",
                word(*event),
                it.protocol,
                it.src,
                endpoint(it.dst, it.dport),
                endpoint(it.to, it.to_port),
                it.session,
            )
        })
    }

    /// Drops since the last look, a line a reason.
    ///
    /// # Errors
    /// Where stdout can't be written.
    pub fn drop_events(&self, events: &[DropEvent]) -> io::Result<Reader> {
        self.events(events, |event| {
            format!("{:<18} {:>8} more, {} in all", event.reason, event.packets, event.total)
        })
    }

    /// Lines that leave at once. In both formats for scripts an event is an object on a line.
    fn events<T: Serialize>(
        &self,
        events: &[T],
        people: impl Fn(&T) -> String,
    ) -> io::Result<Reader> {
        let mut text = vec![];
        for event in events {
            match self.format() {
                Format::Table => text.extend(people(event).into_bytes()),
                Format::Json | Format::Jsonl => json(&mut text, &versioned(event), Pretty::No)?,
            }
            text.push(b'\n');
        }
        at_once(&text)
    }
}

/// Writes what has to be read now.
pub(super) fn at_once(text: &[u8]) -> io::Result<Reader> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        written => written.map(|()| Reader::There),
    }
}

fn word(event: Happening) -> &'static str {
    match event {
        Happening::New => "NEW",
        Happening::Update => "UPDATE",
        Happening::Destroy => "DESTROY",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::flow;

    fn told<T: Watched>(watch: &mut Watch<T>, now: Vec<T>) -> Vec<Happening> {
        watch.look(now).iter().map(|event| event.event).collect()
    }

    #[test]
    fn a_flow_is_told_of_when_it_comes_changes_and_goes() {
        let mut watch = Watch::default();
        assert_eq!(told(&mut watch, vec![flow()]), [], "what is there already is no news");
        assert_eq!(told(&mut watch, vec![]), [Happening::Destroy]);
        assert_eq!(told(&mut watch, vec![flow()]), [Happening::New]);
        let later = FlowView { age_s: 70, idle_s: 9, ..flow() };
        assert_eq!(told(&mut watch, vec![later]), [], "time alone is no news");
        let closing = FlowView { state: "closing".to_owned(), age_s: 71, ..flow() };
        assert_eq!(told(&mut watch, vec![closing]), [Happening::Update]);
    }

    #[test]
    fn one_that_ends_and_begins_anew_between_two_looks_is_told_as_both() {
        let mut watch = Watch::default();
        assert_eq!(told(&mut watch, vec![flow()]), []);
        let again = FlowView { age_s: 0, ..flow() };
        assert_eq!(told(&mut watch, vec![again]), [Happening::Destroy, Happening::New]);
    }

    #[test]
    fn an_event_is_the_object_with_a_word_in_front() {
        let event = Event { event: Happening::New, subject: flow() };
        let value = serde_json::to_value(versioned(&event)).unwrap();
        assert_eq!((&value["version"], &value["event"]), (&1.into(), &"new".into()));
        assert_eq!(value["original"]["sport"], 40000);
    }

    #[test]
    fn drops_are_told_by_difference() {
        let drops = |count: u64| DropsView([("no-syn".to_owned(), count)].into());
        assert_eq!(DropEvent::between(&drops(3), &drops(3)), []);
        let event = DropEvent { reason: "no-syn".to_owned(), packets: 2, total: 5 };
        assert_eq!(DropEvent::between(&drops(3), &drops(5)), [event]);
    }
}
