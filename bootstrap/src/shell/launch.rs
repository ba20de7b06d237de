//! The phases `start` and `ready` where the server is a unit of systemd.

use std::time::Duration;

use super::perform::{PAUSE, watch};
use super::{Failure, Shell};
use crate::code::Code;
use crate::phases::Event;
use crate::unit::Unit;

impl Shell {
    /// The server's unit, if it is one.
    pub(super) fn unit(&self) -> Option<Unit> {
        self.args.unit.as_deref().map(Unit::new)
    }

    /// Has systemd start the server, anew if it runs on another configuration.
    pub(super) async fn launch(&mut self) -> Result<String, Failure> {
        let Some(unit) = self.unit() else {
            return Err(Failure::new(Code::Internal, "no unit to start"));
        };
        let failed = |e| Failure::of(Code::ServerMissing, &e);
        if self.rendered {
            // Whoever answers from here on has read the new configuration.
            unit.stop().await.map_err(failed)?;
        }
        unit.start().await.map_err(failed)?;
        Ok(format!("asked systemd for {}", unit.name()))
    }

    /// Waits until a stream opens or systemd has given it up.
    pub(super) async fn launched(&mut self) -> Event {
        let (Some(unit), Ok(site)) = (self.unit(), self.site()) else {
            return Event::Failed(Code::Internal, "no unit after start".into());
        };
        let patience = Duration::from_secs(self.args.ready_seconds);
        let mut last = String::from("nothing yet");
        let mut restarted = None;
        tokio::select! {
            code = given_up(&unit, &mut restarted) => return Event::ServerEnded(code),
            line = watch(site, None, &mut last) => return Event::Done(line),
            () = tokio::time::sleep(patience) => {}
        }
        if let Some(code) = restarted {
            return Event::ServerEnded(code);
        }
        let seconds = patience.as_secs();
        let why = format!("no XMPP stream opened within {seconds} s; last: {last}");
        Event::Failed(Code::ServerSilent, why)
    }
}

/// Ends with the server's exit code when systemd does not start it again. `restarted` is its exit
/// code as long as systemd does.
async fn given_up(unit: &Unit, restarted: &mut Option<u8>) -> u8 {
    loop {
        // Not to be told is no reason to end: the stream is what counts.
        if let Ok(state) = unit.state().await {
            if state.failed {
                return state.exit;
            }
            *restarted = state.restarting.then_some(state.exit).or(*restarted);
        }
        tokio::time::sleep(PAUSE * 5).await;
    }
}
