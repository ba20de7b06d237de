//! The queue before a link: whoever sends never waits, and the bytes that wait have a bound.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use crate::frame::LENGTH_BYTES;

/// Sends frames over one link; a clone sends over the same one. After the link has ended it only
/// says so, also where a newer link with the node exists.
#[derive(Clone)]
pub struct LinkSender(pub(crate) Arc<Queue>);

/// Why a frame was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// The link has ended, or ends because of this frame; its `Down` follows. What was sent before
    /// may or may not have arrived.
    #[error("the link is broken; what it carried must go over the next one")]
    Broken,
    /// The frame is over the bound of one, so no link would carry it. The link stays as it is.
    #[error("a frame of {bytes} bytes is over the bound of one, {most}")]
    TooBig {
        /// Its size.
        bytes: usize,
        /// The bound.
        most: usize,
    },
}

impl LinkSender {
    /// Queues a frame; never waits.
    ///
    /// # Errors
    /// [`NotTaken::Broken`]: the link has ended, or the frame would take what waits over
    /// [`crate::Options::queue_bytes`], which ends the link. [`NotTaken::TooBig`]: the frame is
    /// over [`crate::Options::frame_bytes`], which is logged.
    pub fn send(&self, frame: impl Into<Bytes>) -> Result<(), NotTaken> {
        self.0.push(frame.into())
    }
}

impl fmt::Debug for LinkSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.0.lock().bytes;
        f.debug_struct("LinkSender")
            .field("waiting", &waiting)
            .finish()
    }
}

/// Frames that wait for the writer.
pub(crate) struct Queue {
    state: Mutex<State>,
    wake: Notify,
    closed: watch::Sender<Option<&'static str>>,
    queue_bytes: usize,
    frame_bytes: usize,
}

#[derive(Default)]
struct State {
    frames: VecDeque<Bytes>,
    /// Of the frames that wait or are being written, with their lengths.
    bytes: usize,
    broken: bool,
    /// A frame was too big. Whoever tries it again and again is warned of once.
    refused: bool,
}

impl Queue {
    pub(crate) fn new(queue_bytes: usize, frame_bytes: usize) -> Queue {
        Queue {
            state: Mutex::default(),
            wake: Notify::new(),
            closed: watch::Sender::new(None),
            queue_bytes,
            frame_bytes: frame_bytes.min(u32::MAX as usize),
        }
    }

    fn push(&self, frame: Bytes) -> Result<(), NotTaken> {
        let mut state = self.lock();
        if state.broken {
            return Err(NotTaken::Broken);
        }
        if frame.len() > self.frame_bytes {
            // What else the link carries shall not suffer from it: it would be too big for the
            // next link as well.
            let told = std::mem::replace(&mut state.refused, true);
            drop(state);
            return Err(self.refuse(frame.len(), told));
        }
        let bytes = state.bytes.saturating_add(LENGTH_BYTES + frame.len());
        if bytes > self.queue_bytes {
            drop(state);
            self.close("the queue to send is full");
            return Err(NotTaken::Broken);
        }
        state.bytes = bytes;
        state.frames.push_back(frame);
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    fn refuse(&self, bytes: usize, told: bool) -> NotTaken {
        let most = self.frame_bytes;
        let refusal = NotTaken::TooBig { bytes, most };
        match told {
            true => tracing::debug!(bytes, most, "a frame for another node is too big, again"),
            false => tracing::error!(
                bytes,
                most,
                "a frame for another node is too big, and is not sent: most likely the state of a \
                 slot, which then has no copy"
            ),
        }
        refusal
    }

    /// Ends the link; the first reason stands.
    pub(crate) fn close(&self, reason: &'static str) {
        {
            let mut state = self.lock();
            state.broken = true;
            state.frames.clear();
        }
        self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            closed.get_or_insert(reason);
            first
        });
    }

    /// Waits for [`Queue::close`] and says why.
    pub(crate) async fn closed(&self) -> &'static str {
        let mut closed = self.closed.subscribe();
        let reason = closed.wait_for(Option::is_some).await;
        reason.ok().and_then(|reason| *reason).unwrap_or("closed")
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.borrow().is_some()
    }

    /// Waits for frames and takes them in order: at least one, and no more after `enough` bytes.
    /// Says how many bytes they are to [`Queue::written`].
    pub(crate) async fn take(&self, enough: usize, into: &mut Vec<Bytes>) -> usize {
        loop {
            let taken = self.take_now(enough, into);
            if taken > 0 {
                return taken;
            }
            self.wake.notified().await;
        }
    }

    fn take_now(&self, enough: usize, into: &mut Vec<Bytes>) -> usize {
        let mut state = self.lock();
        let mut taken = 0;
        while taken < enough
            && let Some(frame) = state.frames.pop_front()
        {
            taken += LENGTH_BYTES + frame.len();
            into.push(frame);
        }
        taken
    }

    /// Makes room for what was taken and is written now.
    pub(crate) fn written(&self, bytes: usize) {
        let mut state = self.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_being_written_counts_until_it_is_written() {
        let queue = Queue::new(20, 10);
        queue.push(Bytes::from_static(b"123456")).unwrap();
        queue.push(Bytes::from_static(b"abcdef")).unwrap();
        let mut frames = Vec::new();
        assert_eq!(queue.take(1, &mut frames).await, 10);
        queue.written(10);
        queue.push(Bytes::from_static(b"ABCDEF")).unwrap();
        assert_eq!(queue.take(100, &mut frames).await, 20);
        assert_eq!(frames, [&b"123456"[..], b"abcdef", b"ABCDEF"]);
        assert_eq!(queue.push(Bytes::new()), Err(NotTaken::Broken));
        assert_eq!(queue.closed().await, "the queue to send is full");
    }

    #[tokio::test]
    async fn a_frame_that_the_other_side_would_refuse_is_not_taken_and_breaks_nothing() {
        let queue = Queue::new(100, 10);
        queue.push(Bytes::from_static(b"before")).unwrap();
        let refused = Err(NotTaken::TooBig {
            bytes: 11,
            most: 10,
        });
        for _ in 0..2 {
            assert_eq!(queue.push(Bytes::from_static(&[0; 11])), refused);
        }
        queue.push(Bytes::from_static(b"after")).unwrap();
        assert!(!queue.is_closed());
        let mut frames = Vec::new();
        assert_eq!(queue.take(100, &mut frames).await, 19, "it has no share");
        assert_eq!(frames, [&b"before"[..], b"after"]);
    }
}
