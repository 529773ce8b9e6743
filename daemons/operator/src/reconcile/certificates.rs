//! Certificates of the operator's own authority: Secrets are read, what has to change is decided and written. Nothing of a key gets
//! into a message, an event or a log line.
//!
//! Secrets are asked for by name alone: the operator may not list them. Each is written with the version that was read, so that of two
//! that write at a time one begins anew.

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Time};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{ObjectMeta, PostParams},
    core::ApiResource,
};

use super::{Context, ReconcileError, region_of, tell::Told};
use crate::{
    api::{AuthorityStatus, NovaCronCluster, Reason, RegionStatus, TlsMode},
    apply::{ApplyError, failed},
    certificates::{
        Authorities, Authority, CertificateError, Change, Move, Policy, Spread, Wanted, authority, issue,
        leaf, secret,
    },
    plan::{FIELD_MANAGER, Holder, INSTANCE, MANAGED_BY, Region, digest},
};

/// The Secret with a cluster's authorities.
pub fn authority_secret(cluster: &str) -> String {
    format!("{cluster}-authority")
}

/// Brings the authorities of a cluster one step further. Gives how they are, or in words why they cannot be used.
pub(super) async fn authorities(
    context: &Context,
    cluster: &NovaCronCluster,
) -> Result<Result<Option<AuthorityStatus>, String>, ReconcileError> {
    if cluster.spec.security.tls.mode != TlsMode::Managed {
        return Ok(Ok(None));
    }
    let namespace = cluster.namespace().ok_or(ReconcileError::Unnamed)?;
    let name = authority_secret(&cluster.name_any());
    let found = match own(get(context, &namespace, &name).await?, &name) {
        Ok(found) => found,
        Err(why) => return Ok(Err(why)),
    };
    let has = match found.as_ref().map(secret::authorities).transpose() {
        Ok(has) => has,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let policy = Policy::from(&cluster.spec.security.tls.managed);
    let replication = cluster.spec.replication.as_ref();
    let has_spread = match &has {
        Some(has) if has.next.is_some() || has.former.is_some() || replication.is_some() => {
            has_spread(context, cluster, has).await?
        }
        _ => Spread::default(),
    };
    let others = replication.filter(|_| has_spread.trusted).map(|replication| digest(&replication.trust));
    let is_told = has.as_ref().is_some_and(|has| {
        replication.is_none_or(|replication| replication.acknowledged == digest(&has.bundle()))
    });
    let spread = Spread { trusted: has_spread.trusted && is_told, ..has_spread };
    let now = Timestamp::now();
    let step = authority::decide(has.as_ref(), &policy, spread, now);
    let after = match moved(cluster, has, &policy, step, now) {
        Ok(after) => after,
        Err(error) => return Ok(Err(error.to_string())),
    };
    if !matches!(step, Move::Wait(_)) {
        let made = secret::of_authorities(metadata(cluster, name), &after);
        put(context, &namespace, found, made).await?;
        if let Some(message) = words(step, &after) {
            context.event(cluster, &Told::new(Reason::RenewingCertificates, message), "Authority").await;
        }
    }
    Ok(Ok(Some(AuthorityStatus { others, ..status(&after) })))
}

/// The authorities after a step.
fn moved(
    cluster: &NovaCronCluster,
    has: Option<Authorities>,
    policy: &Policy,
    step: Move,
    now: Timestamp,
) -> Result<Authorities, CertificateError> {
    let make = || issue::authority(&cluster.name_any(), policy, now);
    let Some(mut has) = has else {
        let number = policy.number;
        return Ok(Authorities { issuing: make()?, next: None, former: None, spread_since: None, number });
    };
    match step {
        Move::Begin | Move::Wait(_) => {}
        Move::NoteSpread => has.spread_since = Some(now),
        Move::AddNext => {
            (has.next, has.spread_since) = (Some(make()?), None);
            has.number = has.number.max(policy.number);
        }
        Move::Promote => {
            if let Some(next) = has.next.take() {
                let before = std::mem::replace(&mut has.issuing, next);
                // Nobody can issue by it any more.
                has.former = Some(Authority { key: None, ..before });
                has.spread_since = None;
            }
        }
        Move::DropFormer => (has.former, has.spread_since) = (None, None),
    }
    Ok(has)
}

fn words(step: Move, after: &Authorities) -> Option<String> {
    let named = |authority: &Authority| authority.facts.subject.clone();
    match step {
        Move::Begin => Some(format!("{} is the authority", named(&after.issuing))),
        Move::AddNext => Some(format!("{} is to be trusted", after.next.as_ref().map(named)?)),
        Move::Promote => Some(format!("{} issues from now on", named(&after.issuing))),
        Move::DropFormer => Some(format!("{} alone is trusted", named(&after.issuing))),
        Move::NoteSpread | Move::Wait(_) => None,
    }
}

fn status(has: &Authorities) -> AuthorityStatus {
    let named = |authority: &Authority| authority.facts.subject.clone();
    AuthorityStatus {
        issuing: named(&has.issuing),
        not_after: Time(has.issuing.facts.not_after),
        next: has.next.as_ref().map(named),
        former: has.former.as_ref().map(named),
        bundle: has.bundle(),
        others: None,
    }
}

/// How far the last step, and what is to be trusted of other clusters, has got in the Secrets of all regions.
async fn has_spread(
    context: &Context,
    cluster: &NovaCronCluster,
    has: &Authorities,
) -> Result<Spread, ReconcileError> {
    let bundle = has.bundle();
    let mut spread = Spread { trusted: true, issued: true };
    for template in &cluster.spec.regions {
        let object = region_of(cluster, template, None);
        let Ok(region) = Region::new(&object, cluster) else { continue };
        for holder in region.holders() {
            let Some(name) = region.tls_secret(holder) else { continue };
            let held = get(context, &region.namespace, &name).await?.as_ref().and_then(secret::leaf);
            let issuer = held.as_ref().and_then(|held| Some(&held.facts.as_ref()?.issuer));
            let trusts = region.trusted(holder, &bundle);
            spread.trusted &= held.as_ref().is_some_and(|held| held.bundle == trusts);
            spread.issued &= issuer == Some(&has.issuing.facts.subject);
        }
    }
    Ok(spread)
}

/// Gives each component of a region the certificate that it is to have, and writes down until when all are good. In words: why not.
pub(super) async fn leaves(
    context: &Context,
    region: &Region<'_>,
    status: &mut RegionStatus,
) -> Result<Result<(), String>, ReconcileError> {
    if !region.has_own_authority() {
        status.certificates_not_after = None;
        return Ok(Ok(()));
    }
    let name = authority_secret(&region.object.spec.cluster_ref.name);
    let found = match own(get(context, &region.namespace, &name).await?, &name) {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(Err(format!("there is no Secret {name} yet"))),
        Err(why) => return Ok(Err(why)),
    };
    let has = match secret::authorities(&found) {
        Ok(has) => has,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let mut ends = Vec::new();
    for holder in region.holders() {
        match leaf_of(context, region, holder, &has).await? {
            Ok(not_after) => ends.push(not_after),
            Err(why) => return Ok(Err(why)),
        }
    }
    status.certificates_not_after = ends.into_iter().min().map(Time);
    Ok(Ok(()))
}

/// Gives until when the certificate is good.
async fn leaf_of(
    context: &Context,
    region: &Region<'_>,
    holder: Holder,
    has: &Authorities,
) -> Result<Result<Timestamp, String>, ReconcileError> {
    let meta = region.certificate_meta(holder);
    let name = meta.name.clone().unwrap_or_default();
    let found = match own(get(context, &region.namespace, &name).await?, &name) {
        Ok(found) => found,
        Err(why) => return Ok(Err(why)),
    };
    let held = found.as_ref().and_then(secret::leaf);
    let policy = Policy::from(&region.cluster.security.tls.managed);
    let wanted = Wanted {
        names: region.certificate_names(holder),
        issuer: has.issuing.facts.subject.clone(),
        bundle: region.trusted(holder, &has.bundle()),
    };
    let now = Timestamp::now();
    let made = match (leaf::decide(held.as_ref(), &wanted, &policy, now), held) {
        (Change::Issue(why), _) => {
            let common_name = format!("{}-{}", region.name, holder.as_str());
            let made = issue::leaf(&has.issuing, &common_name, &wanted.names, &policy, now);
            let (cert, key) = match made {
                Ok(made) => made,
                Err(error) => return Ok(Err(format!("{name}: {error}"))),
            };
            metrics::counter!("certificates_issued_total", "holder" => holder.as_str()).increment(1);
            let told =
                Told::new(Reason::RenewingCertificates, format!("{name} has another certificate: {why}"));
            context.event(region.object, &told, "Certificate").await;
            issue::held(cert, key, wanted.bundle)
        }
        (Change::Trust, Some(held)) => crate::certificates::Held { bundle: wanted.bundle, ..held },
        (Change::Trust, None) => return Ok(Err(format!("{name}: there is none"))),
        (Change::Keep(_), held) => {
            return Ok(Ok(held.and_then(|held| Some(held.facts?.not_after)).unwrap_or(now)));
        }
    };
    let secret = secret::of_leaf(meta, &made.cert, &made.key, &made.bundle);
    put(context, &region.namespace, found, secret).await?;
    Ok(Ok(made.facts.map_or(now, |facts| facts.not_after)))
}

fn metadata(cluster: &NovaCronCluster, name: String) -> ObjectMeta {
    let instance = cluster.name_any();
    let labels =
        [(MANAGED_BY, FIELD_MANAGER), (INSTANCE, &instance), ("app.kubernetes.io/part-of", "novacron")];
    ObjectMeta {
        name: Some(name),
        namespace: cluster.namespace(),
        labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),
        owner_references: cluster.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

/// Somebody else's Secret is left as it is.
fn own(found: Option<Secret>, name: &str) -> Result<Option<Secret>, String> {
    let is_own = |secret: &Secret| secret.labels().get(MANAGED_BY).is_some_and(|by| by == FIELD_MANAGER);
    match found {
        Some(secret) if !is_own(&secret) => Err(format!("Secret {name} is not the operator's")),
        found => Ok(found),
    }
}

async fn get(context: &Context, namespace: &str, name: &str) -> Result<Option<Secret>, ReconcileError> {
    let api = Api::<Secret>::namespaced(context.client(), namespace);
    Ok(api.get_opt(name).await.map_err(failed("get", &ApiResource::erase::<Secret>(&()), name))?)
}

/// Makes a Secret, or puts it in the place of the one that was read.
async fn put(
    context: &Context,
    namespace: &str,
    found: Option<Secret>,
    mut secret: Secret,
) -> Result<(), ReconcileError> {
    context.applier.fence().check().map_err(ApplyError::from)?;
    let api = Api::<Secret>::namespaced(context.client(), namespace);
    let (name, resource) = (secret.name_any(), ApiResource::erase::<Secret>(&()));
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match found {
        None => api.create(&params, &secret).await.map_err(failed("create", &resource, &name))?,
        Some(found) => {
            secret.metadata.resource_version = found.resource_version();
            api.replace(&name, &params, &secret).await.map_err(failed("update", &resource, &name))?
        }
    };
    Ok(())
}
