//! Clusters that are one whole: what is to be in each of them, and which ones get traffic.
//!
//! [`shares`] divides replicas, [`failover`] decides who serves, [`plan`](mod@plan) makes objects of both: functions, to which time is an
//! argument. [`clusters`] is how other clusters are asked. Deliberately not here: when they are asked, and what is written where
//! ([`reconcile`](crate::reconcile)).
//!
//! What holds:
//!
//! - no region's Raft group is moved, and nobody is told to lead: what moves is traffic to the API, and its replicas, so that two
//!   operators that do not see each other can do no harm to what is stored;
//! - the last cluster that serves is never taken out;
//! - who cannot reach half of the clusters moves nothing.

pub mod clusters;
pub mod failover;
pub mod plan;
pub mod shares;
