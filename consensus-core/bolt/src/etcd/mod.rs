//! etcd's database: which buckets are in it, and what their pairs mean.
//!
//! As etcd 3.4 keeps it; later versions add pairs that a restore makes anew (`term`, `confState`), which are neither read nor
//! written. Members, users, roles and alarms pass as bytes: whoever restores them knows their messages.
//!
//! Source: mvcc/kvstore.go, mvcc/revision.go, lease/leasepb, etcdserver/api/membership/store.go, auth/store.go and
//! clientv3/snapshot of etcd 3.4.

mod reader;
mod record;
mod status;
pub mod trailer;
mod writer;

pub use reader::{Leases, ReadError, Records, leases, meta, records};
pub use record::{Lease, Meta, Record, Revision};
pub use status::{Status, status};
pub use writer::Writer;

/// etcd's buckets, in the order of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bucket {
    /// Raised alarms: `etcdserverpb.AlarmMember` as key, no value.
    Alarm,
    /// `authEnabled` and `authRevision`.
    Auth,
    /// Role's name to `authpb.Role`.
    AuthRoles,
    /// User's name to `authpb.User`.
    AuthUsers,
    /// `clusterVersion`.
    Cluster,
    /// [`Record`]s.
    Key,
    /// [`Lease`]s.
    Lease,
    /// Member's id in hexadecimal to JSON. A restore makes its own.
    Members,
    /// Member's id in hexadecimal to `removed`.
    MembersRemoved,
    /// [`Meta`].
    Meta,
}

impl Bucket {
    /// All of them; etcd creates each when it starts.
    pub const ALL: [Self; 10] = [
        Self::Alarm,
        Self::Auth,
        Self::AuthRoles,
        Self::AuthUsers,
        Self::Cluster,
        Self::Key,
        Self::Lease,
        Self::Members,
        Self::MembersRemoved,
        Self::Meta,
    ];

    /// Its name in the file.
    pub fn name(self) -> &'static [u8] {
        match self {
            Self::Alarm => b"alarm",
            Self::Auth => b"auth",
            Self::AuthRoles => b"authRoles",
            Self::AuthUsers => b"authUsers",
            Self::Cluster => b"cluster",
            Self::Key => b"key",
            Self::Lease => b"lease",
            Self::Members => b"members",
            Self::MembersRemoved => b"members_removed",
            Self::Meta => b"meta",
        }
    }
}
