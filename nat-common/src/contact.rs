//! Remote addresses that inside endpoints have sent to: where filtering goes by them, they may send to
//! the public ports of those from any port (address-dependent filtering, RFC 4787 section 5).

use crate::port::Endpoint;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Room in the map `contacts`.
pub const CONTACTS: u32 = 1 << 17;

/// Key of the map `contacts`; the value is the second of the monotonic clock in which the inside has last
/// begun a flow to there.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Contact {
    public: Endpoint,
    remote: [u8; 4],
}

const _: () = assert!(size_of::<Contact>() == 12);

impl Contact {
    /// Whoever is seen as `public` has sent to `remote`.
    #[inline(always)]
    pub const fn new(public: Endpoint, remote: [u8; 4]) -> Self {
        Self { public, remote }
    }
}
