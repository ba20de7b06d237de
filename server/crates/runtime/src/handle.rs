//! How the rest of the process speaks to the home.

use cirrus_jid::BareJid;
use cirrus_router::{PipeEvent, PipeId, PipeOut};
use cirrus_store::Item;
use tokio::sync::{mpsc, oneshot};

use cirrus_node::{Census, Place, Public, ViewSeen};

/// The home has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server is stopping")]
pub struct Gone;

/// A message to the task that owns the home.
pub(crate) enum Message {
    Attach(PipeId, mpsc::Sender<PipeOut>),
    Pipe(PipeId, PipeEvent),
    Erase(BareJid, oneshot::Sender<Result<(), String>>),
    Seal(BareJid, oneshot::Sender<Result<(), String>>),
    Census(oneshot::Sender<Census>),
    Shutdown(oneshot::Sender<()>),
    Unpark(BareJid, Item, oneshot::Sender<()>),
    View(oneshot::Sender<Option<ViewSeen>>),
    Place(BareJid, oneshot::Sender<Option<Place>>),
    Elsewhere(BareJid, oneshot::Sender<Option<Public>>),
    Drain {
        anyway: bool,
        answer: oneshot::Sender<bool>,
    },
    Undrain,
    Leave(oneshot::Sender<()>),
}

/// Speaks to the home. Cheap to clone.
#[derive(Clone)]
pub struct HomeHandle {
    /// What pipes and accounts want, in order: it waits while the store has too much to do.
    pub(crate) inbox: mpsc::Sender<Message>,
    /// What is asked of the node itself: it waits for nothing.
    pub(crate) desk: mpsc::Sender<Message>,
}

impl HomeHandle {
    /// Introduces a pipe: what the home has for it goes into `queue`. A pipe whose queue is full
    /// is taken as broken and its queue is dropped.
    ///
    /// # Errors
    /// [`Gone`] when the server is stopping.
    pub async fn attach(&self, pipe: PipeId, queue: mpsc::Sender<PipeOut>) -> Result<(), Gone> {
        self.tell(Message::Attach(pipe, queue)).await
    }

    /// Tells the home what a pipe has; waits while the home's queue is full.
    ///
    /// # Errors
    /// [`Gone`] when the server is stopping.
    pub async fn send(&self, pipe: PipeId, event: PipeEvent) -> Result<(), Gone> {
        self.tell(Message::Pipe(pipe, event)).await
    }

    /// Ends the account's sessions and erases what it owns outside the accounts table.
    ///
    /// # Errors
    /// Why it could not be finished; it may be repeated.
    pub async fn erase(&self, user: BareJid) -> Result<(), String> {
        let (answer, wait) = oneshot::channel();
        let asked = self.ask(Message::Erase(user, answer), wait).await;
        asked.map_err(|gone| gone.to_string())?
    }

    /// Seals what of an account's log is not sealed, and removes what is too old.
    ///
    /// # Errors
    /// Why it could not be finished; it may be repeated.
    pub async fn seal(&self, user: BareJid) -> Result<(), String> {
        let (answer, wait) = oneshot::channel();
        let asked = self.ask(Message::Seal(user, answer), wait).await;
        asked.map_err(|gone| gone.to_string())?
    }

    /// Counts of what is in memory.
    ///
    /// # Errors
    /// [`Gone`] when the server is stopping.
    pub async fn census(&self) -> Result<Census, Gone> {
        let (answer, wait) = oneshot::channel();
        self.ask_desk(Message::Census(answer), wait).await
    }

    /// The view; `None` where this node is and will be alone.
    ///
    /// # Errors
    /// [`Gone`] when the server is stopping.
    pub async fn view(&self) -> Result<Option<ViewSeen>, Gone> {
        let (answer, wait) = oneshot::channel();
        self.ask_desk(Message::View(answer), wait).await
    }

    /// Where an account is; `None` where this node is and will be alone, or has no view yet.
    ///
    /// # Errors
    /// [`Gone`] when the server is stopping.
    pub async fn place(&self, user: BareJid) -> Result<Option<Place>, Gone> {
        let (answer, wait) = oneshot::channel();
        self.ask_desk(Message::Place(user, answer), wait).await
    }

    /// Where a client of an account is best off on another node; `None` where nodes have no
    /// addresses of their own, and where there is no other.
    ///
    /// # Errors
    /// [`Gone`] when the server is stopping.
    pub async fn elsewhere(&self, user: BareJid) -> Result<Option<Public>, Gone> {
        let (answer, wait) = oneshot::channel();
        self.ask(Message::Elsewhere(user, answer), wait).await
    }

    /// Waits until other nodes have everything that is here, so that sessions go on there. If there
    /// is no other node, ends every session, waits until what they leave is durable, and parks
    /// those that can be resumed. Waits no longer than the home's own deadlines for that.
    pub async fn shutdown(&self) {
        let (answer, wait) = oneshot::channel();
        // An error means that the home is gone already, which is what was asked for.
        let _ = self.ask(Message::Shutdown(answer), wait).await;
    }

    /// Gives a session that the last process has parked to its account's home, from its row, and
    /// waits until it can be resumed.
    ///
    /// # Errors
    /// [`Gone`] when the server is stopping.
    pub async fn unpark(&self, user: BareJid, row: Item) -> Result<(), Gone> {
        let (answer, wait) = oneshot::channel();
        self.ask(Message::Unpark(user, row, answer), wait).await
    }

    /// Gives every slot of this node to others; it stays a pipe. `true` when that is done, `false`
    /// when there is nobody to give them to: then nothing has changed, unless it is to give them
    /// away `anyway`, to whoever comes.
    ///
    /// # Errors
    /// [`Gone`] when the server is stopping.
    pub async fn drain(&self, anyway: bool) -> Result<bool, Gone> {
        let (answer, wait) = oneshot::channel();
        self.ask_desk(Message::Drain { anyway, answer }, wait).await
    }

    /// Takes back a drain: the node is to have slots again.
    ///
    /// # Errors
    /// [`Gone`] when the server is stopping.
    pub async fn undrain(&self) -> Result<(), Gone> {
        self.desk.send(Message::Undrain).await.map_err(|_| Gone)
    }

    /// Leaves the cluster; the process may exit then.
    pub async fn leave(&self) {
        let (answer, wait) = oneshot::channel();
        // An error means that the node is gone already, which is what was asked for.
        let _ = self.ask_desk(Message::Leave(answer), wait).await;
    }

    /// Says something that has an answer, and waits for it.
    async fn ask<T>(&self, message: Message, answer: oneshot::Receiver<T>) -> Result<T, Gone> {
        ask(&self.inbox, message, answer).await
    }

    /// The same of what is asked of the node itself.
    async fn ask_desk<T>(&self, message: Message, answer: oneshot::Receiver<T>) -> Result<T, Gone> {
        ask(&self.desk, message, answer).await
    }

    async fn tell(&self, message: Message) -> Result<(), Gone> {
        self.inbox.send(message).await.map_err(|_| Gone)
    }
}

async fn ask<T>(
    queue: &mpsc::Sender<Message>,
    message: Message,
    answer: oneshot::Receiver<T>,
) -> Result<T, Gone> {
    queue.send(message).await.map_err(|_| Gone)?;
    tokio::select! {
        biased;
        answer = answer => answer.map_err(|_| Gone),
        // A message that was sent while the task ended may stay in the queue, and its answer's
        // sender with it, as long as this handle lives.
        () = queue.closed() => Err(Gone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_that_nobody_will_give_is_not_waited_for() {
        let (inbox, _) = mpsc::channel(1);
        let (desk, mut messages) = mpsc::channel(1);
        let handle = HomeHandle { inbox, desk };
        let end = async {
            while messages.is_empty() {
                tokio::task::yield_now().await;
            }
            messages.close();
        };
        let (seen, ()) = tokio::join!(handle.census(), end);
        assert_eq!(
            seen.map(drop),
            Err(Gone),
            "the question is still in the queue"
        );
    }
}
