//! The sessions of a gateway, by their number.

use std::collections::HashMap;

use super::{
    Command, Segment, expect::Gateway, flow::ControlFlow, image::ImageError,
    refusal::ForeignAddress, session::Session,
};

/// Every control flow that is being read.
#[derive(Debug, Default)]
pub struct Sessions {
    open: HashMap<u32, Session>,
    foreign: ForeignAddress,
}

impl Sessions {
    /// No session, and what is done about third hosts in those to come.
    pub fn new(foreign: ForeignAddress) -> Sessions {
        Sessions { open: HashMap::new(), foreign }
    }

    /// A session from its SYN on, in the place of one that had its number before.
    pub fn start(&mut self, flow: ControlFlow) -> &mut Session {
        let session = Session::new(flow, self.foreign);
        self.open.entry(flow.session).insert_entry(session).into_mut()
    }

    /// Goes on with a session that a predecessor has left.
    pub fn resume(&mut self, image: &[u8]) -> Result<&mut Session, ImageError> {
        let session = Session::from_bytes(image)?;
        Ok(self.open.entry(session.flow().session).insert_entry(session).into_mut())
    }

    /// A session by its number.
    pub fn find(&mut self, session: u32) -> Option<&mut Session> {
        self.open.get_mut(&session)
    }

    /// A segment of a session; `None` when there is no such session.
    pub fn on_segment(
        &mut self,
        session: u32,
        segment: &Segment<'_>,
        gateway: &mut dyn Gateway,
    ) -> Option<Vec<Command>> {
        Some(self.open.get_mut(&session)?.on_segment(segment, gateway))
    }

    /// The control flow is over.
    pub fn end(&mut self, session: u32, gateway: &mut dyn Gateway) -> Vec<Command> {
        match self.open.remove(&session) {
            Some(mut session) => session.on_flow_end(gateway),
            None => Vec::new(),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.open.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}
