//! Who asks.

use super::role::{ALL, Grant, Grants, Role};
use crate::http::problem::{Kind, Problem};

/// Who asks, as far as it has been proved.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    /// How it has logged in, and what tells it from others: `token:ID`, `certificate:NAME`, `jwt:SUBJECT`, or `local`.
    pub(crate) id: String,
    /// What people call it.
    pub(crate) name: String,
    pub(crate) grants: Grants,
}

impl Principal {
    /// Whoever reaches a loopback address where no login is set up.
    pub(crate) fn local() -> Self {
        let grants = Grants(vec![Grant::everywhere(Role::Admin)]);
        Self { id: "local".to_owned(), name: "local".to_owned(), grants }
    }

    /// Refuses unless it has the role in the region (`*`: in all of them).
    pub(crate) fn require(&self, role: Role, region: &str) -> Result<(), Problem> {
        if self.grants.allow(role, region) {
            return Ok(());
        }
        let place = if region == ALL { "all regions".to_owned() } else { format!("the region {region:?}") };
        Err(forbidden(role, region, &format!("this needs the role {role} in {place}")))
    }

    /// Refuses unless it has the role in some region.
    pub(crate) fn require_somewhere(&self, role: Role) -> Result<(), Problem> {
        if self.grants.allow_somewhere(role) {
            return Ok(());
        }
        Err(forbidden(role, "some", &format!("this needs the role {role} in some region")))
    }

    /// Whether it may look at what belongs to this region. What belongs to none is for those who may look at all of them.
    pub(crate) fn sees(&self, region: Option<&str>) -> bool {
        self.grants.allow(Role::Viewer, region.unwrap_or(ALL))
    }
}

fn forbidden(role: Role, region: &str, detail: &str) -> Problem {
    Problem::new(Kind::Forbidden, detail).with_required(format!("{role}@{region}"))
}
