//! What the FTP engine's decisions are written to: maps of the data plane and the wire.
//!
//! Invariant: who writes through this trait decides the order; nothing here reorders, delays or
//! retries. In tests a list takes its place, which shows the order.

use nat_common::{
    expectation::{Expectation, ExpectationKey},
    reason::Reason,
    rule::EncryptedKey,
    sequence::Corrections,
    session::{Session, SessionId, Side},
    watch::Watch,
};

use super::send::SendError;
use crate::{alg, plane::PlaneError};

/// The data plane, as far as control connections need it. Its public ports and addresses are
/// asked for through [`alg::Gateway`].
pub trait Kernel: alg::Gateway {
    /// The record of a session; `None` where its place is free.
    ///
    /// # Errors
    /// Where the map can't be read; the same goes for everything else here.
    fn session(&mut self, id: SessionId) -> Result<Option<Session>, PlaneError>;

    /// Whether the control connection of a record is closed: both sides have sent FIN, one RST, or
    /// its flow is gone.
    ///
    /// # Errors
    /// See [`Kernel::session`].
    fn is_closed(&mut self, record: &Session) -> Result<bool, PlaneError>;

    /// Lets an announced connection in or out.
    ///
    /// # Errors
    /// Where the map is full, among others.
    fn expect(&mut self, key: &ExpectationKey, value: &Expectation) -> Result<(), PlaneError>;

    /// Takes an expectation back; that it has been used meanwhile is no error.
    ///
    /// # Errors
    /// See [`Kernel::session`].
    fn unexpect(&mut self, key: &ExpectationKey) -> Result<(), PlaneError>;

    /// Puts corrections of both sides in force at once: those of the originator, then those of the
    /// responder.
    ///
    /// # Errors
    /// See [`Kernel::session`].
    fn correct(&mut self, id: SessionId, sides: &[Corrections; 2]) -> Result<(), PlaneError>;

    /// Says which segments of `side` are wanted.
    ///
    /// # Errors
    /// See [`Kernel::session`].
    fn watch(&mut self, id: SessionId, side: Side, watch: Watch) -> Result<(), PlaneError>;

    /// Which are, and how far its records have been followed.
    ///
    /// # Errors
    /// See [`Kernel::session`].
    fn watched(&mut self, id: SessionId, side: Side) -> Result<Watch, PlaneError>;

    /// Lets harmless lines of `side` pass from number `to` on, with a copy for the agent; none with
    /// `None`. The session is that of `record`, or nothing happens.
    fn vouch(&mut self, id: SessionId, record: &Session, side: Side, to: Option<u32>);

    /// Opens the passive range of a rule to a client for the session that it holds, or closes it.
    ///
    /// # Errors
    /// See [`Kernel::session`].
    fn open_range(
        &mut self,
        key: &EncryptedKey,
        session: Option<SessionId>,
    ) -> Result<(), PlaneError>;

    /// Closes every range to all clients but those of these keys.
    ///
    /// # Errors
    /// See [`Kernel::session`].
    fn keep_ranges(&mut self, keys: &dyn Fn(&EncryptedKey) -> bool) -> Result<(), PlaneError>;

    /// Keeps what the engine has to know of a session after a crash.
    ///
    /// # Errors
    /// See [`Kernel::session`].
    fn remember(&mut self, id: SessionId, state: &[u8]) -> Result<(), PlaneError>;

    /// What a predecessor has kept.
    ///
    /// # Errors
    /// See [`Kernel::session`].
    fn recall(&mut self, id: SessionId) -> Result<Option<Vec<u8>>, PlaneError>;

    /// Notes of the flow of a record that it is reset.
    fn close(&mut self, record: &Session);

    /// Sends a whole packet.
    ///
    /// # Errors
    /// What the kernel says.
    fn send(&mut self, packet: &[u8]) -> Result<(), SendError>;

    /// Counts a packet that goes no further.
    fn count(&mut self, reason: Reason);
}
