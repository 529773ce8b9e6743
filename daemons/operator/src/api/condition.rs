//! Conditions: what is true of an object, since when, and why, from a closed set of reasons.

use std::fmt;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition as KubeCondition, Time};

/// A condition, as all kinds of Kubernetes write it.
pub type Condition = KubeCondition;

/// What may be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionType {
    /// Everything that was asked for runs.
    Ready,
    /// Something is on its way.
    Progressing,
    /// Something is wrong that does not pass by itself, or that costs what there should be to spare.
    Degraded,
    /// The region has what the backup has that it was restored from; only of one that is restored.
    Restored,
    /// The last backup was made when it should have been; only where there are backups.
    BackedUp,
    /// A federation's cluster answers, its store has a quorum, and its API is there.
    Well,
    /// A federation's cluster gets traffic.
    Serving,
}

impl ConditionType {
    /// Those of every object, in the order in which they are shown.
    pub const ALL: [Self; 3] = [Self::Ready, Self::Progressing, Self::Degraded];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Progressing => "Progressing",
            Self::Degraded => "Degraded",
            Self::Restored => "Restored",
            Self::BackedUp => "BackedUp",
            Self::Well => "Well",
            Self::Serving => "Serving",
        }
    }
}

/// Whether it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is.
    True,
    /// It is not.
    False,
}

impl Status {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
        }
    }
}

impl From<bool> for Status {
    fn from(is: bool) -> Self {
        if is { Self::True } else { Self::False }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Why. Programs may rely on these: there are no others.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As it is written.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

reasons! {
    /// Everything is as it should be.
    AsSpecified,
    /// Pods and members come up for the first time.
    Bootstrapping,
    /// Pods are not ready yet.
    PodsNotReady,
    /// Members are added, one after the other.
    ScalingUp,
    /// Members are removed, one after the other.
    ScalingDown,
    /// A member whose volume is lost is replaced.
    ReplacingMember,
    /// A new member does not have the data yet.
    CatchingUp,
    /// Members get another version, one after the other.
    Upgrading,
    /// The last member that got another version has to do well for a while before the next one gets it.
    Baking,
    /// Regions do not have the version yet.
    RollingOut,
    /// There are new certificates, or another authority takes the place of the one that issued them.
    RenewingCertificates,
    /// A new region gets what a backup has, and is compared with it.
    Restoring,
    /// The backup cannot be used, or the region does not have what it has.
    RestoreFailed,
    /// The backup that should be there by now is not.
    BackupMissing,
    /// Fewer members answer than a quorum has: nothing is changed until they do.
    QuorumLost,
    /// No member can be asked.
    StoreUnreachable,
    /// A member does not answer, or is far behind; changes wait for it.
    MemberUnhealthy,
    /// The next step would leave no member to spare, and `membership.allowNoSpare` is not set.
    NoSpare,
    /// The step from one version to the other is not allowed.
    VersionSkew,
    /// The spec cannot be done as it is.
    Invalid,
    /// The cluster that a region names is not there.
    ClusterMissing,
    /// A Secret that the spec names is not there, or lacks something.
    SecretMissing,
    /// The API server refuses what is to be there.
    ApplyFailed,
    /// The annotation `novacron.io/paused` is on the object.
    Paused,
    /// The object is on its way out.
    Deleting,
    /// The API server of a federation's cluster does not answer.
    ClusterUnreachable,
    /// A kubeconfig has in it what the operator does not do.
    KubeconfigRefused,
    /// A cluster gets no traffic, and others have its share.
    FailedOver,
    /// More than half of the clusters cannot be reached: it may be this operator that is cut off, so nothing is moved.
    TooFewReachable,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Longest message, in bytes, that the API server takes.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Sets a condition; whether it, or its reason, is another than before. The time changes with the status alone.
pub fn set_condition(
    conditions: &mut Vec<Condition>,
    kind: ConditionType,
    status: Status,
    reason: Reason,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> bool {
    let end = message.floor_char_boundary(MESSAGE_BYTES_MAX);
    let before = conditions.iter().position(|condition| condition.type_ == kind.as_str());
    let same = |old: &Condition| old.status == status.as_str();
    let since = match before.map(|at| &conditions[at]) {
        Some(old) if same(old) => old.last_transition_time.clone(),
        _ => Time(now),
    };
    let condition = Condition {
        type_: kind.as_str().to_owned(),
        status: status.as_str().to_owned(),
        reason: reason.as_str().to_owned(),
        message: message[..end].to_owned(),
        observed_generation: generation,
        last_transition_time: since,
    };
    match before {
        None => {
            conditions.push(condition);
            true
        }
        Some(at) => {
            let old = std::mem::replace(&mut conditions[at], condition);
            old.status != status.as_str() || old.reason != reason.as_str()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_changes_with_the_status_alone() {
        let mut all = Vec::new();
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let ready = ConditionType::Ready;
        assert!(set_condition(&mut all, ready, Status::False, Reason::Bootstrapping, "a", Some(1), at(1)));
        assert!(!set_condition(&mut all, ready, Status::False, Reason::Bootstrapping, "b", Some(2), at(2)));
        assert_eq!((all[0].last_transition_time.0, &*all[0].message), (at(1), "b"));
        assert_eq!(all[0].observed_generation, Some(2));
        assert!(set_condition(&mut all, ready, Status::False, Reason::PodsNotReady, "", Some(2), at(3)));
        assert_eq!(all[0].last_transition_time.0, at(1));
        assert!(set_condition(&mut all, ready, Status::True, Reason::AsSpecified, "", Some(2), at(4)));
        assert_eq!((all.len(), all[0].last_transition_time.0), (1, at(4)));
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let mut all = Vec::new();
        let long = "ä".repeat(MESSAGE_BYTES_MAX);
        let now = Timestamp::UNIX_EPOCH;
        set_condition(&mut all, ConditionType::Degraded, Status::True, Reason::Invalid, &long, None, now);
        assert_eq!(all[0].message.len(), MESSAGE_BYTES_MAX);
    }
}
