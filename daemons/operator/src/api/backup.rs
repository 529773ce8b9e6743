//! Backups of a cluster, and what a new one is restored from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A bucket of whatever speaks S3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bucket {
    /// Its address, such as `https://s3.eu-central-1.amazonaws.com/novacron-backup`.
    #[schemars(length(min = 10, max = 500), regex(pattern = r"^https?://[^ ?#]+[^ ?#/]$"))]
    pub url: String,
    /// The region that requests are signed for.
    #[serde(default = "region")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9-]+$"))]
    pub region: String,
    /// The Secret with `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`. The operator does not read it.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
}

fn region() -> String {
    "us-east-1".to_owned()
}

/// Logical backups on a schedule: `NAMESPACE.REGION/TIME` in the bucket, REGION being the name of the NovaCronRegion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backup {
    /// When one is made, as cron has it, in UTC.
    #[serde(default = "hourly")]
    #[schemars(length(min = 9, max = 100), regex(pattern = r"^[^ ]+( [^ ]+){4}$"))]
    pub schedule: String,
    /// When the newest is fetched and checked.
    #[serde(default = "daily")]
    #[schemars(length(min = 9, max = 100), regex(pattern = r"^[^ ]+( [^ ]+){4}$"))]
    pub verification_schedule: String,
    /// None is made for the time being.
    #[serde(default)]
    pub suspend: bool,
    /// Where they are kept.
    pub bucket: Bucket,
}

fn hourly() -> String {
    "0 * * * *".to_owned()
}

fn daily() -> String {
    "0 4 * * *".to_owned()
}

/// What the regions of a new cluster begin with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Restore {
    /// Where the backups are.
    pub bucket: Bucket,
    /// Whose they are: `NAMESPACE.CLUSTER`, of which each region has those of the region of its own name.
    #[schemars(length(min = 3, max = 100), regex(pattern = r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$"))]
    pub from: String,
    /// Which one, by its time; without it, the newest of the last month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 16, max = 16), regex(pattern = r"^[0-9]{8}T[0-9]{6}Z$"))]
    pub at: Option<String>,
}

/// What a region was restored from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreStatus {
    /// The backup.
    pub backup: String,
    /// The revision that it ends at.
    pub revision: i64,
    /// SHA-256 of all that a store has of it then.
    pub digest: String,
    /// The region's store has the same.
    #[serde(default)]
    pub verified: bool,
}

impl RestoreStatus {
    /// Of the last line of what `deploy/backup/choose.sh` says: `BACKUP REVISION DIGEST`.
    pub fn parse(said: &str) -> Option<Self> {
        let mut words = said.lines().last()?.split_whitespace();
        let (backup, revision, digest) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
        let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        // It gets into a file that a script reads.
        let is_name = backup.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-/".contains(&byte));
        let (backup, digest) = (backup.to_owned(), digest.to_owned());
        (is_digest && is_name && words.next().is_none()).then_some(Self {
            backup,
            revision,
            digest,
            verified: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_job_says_is_read_or_refused() {
        let digest = "0".repeat(64);
        let said = format!("n.c-r/20260101T000000Z 7 {digest}\n");
        let read = RestoreStatus::parse(&said).unwrap();
        assert_eq!((&*read.backup, read.revision, read.verified), ("n.c-r/20260101T000000Z", 7, false));
        for bad in ["", "a", "a 1", "a x y", &format!("a 1 {digest} b"), &format!("$(x) 1 {digest}")] {
            assert_eq!(RestoreStatus::parse(bad), None, "{bad:?}");
        }
    }
}
