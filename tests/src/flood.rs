//! Floods that are kept up while something else is looked at.

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::Result;

use crate::{gateway::NatCtl, wait};

/// How a flood goes on when the table is full: so many from either side, and a pause.
const WAVE: usize = 2;
const PAUSE: Duration = Duration::from_millis(100);

/// Sends `wave` after `wave`, in a thread of its own, until `body` ends.
pub fn beside<T>(mut wave: impl FnMut() + Send, body: impl FnOnce() -> T) -> T {
    /// Ends the flood where `body` panics, too.
    struct Until<'a>(&'a AtomicBool);

    impl Drop for Until<'_> {
        fn drop(&mut self) {
            self.0.store(false, Ordering::Relaxed);
        }
    }

    let on = AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            while on.load(Ordering::Relaxed) {
                wave();
            }
        });
        let _until = Until(&on);
        body()
    })
}

/// Floods a table by all of these ends, and then by some at a time, until it has refused a flow, `new` flows
/// pass, and `status` says that others end early for them.
pub fn fill(
    gateway: &NatCtl<'_>,
    limit: Duration,
    ends: &[[UdpSocket; 2]],
    flood: impl Fn(&[[UdpSocket; 2]]) + Sync,
    new: impl Fn() -> bool,
) -> Result<()> {
    flood(ends);
    let mut waves = ends.chunks(WAVE).cycle();
    let flood = &flood;
    let wave = move || {
        waves.next().into_iter().for_each(flood);
        thread::sleep(PAUSE);
    };
    beside(wave, || {
        wait::until_true(limit, "a full table", || Ok(gateway.dropped("table-full")? > 0))?;
        wait::until_true(limit, "new flows", || Ok(new()))?;
        wait::until_true(limit, "a state", || {
            let status = gateway.json(&["status"])?;
            let states = status["overload"].as_array().cloned().unwrap_or_default();
            Ok(states.iter().any(|it| {
                it["state"] == "table-pressure" && it["ended"].as_u64().is_some_and(|it| it > 0)
            }))
        })
    })
}
