//! What the bridge of IPv6 reads and writes: maps of the data plane and the wire.
//!
//! Invariant: as for IPv4, who writes through this trait decides the order. In tests a list takes its
//! place, which shows the order.

use nat_common::{
    flow::Zone,
    reason::Reason,
    session::SessionId,
    six::{Control6, Expectation6, Expectation6Key, Flow6, Flow6Key},
    watch::Watch,
};

use crate::{
    agent::send::SendError,
    plane::{PlaneError, Prefixes},
};

/// The data plane, as far as control connections over IPv6 need it.
pub trait Kernel {
    /// A flow.
    ///
    /// # Errors
    /// Where the map can't be read; the same goes for everything else here.
    fn flow(&mut self, key: &Flow6Key) -> Result<Option<Flow6>, PlaneError>;

    /// What a predecessor has kept of a control connection.
    ///
    /// # Errors
    /// See [`Kernel::flow`].
    fn control(&mut self, key: &Flow6Key) -> Result<Option<Control6>, PlaneError>;

    /// The same of all of them.
    ///
    /// # Errors
    /// See [`Kernel::flow`].
    fn controls(&mut self) -> Result<Vec<(Flow6Key, Control6)>, PlaneError>;

    /// Keeps that.
    ///
    /// # Errors
    /// See [`Kernel::flow`].
    fn keep(&mut self, key: &Flow6Key, control: &Control6) -> Result<(), PlaneError>;

    /// Says what is wanted of what arrives from `zone` of an encrypted connection.
    ///
    /// # Errors
    /// See [`Kernel::flow`].
    fn watch(&mut self, key: &Flow6Key, zone: Zone, watch: Watch) -> Result<(), PlaneError>;

    /// What is wanted of it, as the data plane has moved it on.
    ///
    /// # Errors
    /// See [`Kernel::flow`].
    fn watched(&mut self, key: &Flow6Key, zone: Zone) -> Result<Option<Watch>, PlaneError>;

    /// The prefixes that are translated.
    fn prefixes(&self) -> &Prefixes;

    /// Keeps the whole state of a session.
    ///
    /// # Errors
    /// See [`Kernel::flow`].
    fn remember(&mut self, session: SessionId, state: &[u8]) -> Result<(), PlaneError>;

    /// Reads that.
    ///
    /// # Errors
    /// See [`Kernel::flow`].
    fn recall(&mut self, session: SessionId) -> Result<Option<Vec<u8>>, PlaneError>;

    /// Forgets that.
    ///
    /// # Errors
    /// See [`Kernel::flow`].
    fn forget(&mut self, session: SessionId) -> Result<(), PlaneError>;

    /// Lets an announced connection in or out.
    ///
    /// # Errors
    /// Where the map is full, among others.
    fn expect(&mut self, key: &Expectation6Key, value: &Expectation6) -> Result<(), PlaneError>;

    /// Takes that back; that it has been used meanwhile is no error.
    ///
    /// # Errors
    /// See [`Kernel::flow`].
    fn unexpect(&mut self, key: &Expectation6Key) -> Result<(), PlaneError>;

    /// Notes of a flow that it is reset.
    ///
    /// # Errors
    /// See [`Kernel::flow`].
    fn close(&mut self, key: &Flow6Key) -> Result<(), PlaneError>;

    /// Sends a whole packet.
    ///
    /// # Errors
    /// What the kernel says.
    fn send(&mut self, packet: &[u8]) -> Result<(), SendError>;

    /// Counts a packet that goes no further.
    fn count(&mut self, reason: Reason);
}
