//! Packets from outside that nobody inside has asked for: a rule may let them begin a flow.

use super::{headers::Headers6, tables::Tables6};
use nat_common::{reason::Reason, rule::RuleId, six::opening_keys};

/// The rule by which a packet from outside may begin a flow.
///
/// # Errors
/// [`Reason::Unsolicited`] and [`Reason::NotAllowed`], and why such a packet begins none.
#[inline(always)]
pub(super) fn of<T: Tables6>(tables: &T, headers: &Headers6) -> Result<RuleId, Reason> {
    for key in opening_keys(headers.protocol, headers.dst, headers.dport) {
        if let Some(opening) = tables.opening(&key) {
            let filter = opening.filter();
            if filter != 0 && !tables.allowed6(filter, &headers.src) {
                return Err(Reason::NotAllowed);
            }
            headers.begins_flow()?;
            return Ok(opening.rule());
        }
    }
    Err(Reason::Unsolicited)
}
