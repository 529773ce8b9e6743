//! Who issues certificates of a cluster, and who is trusted.
//!
//! One authority takes another's place in three steps. It is *next*: everybody is told to trust it, nothing is issued by it. It
//! *issues*, and the one before is *former*: still trusted, since what it has issued is still in use. Then the former one goes. Each
//! step waits until the one before has spread to every region's Secrets, and then until daemons have read them.

use std::fmt;

use jiff::Timestamp;

use super::{Facts, Policy};

/// An authority.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    /// Its certificate, as PEM.
    pub cert: String,
    /// Its key, as PEM; a former one's is gone.
    pub key: Option<String>,
    /// What its certificate says.
    pub facts: Facts,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("facts", &self.facts).finish_non_exhaustive()
    }
}

/// The authorities of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorities {
    /// Issues.
    pub issuing: Authority,
    /// Is trusted, and is to issue.
    pub next: Option<Authority>,
    /// Is trusted, and issues no more.
    pub former: Option<Authority>,
    /// Since when every region's Secrets are as the last step wants them.
    pub spread_since: Option<Timestamp>,
    /// Which one was asked for when the newest was made.
    pub number: u32,
}

impl Authorities {
    /// The certificates of all that are trusted, as PEM.
    pub fn bundle(&self) -> String {
        let all = [Some(&self.issuing), self.next.as_ref(), self.former.as_ref()];
        all.into_iter().flatten().map(|authority| authority.cert.as_str()).collect()
    }
}

/// How far a step has got in the regions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// All that are to be trusted are in every region's Secrets, and nobody else is.
    pub trusted: bool,
    /// Everything in them was issued by the one that issues.
    pub issued: bool,
}

/// What to do with the authorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// Make the first one.
    Begin,
    /// Make the next one.
    AddNext,
    /// The step has spread: write down when.
    NoteSpread,
    /// The next one issues.
    Promote,
    /// The former one is trusted no more.
    DropFormer,
    /// Nothing, until this time; `None`: until something else changes.
    Wait(Option<Timestamp>),
}

/// What to do next.
pub fn decide(authorities: Option<&Authorities>, policy: &Policy, spread: Spread, now: Timestamp) -> Move {
    let Some(has) = authorities else { return Move::Begin };
    let step = match (&has.next, &has.former) {
        // What cannot be valid any more need not be trusted.
        (_, Some(former)) if former.facts.not_after <= now => return Move::DropFormer,
        (_, Some(_)) => Move::DropFormer,
        (Some(_), None) => Move::Promote,
        (None, None) => return replace(has, policy, now),
    };
    let is_spread = spread.trusted && (spread.issued || step == Move::Promote);
    match has.spread_since {
        None if is_spread => Move::NoteSpread,
        None => Move::Wait(None),
        Some(_) if !is_spread => Move::Wait(None),
        Some(since) => match since.checked_add(policy.settle).ok().filter(|settled| now < *settled) {
            Some(settled) => Move::Wait(Some(settled)),
            None => step,
        },
    }
}

/// Whether there has to be another one: by its number, or because certificates would have to end with the one that issues.
fn replace(has: &Authorities, policy: &Policy, now: Timestamp) -> Move {
    let margin = policy.validity.checked_add(policy.validity).unwrap_or(policy.validity);
    let due = has.issuing.facts.not_after.checked_sub(margin).unwrap_or(Timestamp::MIN);
    if has.number < policy.number || now >= due { Move::AddNext } else { Move::Wait(Some(due)) }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn policy() -> Policy {
        Policy {
            validity: HOUR * 10,
            renew_before: HOUR * 3,
            authority_validity: HOUR * 100,
            settle: HOUR,
            number: 1,
        }
    }

    fn at(hours: i32) -> Timestamp {
        Timestamp::UNIX_EPOCH + HOUR * hours
    }

    fn authority(name: &str, until: i32) -> Authority {
        let facts = Facts {
            subject: name.to_owned(),
            issuer: name.to_owned(),
            not_before: at(0),
            not_after: at(until),
            names: Default::default(),
            public_key: Vec::new(),
        };
        Authority { cert: format!("{name}\n"), key: Some("secret".to_owned()), facts }
    }

    fn one() -> Authorities {
        Authorities { issuing: authority("a", 100), next: None, former: None, spread_since: None, number: 1 }
    }

    const NOWHERE: Spread = Spread { trusted: false, issued: false };
    const TRUSTED: Spread = Spread { trusted: true, issued: false };
    const EVERYWHERE: Spread = Spread { trusted: true, issued: true };

    #[test]
    fn each_step_waits_for_the_one_before() {
        let next = Authorities { next: Some(authority("b", 200)), number: 2, ..one() };
        let told = Authorities { spread_since: Some(at(5)), ..next.clone() };
        let promoted = Authorities {
            issuing: authority("b", 200),
            former: Some(authority("a", 100)),
            number: 2,
            ..one()
        };
        let reissued = Authorities { spread_since: Some(at(5)), ..promoted.clone() };
        for (has, spread, now, expected) in [
            (None, NOWHERE, at(0), Move::Begin),
            (Some(one()), EVERYWHERE, at(0), Move::Wait(Some(at(80)))),
            (Some(one()), NOWHERE, at(80), Move::AddNext),
            (Some(next.clone()), NOWHERE, at(99), Move::Wait(None)),
            (Some(next), TRUSTED, at(5), Move::NoteSpread),
            (Some(told.clone()), TRUSTED, at(5), Move::Wait(Some(at(6)))),
            (Some(told.clone()), TRUSTED, at(6), Move::Promote),
            (Some(told), NOWHERE, at(99), Move::Wait(None)),
            (Some(promoted.clone()), TRUSTED, at(7), Move::Wait(None)),
            (Some(promoted), EVERYWHERE, at(7), Move::NoteSpread),
            (Some(reissued.clone()), EVERYWHERE, at(5), Move::Wait(Some(at(6)))),
            (Some(reissued.clone()), EVERYWHERE, at(6), Move::DropFormer),
            (Some(reissued.clone()), TRUSTED, at(99), Move::Wait(None)),
            (Some(reissued), NOWHERE, at(100), Move::DropFormer),
        ] {
            assert_eq!(decide(has.as_ref(), &policy(), spread, now), expected, "{has:?} {spread:?} {now}");
        }
    }

    #[test]
    fn a_higher_number_asks_for_another_one() {
        let asked = Policy { number: 2, ..policy() };
        assert_eq!(decide(Some(&one()), &asked, EVERYWHERE, at(0)), Move::AddNext);
        let made = Authorities { number: 2, ..one() };
        assert_eq!(decide(Some(&made), &asked, EVERYWHERE, at(0)), Move::Wait(Some(at(80))));
    }

    #[test]
    fn keys_are_not_printed() {
        assert!(!format!("{:?}", one()).contains("secret"));
    }
}
