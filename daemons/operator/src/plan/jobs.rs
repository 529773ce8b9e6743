//! Backups: CronJobs of the image `novacron/jobs`, whose scripts are those of `deploy/backup`; and what restores a new region of one.
//!
//! What a region is restored from is looked at first, by a Job that says which backup, up to which revision, and a digest; then each
//! first member gets its folder of it before it starts; then another Job compares the store with the digest.

use k8s_openapi::{
    api::{
        batch::v1::{CronJob, CronJobSpec, Job, JobSpec, JobTemplateSpec},
        core::v1::{
            Container, EnvFromSource, EnvVar, PodSpec, PodTemplateSpec, SecretEnvSource, VolumeMount,
        },
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    Component, Holder, Region, Seen,
    config::{CONFIG_DIR, DATA_DIR, TLS_DIR},
    pod, ports,
};
use crate::api::{Bucket, PartResources, Quantities, RestoreStatus};

/// A Job that has not ended by then has failed.
const DEADLINE_SECONDS: i64 = 1800;
/// How late a backup may begin.
const STARTING_SECONDS_MAX: i64 = 600;
/// Attempts after the first.
const RETRIES: i32 = 2;
/// Of Jobs that have ended.
const SUCCEEDED_KEPT: i32 = 1;
const FAILED_KEPT: i32 = 3;
/// Backups that a Job works on.
const SCRATCH_BYTES_MAX: &str = "20Gi";
/// What a first member is restored from; a file beside its settings, as long as there is no store.
pub(super) const RESTORE_FILE: &str = "restore";

/// A script, and what it needs.
struct Run<'a> {
    script: &'static str,
    args: Vec<String>,
    bucket: Option<&'a Bucket>,
    /// It asks the region's store.
    asks_store: bool,
}

/// Backups on their schedules.
pub(super) fn cron_jobs(region: &Region<'_>) -> Vec<CronJob> {
    let Some(backup) = &region.cluster.storage.backup else { return Vec::new() };
    let prefix = format!("{}.{}", region.namespace, region.name);
    let of = |name: &str, schedule: &str, script, asks_store| {
        let run = Run { script, args: vec![prefix.clone()], bucket: Some(&backup.bucket), asks_store };
        CronJob {
            metadata: region.meta(Component::Backup, format!("{}-{name}", region.name)),
            spec: Some(CronJobSpec {
                schedule: schedule.to_owned(),
                time_zone: Some("Etc/UTC".to_owned()),
                suspend: Some(backup.suspend),
                concurrency_policy: Some("Forbid".to_owned()),
                starting_deadline_seconds: Some(STARTING_SECONDS_MAX),
                successful_jobs_history_limit: Some(SUCCEEDED_KEPT),
                failed_jobs_history_limit: Some(FAILED_KEPT),
                job_template: JobTemplateSpec { metadata: None, spec: Some(job_spec(region, run)) },
            }),
            ..CronJob::default()
        }
    };
    vec![
        of("backup", &backup.schedule, "backup.sh", true),
        of("backup-verification", &backup.verification_schedule, "verify.sh", false),
    ]
}

/// The Job that says what is restored, or the one that compares, while it is their time.
pub(super) fn restore_jobs(region: &Region<'_>, seen: &Seen) -> Vec<Job> {
    let Some(restore) = &region.cluster.storage.restore else { return Vec::new() };
    let (name, run) = match (&seen.restore, seen.bootstrapped) {
        (None, None) => {
            let prefix = format!("{}-{}", restore.from, region.object.spec.region);
            let backup = restore.at.as_ref().map(|at| format!("{prefix}/{at}"));
            let args = [prefix].into_iter().chain(backup).collect();
            let run = Run { script: "choose.sh", args, bucket: Some(&restore.bucket), asks_store: false };
            (region.restore_job(), run)
        }
        (Some(RestoreStatus { revision, digest, verified: false, .. }), Some(_)) => {
            let args = vec![revision.to_string(), digest.clone()];
            (region.comparison_job(), Run { script: "compare.sh", args, bucket: None, asks_store: true })
        }
        _ => return Vec::new(),
    };
    vec![Job {
        metadata: region.meta(Component::Backup, name),
        spec: Some(job_spec(region, run)),
        ..Job::default()
    }]
}

impl Region<'_> {
    /// The Job that says what is restored.
    pub fn restore_job(&self) -> String {
        format!("{}-restore", self.name)
    }

    /// The Job that compares the store with what it was restored from.
    pub fn comparison_job(&self) -> String {
        format!("{}-restored", self.name)
    }

    /// Nothing is begun before it is known what is restored.
    pub(super) fn waits_for_backup(&self, seen: &Seen) -> bool {
        self.cluster.storage.restore.is_some() && seen.restore.is_none() && seen.bootstrapped.is_none()
    }

    fn jobs_image(&self) -> String {
        format!("{}/jobs:{}", self.cluster.images.registry, self.version)
    }
}

/// What first members are restored from, as the script reads it.
pub(super) fn restore_file(region: &Region<'_>, seen: &Seen) -> Option<String> {
    let restore = seen.restore.as_ref().filter(|_| seen.bootstrapped.is_none())?;
    let member = |ordinal| {
        let (name, host) = (region.member(ordinal), region.member_host(ordinal));
        format!("{name}={}://{host}:{}", region.scheme(), ports::PEER.number)
    };
    let first = seen.pods.unwrap_or(region.object.spec.voters);
    let members: Vec<_> = (0..first).map(member).collect();
    let (backup, members) = (&restore.backup, members.join(","));
    Some(format!("BACKUP={backup}\nINITIAL_CLUSTER={members}\nTOKEN={}/{}\n", region.namespace, region.name))
}

/// Before a member of a restored region.
pub(super) fn restoring(region: &Region<'_>, data: VolumeMount) -> Option<Container> {
    let restore = region.cluster.storage.restore.as_ref()?;
    let args =
        [format!("{CONFIG_DIR}/{RESTORE_FILE}"), format!("{DATA_DIR}/consensus"), "$(POD_NAME)".to_owned()];
    let run = Run {
        script: "restore-member.sh",
        args: args.into(),
        bucket: Some(&restore.bucket),
        asks_store: false,
    };
    let mut container = container(region, run);
    container.name = "restore".to_owned();
    container.env.get_or_insert_default().push(pod::field_variable("POD_NAME", "metadata.name"));
    let config =
        VolumeMount { name: "config".to_owned(), mount_path: CONFIG_DIR.to_owned(), ..Default::default() };
    container.volume_mounts.get_or_insert_default().extend([data, config]);
    Some(container)
}

/// Where scripts write.
pub(super) fn scratch() -> k8s_openapi::api::core::v1::Volume {
    pod::scratch("tmp", SCRATCH_BYTES_MAX)
}

fn job_spec(region: &Region<'_>, run: Run<'_>) -> JobSpec {
    let tls = region.tls_secret(Holder::Client).filter(|_| run.asks_store);
    let mut container = container(region, run);
    let mut volumes = vec![scratch()];
    if let Some(secret) = tls {
        volumes.push(pod::tls_volume(pod::TLS, secret));
        container.volume_mounts.get_or_insert_default().push(pod::mount(pod::TLS, TLS_DIR));
    }
    JobSpec {
        active_deadline_seconds: Some(DEADLINE_SECONDS),
        backoff_limit: Some(RETRIES),
        template: PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: Some(region.selector(Component::Backup)),
                ..ObjectMeta::default()
            }),
            spec: Some(PodSpec {
                restart_policy: Some("Never".to_owned()),
                volumes: Some(volumes),
                termination_grace_period_seconds: None,
                ..pod::pod(region, Component::Backup, container)
            }),
        },
        ..JobSpec::default()
    }
}

fn container(region: &Region<'_>, run: Run<'_>) -> Container {
    let mut env = vec![
        pod::variable("PATH", "/usr/bin".to_owned()),
        pod::variable("RESULT", "/dev/termination-log".to_owned()),
    ];
    env.extend(run.bucket.iter().flat_map(|bucket| {
        [pod::variable("S3_URL", bucket.url.clone()), pod::variable("AWS_REGION", bucket.region.clone())]
    }));
    if run.asks_store {
        env.extend(store_env(region));
    }
    let login = run.bucket.map(|bucket| EnvFromSource {
        secret_ref: Some(SecretEnvSource { name: bucket.secret_name.clone(), optional: None }),
        ..EnvFromSource::default()
    });
    Container {
        name: "job".to_owned(),
        image: Some(region.jobs_image()),
        image_pull_policy: Some(region.cluster.images.pull_policy.as_str().to_owned()),
        command: Some(vec![format!("/backup/{}", run.script)]),
        args: Some(run.args),
        env: Some(env),
        env_from: login.map(|login| vec![login]),
        resources: Some(pod::requirements(&resources())),
        security_context: Some(pod::restricted()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(vec![VolumeMount {
            name: "tmp".to_owned(),
            mount_path: "/tmp".to_owned(),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    }
}

/// How `novacron` reaches the store.
fn store_env(region: &Region<'_>) -> Vec<EnvVar> {
    let client = region.service_host(&format!("{}-client", region.name_of(Component::Consensus)));
    let url = format!("{}://{client}:{}", region.scheme(), ports::CLIENT.number);
    let mut env = vec![pod::variable("NOVACRON_ENDPOINTS", url)];
    if region.has_tls() {
        let files = [("ETCDCTL_CACERT", "ca.crt"), ("ETCDCTL_CERT", "tls.crt"), ("ETCDCTL_KEY", "tls.key")];
        env.extend(files.map(|(name, file)| pod::variable(name, format!("{TLS_DIR}/{file}"))));
    }
    env
}

fn resources() -> PartResources {
    let quantities = |cpu: &str, memory: &str| Quantities { cpu: cpu.to_owned(), memory: memory.to_owned() };
    PartResources { requests: quantities("100m", "128Mi"), limits: quantities("1", "512Mi") }
}
