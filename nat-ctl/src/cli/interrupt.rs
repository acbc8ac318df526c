//! Commands that go on until Ctrl-C, which is no error.

use std::{ops::ControlFlow, time::Duration};

use nat_ctl::error::{Exit, Failure};
use tokio::{
    runtime::Builder,
    signal::ctrl_c,
    time::{MissedTickBehavior, interval},
};

/// Takes a step at each interval, until one says that it was the last, or Ctrl-C.
pub fn until_interrupted(
    period: Duration,
    mut step: impl FnMut() -> Result<ControlFlow<()>, Failure>,
) -> Result<(), Failure> {
    let failed = |error| Failure::new(Exit::Error, format_args!("wait for Ctrl-C: {error}"));
    let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let interrupted = ctrl_c();
        tokio::pin!(interrupted);
        loop {
            tokio::select! {
                pressed = &mut interrupted => return pressed.map_err(failed),
                _ = ticks.tick() => if step()?.is_break() { return Ok(()) },
            }
        }
    })
}
