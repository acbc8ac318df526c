//! What a session does about an announcement: a pinhole and a new text, or a refusal.
//!
//! Invariant: of an announcement that is refused, no inside address leaves that could still be
//! replaced.

use std::net::{IpAddr, SocketAddr};

use super::{Placed, Session, change::Change};
use crate::alg::{
    Command, Event,
    announcement::{Announcement, Reading, Stated},
    expect::{Expectation, ExpectationKey, Gateway, PortRequest, Translation},
    flow::{Course, Side},
    keyword,
    opening::{self, Promise, Promised},
    pinhole::{Kind, PinholeId},
    refusal::{ForeignAddress, Refusal},
};

impl Session {
    /// Acts on what a complete line announces.
    pub(super) fn announce(
        &mut self,
        placed: &Placed<'_>,
        reading: Reading,
        gateway: &mut dyn Gateway,
        out: &mut Vec<Command>,
    ) -> Option<PinholeId> {
        let promise = self.stream_mut(placed.side).promise.take();
        let (refusal, stated) = match reading {
            Reading::Nothing => match &promise {
                Some(_) => (Refusal::CutLine, None),
                None => return None,
            },
            Reading::Refused(refusal, stated) => (refusal, stated),
            Reading::Announced(Announcement { stated: Some(stated), .. })
                if !self.flow.is_of_family(stated.address) =>
            {
                (Refusal::OtherFamily, None)
            }
            Reading::Announced(found) => match self.permit(placed, &found, &promise, gateway) {
                Ok(public) => return Some(self.open(placed, &found, public, promise, out)),
                Err(refusal) => (refusal, found.stated),
            },
        };
        if let Some(promise) = &promise {
            self.give_back(placed.side, promise.port, gateway);
        }
        if refusal != Refusal::ForeignAddress || self.policy.foreign == ForeignAddress::Refuse {
            out.push(refused(placed, refusal));
        }
        // Even behind a promise: it may have been made of another number in the line.
        let hidden = stated.is_some_and(|stated| self.hide(placed, &stated, gateway));
        let hidden = hidden || promise.is_some();
        if hidden {
            let line = keyword::masked(&placed.line.text);
            out.push(Command::Log(Event::LeakPrevented { side: placed.side, line }));
        }
        None
    }

    /// Whether the announcement may have its pinhole, and with which port outside.
    fn permit(
        &self,
        placed: &Placed<'_>,
        found: &Announcement,
        promise: &Option<Promise>,
        gateway: &mut dyn Gateway,
    ) -> Result<u16, Refusal> {
        let side = placed.side;
        if let Some(refusal) = self.dialogue.forbids(side) {
            return Err(refusal);
        }
        if self.policy.strict.is_some() && !self.dialogue.is_logged_in() {
            return Err(Refusal::NotLoggedIn);
        }
        if let Some(stated) = &found.stated
            && !self.own(side).contains(&stated.address)
        {
            return Err(Refusal::ForeignAddress);
        }
        if found.port < 1024 {
            return Err(Refusal::SystemPort);
        }
        if !self.flow.is_inside(side) {
            return gateway.admit(self.flow.client.ip()).map(|()| found.port);
        }
        // It was admitted when its address began.
        if let Some(promise) = promise {
            return match promise.port {
                Promised::Port(port) if promise.is_kept_by(found) => Ok(port),
                Promised::Own if promise.is_kept_by(found) => Ok(found.port),
                Promised::Port(_) | Promised::Own | Promised::Nothing => Err(Refusal::CutLine),
            };
        }
        gateway.admit(self.flow.client.ip())?;
        let address = self.flow.seen(side).ip();
        let stated = found.stated.as_ref().is_some_and(|stated| stated.address == address);
        let inside = self.host(side, found);
        let claimed = self.claim(side, inside, Some(found.port), stated, gateway);
        let public = claimed.ok_or(Refusal::NoPublicPort)?;
        if self.change(placed, found, public).is_some_and(|change| change.at < placed.line.passed) {
            self.release(side, public, gateway);
            return Err(Refusal::CutLine);
        }
        Ok(public)
    }

    /// Makes the expectation, and puts the public address into the line.
    pub(super) fn open(
        &mut self,
        placed: &Placed<'_>,
        found: &Announcement,
        public: u16,
        promise: Option<Promise>,
        out: &mut Vec<Command>,
    ) -> PinholeId {
        let (side, peer) = (placed.side, placed.side.other());
        let own = SocketAddr::new(self.host(side, found), found.port);
        let from = self.flow.address(peer);
        let claimed = SocketAddr::new(self.flow.seen(side).ip(), public);
        let (to, translation) = match self.flow.course(from) {
            Course::Inward => (claimed, Translation::Inbound(own)),
            Course::Outward => (own, Translation::Outbound(self.flow.seen(peer).ip())),
            Course::Turned => {
                let public = self.flow.seen(peer).ip();
                (claimed, Translation::Turned { dials: peer, to: own, public })
            }
        };
        let key = ExpectationKey { from, to };
        let bound = side == Side::Server && self.dialogue.transfer_waits();
        let (id, oldest) =
            self.pinholes.add(key, Kind::of(found.form), bound, self.policy.quota.per_session);
        out.extend(self.take_back(oldest.into_iter().collect()));
        for key in self.twins(key) {
            out.push(Command::Expect(Expectation { key, translation }));
        }
        self.dialogue.announced(found.form);
        if promise.is_none()
            && let Some(change) = self.change(placed, found, public)
        {
            out.extend(self.apply(placed, change));
        }
        id
    }

    /// Puts the public address in the place of an inside one that will not be served. Whether it
    /// was one, and could be replaced.
    fn hide(&mut self, placed: &Placed<'_>, stated: &Stated, gateway: &mut dyn Gateway) -> bool {
        let own = self.flow.address(placed.side);
        let public = self.flow.seen(placed.side).ip();
        if !self.flow.is_inside(placed.side)
            || stated.address != own && !gateway.is_inside(stated.address)
            || stated.address == public
        {
            return false;
        }
        let text = stated.separator.write(public);
        let change = Change::between(&placed.line.text, stated.span.start, stated.span.end, text);
        change.is_some_and(|change| {
            change.at >= placed.line.passed && self.apply(placed, change).is_some()
        })
    }

    /// What has to change in the line for it to announce the public address and port.
    pub(super) fn change(
        &self,
        placed: &Placed<'_>,
        found: &Announcement,
        public: u16,
    ) -> Option<Change> {
        let address = self.flow.seen(placed.side).ip();
        let same = found.stated.as_ref().is_none_or(|stated| stated.address == address);
        if !self.flow.is_inside(placed.side) || same && found.port == public {
            return None;
        }
        let line = placed.line;
        let text = found.rewritten(address, public);
        let change = Change::between(&line.text, found.span.start, found.span.end, text)?;
        if change.at >= line.passed {
            return Some(change);
        }
        // The verb has left as it was. What is behind it may still be in time.
        let own = self.own(placed.side);
        let argument = opening::find(placed.side, &line.text, &own).and_then(|opening| {
            let span = opening.span(&line.text, Promised::Port(public));
            Change::between(&line.text, span.start, span.end, opening.text(address, public))
        });
        Some(argument.unwrap_or(change))
    }

    fn apply(&mut self, placed: &Placed<'_>, change: Change) -> Option<Command> {
        let Change { at, old_len, text } = change;
        let mut after = placed.line.text.clone();
        after.splice(at..at + old_len, text.iter().copied());
        let start = placed.start.wrapping_add(at as u32);
        self.stream_mut(placed.side).edit(start, old_len, text).ok()?;
        Some(Command::Log(Event::Rewritten {
            side: placed.side,
            before: keyword::masked(&placed.line.text),
            after: keyword::masked(&after),
        }))
    }

    pub(super) fn claim(
        &self,
        side: Side,
        inside: IpAddr,
        port: Option<u16>,
        stated: bool,
        gateway: &mut dyn Gateway,
    ) -> Option<u16> {
        if !self.flow.is_translated(side) {
            return port;
        }
        let (session, public) = (self.flow.session, self.flow.seen(side).ip());
        let request = PortRequest { session, public, inside, port, stated };
        gateway.claim(&request).filter(|port| *port >= 1024)
    }

    /// The host that an announcement of an end leads to.
    fn host(&self, side: Side, found: &Announcement) -> IpAddr {
        let stated = found.stated.as_ref().map(|stated| stated.address);
        let other = stated.filter(|it| side == Side::Server && self.others().contains(it));
        other.unwrap_or(self.flow.address(side))
    }

    pub(super) fn release(&self, side: Side, port: u16, gateway: &mut dyn Gateway) {
        if self.flow.is_translated(side) {
            gateway.release(SocketAddr::new(self.flow.seen(side).ip(), port));
        }
    }

    /// A promise is not kept.
    pub(super) fn give_back(&self, side: Side, port: Promised, gateway: &mut dyn Gateway) {
        match port {
            Promised::Port(port) => self.release(side, port, gateway),
            Promised::Own | Promised::Nothing => {}
        }
    }
}

/// A line that makes no expectation.
pub(super) fn refused(placed: &Placed<'_>, reason: Refusal) -> Command {
    let line = keyword::masked(&placed.line.text);
    Command::Log(Event::Refused { side: placed.side, reason, line })
}
