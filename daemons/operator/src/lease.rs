//! Who of several operators works: the holder of a Lease.
//!
//! Owns: the decision (pure), the loop that renews, and the fence: what writes asks it before each write, and it says no from the
//! moment on at which another could hold the lease, whether or not this process has noticed. A write that is on its way at that
//! moment can still arrive; the time between what the holder allows itself and what others wait for is longer than a request may
//! take.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};

/// How long others wait after the last renewal that they have seen.
pub const LEASE: Duration = Duration::from_secs(15);
/// How long after a renewal the holder writes at most.
pub const HELD: Duration = Duration::from_secs(10);
/// Between two renewals, or two attempts.
pub const RENEWAL: Duration = Duration::from_secs(2);
/// For one request about the lease.
const REQUEST: Duration = Duration::from_secs(4);

/// Whether this process may write.
#[derive(Clone, Debug)]
pub struct Fence(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    began: Instant,
    /// Milliseconds after `began` until which the lease is held.
    held_until_ms: AtomicU64,
}

/// Another may hold the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lease is not held any more: another operator may be at work")]
pub struct NotHeld;

impl Default for Fence {
    fn default() -> Self {
        Self(Arc::new(Inner { began: Instant::now(), held_until_ms: AtomicU64::new(0) }))
    }
}

impl Fence {
    /// For a process that is alone.
    pub fn open() -> Self {
        let fence = Self::default();
        fence.0.held_until_ms.store(u64::MAX, Relaxed);
        fence
    }

    /// Whether it may write now.
    ///
    /// # Errors
    /// [`NotHeld`].
    pub fn check(&self) -> Result<(), NotHeld> {
        let now_ms = self.0.began.elapsed().as_millis();
        if now_ms < u128::from(self.0.held_until_ms.load(Relaxed)) { Ok(()) } else { Err(NotHeld) }
    }

    /// The lease was renewed by a request that was sent at this time.
    fn renewed(&self, sent: Instant) {
        let until = sent.saturating_duration_since(self.0.began) + HELD;
        self.0.held_until_ms.store(until.as_millis() as u64, Relaxed);
    }

    fn close(&self) {
        self.0.held_until_ms.store(0, Relaxed);
    }
}

/// What to do about a lease.
#[derive(Clone, Debug, PartialEq)]
pub enum Claim {
    /// Write this: it is free, or ours.
    Write(LeaseSpec),
    /// Another holds it.
    Wait,
}

/// What this process knows of a lease that another holds: clocks of others are not compared with the own one.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    seen: Option<(LeaseSpec, Instant)>,
}

impl Watch {
    /// What to do, given the lease as it is now.
    pub fn claim(
        &mut self,
        lease: Option<&LeaseSpec>,
        identity: &str,
        now: Timestamp,
        instant: Instant,
    ) -> Claim {
        let holder = lease.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        let is_ours = holder == identity;
        let is_free = match lease {
            None => true,
            Some(_) if holder.is_empty() || is_ours => true,
            Some(spec) => {
                if self.seen.as_ref().is_none_or(|(before, _)| before != spec) {
                    self.seen = Some((spec.clone(), instant));
                }
                let since = self.seen.as_ref().map_or(instant, |(_, since)| *since);
                instant.saturating_duration_since(since) >= LEASE
            }
        };
        if !is_free {
            return Claim::Wait;
        }
        let before = lease.cloned().unwrap_or_default();
        let transitions = before.lease_transitions.unwrap_or(0);
        Claim::Write(LeaseSpec {
            holder_identity: Some(identity.to_owned()),
            lease_duration_seconds: Some(LEASE.as_secs() as i32),
            acquire_time: if is_ours { before.acquire_time } else { Some(MicroTime(now)) },
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(if is_ours { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        })
    }
}

/// A lease by name.
#[derive(Clone)]
pub struct Election {
    /// Leases of the operator's namespace.
    pub api: Api<Lease>,
    /// Its name.
    pub name: String,
    /// Who this is: another for each process.
    pub identity: String,
    /// Tells whether it is held.
    pub fence: Fence,
}

impl Election {
    /// Waits until the lease is held.
    pub async fn win(&self) {
        let mut watch = Watch::default();
        while !self.attempt(&mut watch).await {
            tokio::time::sleep(RENEWAL).await;
        }
    }

    /// Renews it until it is lost, which is when this returns.
    pub async fn hold(&self) {
        let mut watch = Watch::default();
        while self.fence.check().is_ok() {
            tokio::time::sleep(RENEWAL).await;
            self.attempt(&mut watch).await;
        }
    }

    /// Lets another have it at once.
    pub async fn give_up(&self) {
        self.fence.close();
        let released = async {
            let mut lease = self.api.get(&self.name).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(&self.identity) {
                (spec.holder_identity, spec.renew_time) = (None, None);
                self.api.replace(&self.name, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        match tokio::time::timeout(REQUEST, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the lease is not given up: another waits for its end"),
            Err(_) => tracing::warn!("the lease is not given up in time: another waits for its end"),
        }
    }

    /// Whether the lease is held afterwards.
    async fn attempt(&self, watch: &mut Watch) -> bool {
        let sent = Instant::now();
        match tokio::time::timeout(REQUEST, self.try_once(watch)).await {
            Ok(Ok(true)) => self.fence.renewed(sent),
            Ok(Ok(false)) => self.fence.close(),
            Ok(Err(error)) => tracing::warn!(%error, "lease"),
            Err(_) => tracing::warn!("the API server does not answer about the lease in time"),
        }
        self.fence.check().is_ok()
    }

    async fn try_once(&self, watch: &mut Watch) -> Result<bool, kube::Error> {
        let lease = self.api.get_opt(&self.name).await?;
        let spec = lease.as_ref().and_then(|lease| lease.spec.as_ref());
        let Claim::Write(spec) = watch.claim(spec, &self.identity, Timestamp::now(), Instant::now()) else {
            return Ok(false);
        };
        // With the version that was read: of two who try, one succeeds.
        let written = match lease {
            Some(lease) => {
                let lease = Lease { spec: Some(spec), ..lease };
                self.api.replace(&self.name, &PostParams::default(), &lease).await
            }
            None => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                self.api.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await
            }
        };
        match written {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(claim: Claim) -> LeaseSpec {
        let Claim::Write(spec) = claim else { panic!("waits") };
        spec
    }

    #[test]
    fn a_lease_is_taken_once_its_holder_was_silent_for_long_enough() {
        let (now, began) = (Timestamp::UNIX_EPOCH, Instant::now());
        let mut watch = Watch::default();
        let ours = written(watch.claim(None, "a", now, began));
        assert_eq!((ours.holder_identity.as_deref(), ours.lease_transitions), (Some("a"), Some(1)));
        let again = written(watch.claim(Some(&ours), "a", now, began));
        assert_eq!((again.acquire_time, again.lease_transitions), (ours.acquire_time.clone(), Some(1)));

        let mut other = Watch::default();
        assert_eq!(other.claim(Some(&ours), "b", now, began), Claim::Wait, "however old its times are");
        assert_eq!(other.claim(Some(&ours), "b", now, began + LEASE / 2), Claim::Wait);
        let renewed =
            LeaseSpec { renew_time: Some(MicroTime(Timestamp::from_second(5).unwrap())), ..ours.clone() };
        assert_eq!(other.claim(Some(&renewed), "b", now, began + LEASE), Claim::Wait, "it was renewed");
        assert_eq!(other.claim(Some(&renewed), "b", now, began + LEASE * 2 - RENEWAL), Claim::Wait);
        let taken = written(other.claim(Some(&renewed), "b", now, began + LEASE * 2));
        assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("b"), Some(2)));

        let free = LeaseSpec { holder_identity: None, ..ours };
        assert!(matches!(Watch::default().claim(Some(&free), "b", now, began), Claim::Write(_)));
    }

    #[test]
    fn the_fence_closes_before_others_may_begin() {
        const { assert!(HELD.as_secs() + REQUEST.as_secs() < LEASE.as_secs()) };
        let fence = Fence::default();
        assert_eq!(fence.check(), Err(NotHeld));
        fence.renewed(Instant::now());
        assert_eq!(fence.check(), Ok(()));
        fence.close();
        assert_eq!(fence.check(), Err(NotHeld));
        assert_eq!(Fence::open().check(), Ok(()));
    }
}
