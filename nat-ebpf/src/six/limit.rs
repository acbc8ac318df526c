//! As many flows as an inside host may open over IPv6, by its address: what [`crate::refusal`] is for IPv4.

use super::{
    control::{self, Kin},
    headers::Headers6,
    tables::Tables6,
};
use nat_common::{reason::Reason, rule::RuleId};

/// What a packet from inside begins that begins a flow. Its host counts for it, unless it did before
/// (`is_counted`): it opens a connection anew that it had opened, and that has ended.
///
/// # Errors
/// [`Reason::HostLimit`] and [`Reason::FlowBusy`], and why it begins nothing; then it does not count.
#[inline(always)]
pub(super) fn begun<T: Tables6>(
    tables: &mut T,
    headers: &Headers6,
    is_counted: bool,
    now: u32,
) -> Result<(RuleId, Kin), Reason> {
    if is_counted {
        return control::begun(tables, headers, now);
    }
    // Before an announcement is used up: a host at its limit can come again with it.
    let opened = tables.open_host6(&headers.src);
    if opened == Err(Reason::HostLimit) {
        tables.refuse_host6(&headers.src);
    }
    opened?;
    let begun = control::begun(tables, headers, now);
    if begun.is_err() {
        tables.close_host6(&headers.src);
    }
    begun
}
