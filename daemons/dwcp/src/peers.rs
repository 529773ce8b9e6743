//! Which connections are kept: one for each peer. Decides; connects nothing and knows no clock but what it is told.
//!
//! Two agents that each have the other among their peers both connect, and both ends must keep the same of the two
//! connections: the one that was dialed by the agent with the smaller name. Of two that the same agent dialed, the one to
//! its younger process.

use std::collections::BTreeMap;

use novacron_control::schema::Greeting;

/// Peers that are connected at a time; more are refused.
pub(crate) const PEERS_MAX: usize = 4096;

/// Who dialed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialer {
    Us,
    Them,
}

/// A connection that is kept, with what belongs to it.
#[derive(Debug)]
pub(crate) struct Kept<C> {
    pub(crate) connection: C,
    pub(crate) dialer: Dialer,
    pub(crate) greeting: Greeting,
    /// Of the peer's certificate; none without TLS.
    names: Vec<String>,
    /// Tells it from others to the same peer.
    pub(crate) number: u64,
}

/// What becomes of a new connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission<C> {
    /// It is kept, under this number; another that it replaces is to be closed.
    Kept { number: u64, replaced: Option<C> },
    /// Another is kept.
    Duplicate,
    /// The peer has this agent's own name and is this process.
    Ourselves,
    /// The peer has this agent's own name and is another process.
    Namesake,
    /// Another certificate has this name.
    Impostor,
    /// There are too many.
    Full,
}

/// The connections of one agent.
#[derive(Debug)]
pub(crate) struct Peers<C> {
    node_id: String,
    instance: u64,
    kept: BTreeMap<String, Kept<C>>,
    next_number: u64,
}

impl<C> Peers<C> {
    pub(crate) fn new(node_id: &str, instance: u64) -> Self {
        Self { node_id: node_id.to_owned(), instance, kept: BTreeMap::new(), next_number: 0 }
    }

    /// A connection to whoever said this, with a certificate of these names.
    pub(crate) fn admit(
        &mut self,
        connection: C,
        dialer: Dialer,
        greeting: Greeting,
        names: &[String],
    ) -> Admission<C> {
        if greeting.node_id == self.node_id {
            let same = greeting.instance == self.instance;
            return if same { Admission::Ourselves } else { Admission::Namesake };
        }
        match self.kept.get(&greeting.node_id) {
            // Who has a name is not put out by who only says so.
            Some(kept) if kept.names != names => return Admission::Impostor,
            Some(kept) if !self.is_better(dialer, &greeting, kept) => return Admission::Duplicate,
            None if self.kept.len() >= PEERS_MAX => return Admission::Full,
            _ => {}
        }
        let number = self.next_number;
        self.next_number += 1;
        let node_id = greeting.node_id.clone();
        let replaced =
            self.kept.insert(node_id, Kept { connection, dialer, greeting, names: names.to_vec(), number });
        Admission::Kept { number, replaced: replaced.map(|kept| kept.connection) }
    }

    fn is_better(&self, dialer: Dialer, greeting: &Greeting, kept: &Kept<C>) -> bool {
        if greeting.instance != kept.greeting.instance {
            // The process behind the other connection is gone, whether that has been noticed or not.
            return true;
        }
        let ours_wins = self.node_id < greeting.node_id;
        dialer != kept.dialer && (dialer == Dialer::Us) == ours_wins
    }

    /// The connection with this number has ended. Returns what was kept, unless another has taken its place.
    pub(crate) fn ended(&mut self, node_id: &str, number: u64) -> Option<Kept<C>> {
        if self.kept.get(node_id)?.number != number {
            return None;
        }
        self.kept.remove(node_id)
    }

    /// The peer said something new of itself.
    pub(crate) fn greeted(&mut self, number: u64, greeting: Greeting) {
        if let Some(kept) = self.kept.get_mut(&greeting.node_id).filter(|kept| kept.number == number) {
            kept.greeting = greeting;
        }
    }

    pub(crate) fn get(&self, node_id: &str) -> Option<&Kept<C>> {
        self.kept.get(node_id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Kept<C>> {
        self.kept.values()
    }

    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn greeting(node_id: &str, instance: u64) -> Greeting {
        Greeting { node_id: node_id.to_owned(), instance, ..Greeting::default() }
    }

    #[test]
    fn another_certificate_does_not_take_a_name() {
        let (real, other) = (["b".to_owned()], ["api".to_owned()]);
        let mut a = Peers::new("a", 1);
        assert!(matches!(a.admit(1, Dialer::Us, greeting("b", 2), &real), Admission::Kept { number: 0, .. }));
        assert_eq!(a.admit(2, Dialer::Them, greeting("b", 3), &other), Admission::Impostor);
        assert_eq!(a.admit(3, Dialer::Them, greeting("b", 3), &[]), Admission::Impostor);
        assert!(matches!(
            a.admit(4, Dialer::Them, greeting("b", 3), &real),
            Admission::Kept { replaced: Some(1), .. }
        ));
    }

    #[test]
    fn of_two_that_dialed_each_other_both_keep_the_smaller_ones() {
        let mut a = Peers::new("a", 1);
        assert!(matches!(
            a.admit(1, Dialer::Them, greeting("b", 2), &[]),
            Admission::Kept { replaced: None, .. }
        ));
        assert!(matches!(
            a.admit(2, Dialer::Us, greeting("b", 2), &[]),
            Admission::Kept { replaced: Some(1), .. }
        ));
        assert_eq!(a.admit(3, Dialer::Them, greeting("b", 2), &[]), Admission::Duplicate);
        assert_eq!(a.len(), 1);
        let mut b = Peers::new("b", 2);
        assert!(matches!(
            b.admit(2, Dialer::Them, greeting("a", 1), &[]),
            Admission::Kept { replaced: None, .. }
        ));
        assert_eq!(b.admit(1, Dialer::Us, greeting("a", 1), &[]), Admission::Duplicate);
    }

    #[test]
    fn a_process_that_began_again_is_taken_for_the_old_one() {
        let mut a = Peers::new("a", 1);
        let Admission::Kept { number, .. } = a.admit(1, Dialer::Us, greeting("b", 2), &[]) else {
            panic!("not kept")
        };
        assert!(matches!(
            a.admit(2, Dialer::Them, greeting("b", 3), &[]),
            Admission::Kept { replaced: Some(1), .. }
        ));
        // The end of the old one is not that of the new one.
        assert!(a.ended("b", number).is_none());
        assert_eq!(a.get("b").map(|kept| kept.connection), Some(2));
    }

    #[test]
    fn one_does_not_connect_to_oneself() {
        let mut a = Peers::new("a", 1);
        assert_eq!(a.admit(1, Dialer::Us, greeting("a", 1), &[]), Admission::Ourselves);
        assert_eq!(a.admit(1, Dialer::Us, greeting("a", 2), &[]), Admission::Namesake);
        assert_eq!(a.len(), 0);
    }

    #[test]
    fn there_are_not_too_many() {
        let mut a = Peers::new("a", 1);
        for n in 0..PEERS_MAX as u64 {
            assert!(matches!(
                a.admit(n, Dialer::Them, greeting(&format!("p{n}"), n), &[]),
                Admission::Kept { .. }
            ));
        }
        assert_eq!(a.admit(0, Dialer::Them, greeting("more", 1), &[]), Admission::Full);
    }

    proptest! {
        /// In whatever order the two ends see the two connections, they keep the same one.
        #[test]
        fn both_ends_agree(first_at_a: bool, first_at_b: bool) {
            let (mut a, mut b) = (Peers::new("a", 1), Peers::new("b", 2));
            let see = |peers: &mut Peers<char>, first: bool, us: char, them: char, other: Greeting| {
                let mut both = [(us, Dialer::Us), (them, Dialer::Them)];
                if first {
                    both.reverse();
                }
                for (connection, dialer) in both {
                    peers.admit(connection, dialer, other.clone(), &[]);
                }
                peers.iter().map(|kept| kept.connection).collect::<Vec<_>>()
            };
            let at_a = see(&mut a, first_at_a, 'a', 'b', greeting("b", 2));
            let at_b = see(&mut b, first_at_b, 'b', 'a', greeting("a", 1));
            prop_assert_eq!(&at_a, &vec!['a']);
            prop_assert_eq!(at_a, at_b);
        }
    }
}
