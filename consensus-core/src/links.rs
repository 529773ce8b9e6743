//! Which members no link leads to or comes from any more because links were reset, as those of a process that has died.
//!
//! Follows the connections with each member, in both directions, and tells the raft thread. Silence is nobody's death: of a
//! network that is cut, and of a machine that is gone without a word, nothing is told. What follows from a hint is decided in
//! `consensus-raft`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use dwcp_core::Reach;
use tokio::{
    sync::{Mutex, mpsc, watch},
    time::timeout,
};

use crate::inbox::Input;

/// Who makes the links of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dials {
    Own,
    Peer,
}

/// What is known of the links with all members.
#[derive(Debug)]
pub(crate) struct Links {
    /// Held while the raft thread is told: it hears of things in their order.
    contacts: Mutex<HashMap<u64, Contact>>,
    inbox: mpsc::Sender<Input>,
    /// For a link that was reset to come back, if nobody refuses it.
    patience: Duration,
}

/// The connections with one member.
#[derive(Debug, Default)]
struct Contact {
    /// Connections that have links.
    linked: usize,
    /// Since a link was made, some were reset.
    reset: bool,
    /// Since a link was made, the member has refused others, or they took too long.
    refused: bool,
    told_lost: bool,
}

impl Contact {
    fn linked(&mut self, id: u64) -> Option<Input> {
        self.linked += 1;
        (self.reset, self.refused) = (false, false);
        std::mem::take(&mut self.told_lost).then_some(Input::LinksMade(id))
    }

    fn ended(&mut self, reset: bool, id: u64) -> Option<Input> {
        self.linked -= 1;
        self.reset |= reset;
        self.lost(id)
    }

    fn refused(&mut self, id: u64) -> Option<Input> {
        self.refused = true; // the other direction may see its reset later than that
        self.lost(id)
    }

    fn lost(&mut self, id: u64) -> Option<Input> {
        let lost = self.linked == 0 && self.reset && self.refused && !self.told_lost;
        self.told_lost |= lost;
        lost.then_some(Input::LinksLost(id))
    }
}

impl Links {
    pub(crate) fn new(inbox: mpsc::Sender<Input>, heartbeat: Duration) -> Self {
        Self { contacts: Mutex::default(), inbox, patience: heartbeat / 2 }
    }

    /// Follows one connection with a member until it ends.
    pub(crate) async fn follow(self: Arc<Self>, id: u64, mut reach: watch::Receiver<Reach>, dials: Dials) {
        let mut linked = false;
        loop {
            let now = *reach.borrow_and_update();
            match now {
                Reach::Linked if !linked => self.tell(id, |contact| contact.linked(id)).await,
                Reach::Linked => {}
                _ if linked => {
                    let reset = matches!(now, Reach::Reset | Reach::Refused | Reach::ClosedByPeer);
                    self.tell(id, |contact| contact.ended(reset, id)).await;
                }
                _ => {}
            }
            linked = now == Reach::Linked;
            let changed = match now {
                Reach::Refused => {
                    self.refused(id).await;
                    reach.changed().await
                }
                Reach::Reset if dials == Dials::Own => match timeout(self.patience, reach.changed()).await {
                    Ok(changed) => changed,
                    Err(_) => {
                        self.refused(id).await;
                        reach.changed().await
                    }
                },
                Reach::ClosedByPeer | Reach::Ended => return,
                _ => reach.changed().await,
            };
            if changed.is_err() {
                if linked {
                    self.tell(id, |contact| contact.ended(false, id)).await;
                }
                return;
            }
        }
    }

    /// A connection with a member could not be made.
    pub(crate) async fn refused(&self, id: u64) {
        self.tell(id, |contact| contact.refused(id)).await;
    }

    async fn tell(&self, id: u64, what: impl FnOnce(&mut Contact) -> Option<Input>) {
        let mut contacts = self.contacts.lock().await;
        if let Some(input) = what(contacts.entry(id).or_default()) {
            // An error: the raft thread has ended.
            let _ = self.inbox.send(input).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the raft thread is told when the connections of member 7 go through these states, one after the other.
    async fn told(states: &[(usize, Reach)]) -> Vec<&'static str> {
        let (inbox, mut told) = mpsc::channel(16);
        let links = Arc::new(Links::new(inbox, Duration::from_secs(3600)));
        let ways = [Dials::Own, Dials::Peer].map(|dials| {
            let reach = watch::Sender::new(Reach::Silent);
            tokio::spawn(Arc::clone(&links).follow(7, reach.subscribe(), dials));
            reach
        });
        for (way, state) in states {
            settle().await;
            ways[*way].send_replace(*state);
        }
        settle().await;
        let mut words = Vec::new();
        while let Ok(input) = told.try_recv() {
            words.push(match input {
                Input::LinksLost(7) => "lost",
                Input::LinksMade(7) => "made",
                other => panic!("{other:?}"),
            });
        }
        words
    }

    /// There is one thread: all others do what they can.
    async fn settle() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    const OWN: usize = 0;
    const PEER: usize = 1;
    const BOTH_LINKED: [(usize, Reach); 2] = [(OWN, Reach::Linked), (PEER, Reach::Linked)];

    #[tokio::test]
    async fn a_member_is_lost_when_both_ways_are_reset_and_links_are_refused() {
        for (then, expected) in [
            (&[(OWN, Reach::Reset), (OWN, Reach::Refused), (PEER, Reach::Reset)][..], &["lost"][..]),
            (&[(PEER, Reach::Reset), (OWN, Reach::Refused)], &["lost"]),
            // Not refused yet; one way is there; made again in time.
            (&[(OWN, Reach::Reset), (PEER, Reach::Reset)], &[]),
            (&[(OWN, Reach::Reset), (OWN, Reach::Refused)], &[]),
            (&[(OWN, Reach::Reset), (PEER, Reach::Reset), (OWN, Reach::Linked)], &[]),
            // A network that is cut.
            (&[(OWN, Reach::Silent), (PEER, Reach::Silent), (OWN, Reach::Ended)], &[]),
            // It was restarted, and is lost again.
            (
                &[
                    (OWN, Reach::Reset),
                    (OWN, Reach::Refused),
                    (PEER, Reach::Reset),
                    (OWN, Reach::Linked),
                    (OWN, Reach::Refused),
                ],
                &["lost", "made", "lost"],
            ),
        ] {
            let states: Vec<_> = BOTH_LINKED.iter().chain(then).copied().collect();
            assert_eq!(told(&states).await, expected, "{then:?}");
        }
    }

    #[tokio::test]
    async fn a_link_that_nobody_refuses_is_waited_for_only_so_long() {
        let (inbox, mut told) = mpsc::channel(16);
        let links = Arc::new(Links::new(inbox, Duration::from_millis(20)));
        let reach = watch::Sender::new(Reach::Linked);
        tokio::spawn(links.follow(7, reach.subscribe(), Dials::Own));
        settle().await;
        reach.send_replace(Reach::Reset);
        assert!(matches!(told.recv().await, Some(Input::LinksLost(7))));
    }
}
