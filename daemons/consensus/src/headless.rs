//! The first members of a cluster that is a StatefulSet behind a headless service: `NAME-0` to `NAME-(N-1)`.
//!
//! Nothing is looked up: names follow from the pod's own. So pods may start in any order, and any may be missing.

use anyhow::{Context as _, Result, ensure};

/// Pods from here on are no members.
const ORDINAL_LIMIT: u16 = 64;

/// What a pod knows by its name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pods {
    /// Names and URLs (`SCHEME://NAME-i.SERVICE:PORT`) of the first members; of a later pod, also of itself and those between.
    pub(crate) members: Vec<(String, String)>,
    /// It is not one of the first: it has to join.
    pub(crate) joins: bool,
}

/// The members of a cluster that began with `replicas` pods, as `pod` knows them.
pub(crate) fn pods(pod: &str, service: &str, replicas: u16, scheme: &str, port: u16) -> Result<Pods> {
    let (set, ordinal) = pod
        .rsplit_once('-')
        .filter(|(set, _)| !set.is_empty())
        .and_then(|(set, ordinal)| Some((set, ordinal.parse::<u16>().ok()?)))
        .with_context(|| {
            format!("{pod:?} is not the name of a pod of a StatefulSet, which ends in -NUMBER")
        })?;
    ensure!(ordinal < ORDINAL_LIMIT, "{pod}: there are no clusters of so many members");
    let member = |n| {
        let name = format!("{set}-{n}");
        let url = format!("{scheme}://{name}.{service}:{port}");
        (name, url)
    };
    let members = (0..replicas.max(ordinal + 1)).map(member).collect();
    Ok(Pods { members, joins: ordinal >= replicas })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_first_pods_name_the_same_members() {
        let of = |pod| pods(pod, "peers.ns.svc", 3, "https", 9090).unwrap();
        assert_eq!(of("nova-consensus-0"), of("nova-consensus-2"));
        let last = ("nova-consensus-2".to_owned(), "https://nova-consensus-2.peers.ns.svc:9090".to_owned());
        assert_eq!(of("nova-consensus-1").members[2..], [last]);
        assert!(!of("nova-consensus-2").joins);
        let later = of("nova-consensus-4");
        assert_eq!((later.joins, later.members.len()), (true, 5));
    }

    #[test]
    fn other_names_are_refused() {
        for pod in ["", "pod", "pod-", "pod-x", "-1", "pod--", "pod-65535"] {
            assert!(pods(pod, "s", 3, "http", 1).is_err(), "{pod:?}");
        }
    }
}
