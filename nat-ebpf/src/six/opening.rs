//! Packets from outside that nobody inside has asked for: what an FTP session has announced, or a rule, may
//! let them begin a flow; and an echo request where the settings say so (RFC 4890 section 4.3.1). A rule
//! about its host goes before that.

use super::{
    control::{self, Kin},
    headers::Headers6,
    tables::Tables6,
};
use crate::headers::Transport;
use nat_common::{flow::Zone, reason::Reason, rule::RuleId, six::opening_keys};

/// The rule by which a packet from outside may begin a flow, and what that is to FTP.
///
/// # Errors
/// [`Reason::Unsolicited`] and [`Reason::NotAllowed`], and why such a packet begins none.
#[inline(always)]
pub(super) fn of<T: Tables6>(
    tables: &mut T,
    headers: &Headers6,
    now: u32,
) -> Result<(RuleId, Kin), Reason> {
    let begins = headers.begins_flow();
    if begins.is_ok()
        && let Some(expected) = control::expected(tables, headers, Zone::Outside, now)
    {
        return Ok(expected);
    }
    for key in opening_keys(headers.protocol, headers.dst, headers.dport) {
        if let Some(opening) = tables.opening(&key) {
            let filter = opening.filter();
            if filter != 0 && !tables.allowed6(filter, &headers.src) {
                return Err(Reason::NotAllowed);
            }
            begins?;
            return Ok((opening.rule(), control::control(headers, opening.is_control())?));
        }
    }
    match headers.kind == Transport::EchoRequest && tables.settings().echo6 != 0 {
        true => Ok((RuleId::NONE, Kin::None)),
        false => Err(Reason::Unsolicited),
    }
}
