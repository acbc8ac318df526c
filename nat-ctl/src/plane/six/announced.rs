//! What FTP sessions over IPv6 have in maps, and nobody needs any more.

use std::collections::BTreeSet;

use aya::maps::MapError;
use nat_common::{
    layout::SESSIONS,
    six::{Expectation6, Expectation6Key, Flow6Key},
};

use crate::plane::{
    clock::Now,
    error::{PlaneError, Result},
    maps::{self, Maps},
};

/// What a look at all of it has found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Entries that are left.
    pub left: u64,
    /// Expectations that nobody has used.
    pub unused: u64,
}

/// Removes expectations that are over, and what was kept of control connections whose flow is.
///
/// # Errors
/// Where the kernel refuses.
pub fn sweep(maps: &mut Maps, now: Now) -> Result<Swept> {
    let mut swept = Swept::default();
    expectations(maps, now, &mut swept)
        .map_err(PlaneError::refused("sweep expectations of IPv6"))?;
    let kept: std::result::Result<Vec<_>, MapError> = maps.controls6.iter().collect();
    let refused = || PlaneError::refused("sweep FTP sessions over IPv6");
    let states = states(maps).map_err(refused())?;
    let mut sessions = BTreeSet::new();
    for (key, control) in kept.map_err(refused())? {
        if has_flow(maps, &key, control.created())? {
            swept.left += 1;
            sessions.insert(control.session().number());
        } else {
            maps::remove(&mut maps.controls6, &key).map_err(refused())?;
        }
    }
    let watched: std::result::Result<Vec<_>, MapError> = maps.watches6.keys().collect();
    for side in watched.map_err(refused())? {
        if maps::optional(maps.controls6.get(&side.flow(), 0)).map_err(refused())?.is_none() {
            maps::remove(&mut maps.watches6, &side).map_err(refused())?;
        }
    }
    for number in states.iter().filter(|number| !sessions.contains(number)) {
        maps::remove(&mut maps.journal, number).map_err(refused())?;
    }
    Ok(swept)
}

/// Sessions over IPv6 of which the whole state is kept. They were listed before the sessions that there
/// are, which are kept first.
fn states(maps: &Maps) -> std::result::Result<Vec<u32>, MapError> {
    let all: Vec<u32> = maps.journal.keys().collect::<std::result::Result<_, _>>()?;
    Ok(all.into_iter().filter(|number| *number > SESSIONS).collect())
}

fn expectations(maps: &mut Maps, now: Now, swept: &mut Swept) -> std::result::Result<(), MapError> {
    let all: Vec<(Expectation6Key, Expectation6)> =
        maps.expectations6.iter().collect::<std::result::Result<_, _>>()?;
    for (key, found) in all {
        if now.seconds() < found.expires() {
            swept.left += 1;
        // Announced anew with the same key in between, it has another end.
        } else if maps::optional(maps.expectations6.get(&key, 0))? == Some(found)
            && maps::remove(&mut maps.expectations6, &key)?
        {
            swept.unused += 1;
        }
    }
    Ok(())
}

/// Whether the flow that was made in that second is still there.
fn has_flow(maps: &Maps, key: &Flow6Key, created: u32) -> Result<bool> {
    Ok(maps.flows6.find(key)?.is_some_and(|flow| flow.created() == created))
}
