//! Roles, and where somebody has them. Knows neither requests nor who asks.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::vm::is_label;

/// The region of a grant that is for all of them.
pub(crate) const ALL: &str = "*";
/// Grants of one principal.
pub(crate) const GRANTS_MAX: usize = 64;

/// What somebody may do; each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Changes VMs and jobs.
    Operator,
    /// Makes and revokes tokens, and reads the audit.
    Admin,
}

/// A role in a region, or in all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The role.
    pub role: Role,
    /// A region, or `*` for all of them.
    #[schema(max_length = 63, pattern = r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$", example = "eu-1")]
    pub region: String,
}

/// It is no grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected ROLE@REGION or ROLE@*; roles are viewer, operator and admin")]
pub struct NoGrant;

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        })
    }
}

impl FromStr for Role {
    type Err = NoGrant;

    fn from_str(text: &str) -> Result<Self, NoGrant> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "operator" => Ok(Self::Operator),
            "admin" => Ok(Self::Admin),
            _ => Err(NoGrant),
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.role, self.region)
    }
}

impl FromStr for Grant {
    type Err = NoGrant;

    fn from_str(text: &str) -> Result<Self, NoGrant> {
        let (role, region) = text.split_once('@').ok_or(NoGrant)?;
        let grant = Self { role: role.parse()?, region: region.to_owned() };
        if grant.is_well_formed() { Ok(grant) } else { Err(NoGrant) }
    }
}

impl Grant {
    pub(crate) fn everywhere(role: Role) -> Self {
        Self { role, region: ALL.to_owned() }
    }

    pub(crate) fn is_well_formed(&self) -> bool {
        self.region == ALL || is_label(&self.region)
    }
}

/// Everything that somebody may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Grants(pub(crate) Vec<Grant>);

impl Grants {
    /// The role in a region. For `*` only a grant for all of them does.
    pub(crate) fn allow(&self, role: Role, region: &str) -> bool {
        self.0.iter().any(|grant| grant.role >= role && (grant.region == ALL || grant.region == region))
    }

    /// The role in some region.
    pub(crate) fn allow_somewhere(&self, role: Role) -> bool {
        self.0.iter().any(|grant| grant.role >= role)
    }

    /// Whether whoever has these may give, or take, those: an administrator of each of their regions may.
    pub(crate) fn administer(&self, those: &[Grant]) -> bool {
        those.iter().all(|grant| self.allow(Role::Admin, &grant.region))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(text: &str) -> Grants {
        Grants(text.split_whitespace().map(|grant| grant.parse().unwrap()).collect())
    }

    #[test]
    fn a_grant_is_for_its_region_and_roles_contain_those_before() {
        use Role::*;
        for (held, role, region, allowed) in [
            ("viewer@eu", Viewer, "eu", true),
            ("viewer@eu", Viewer, "us", false),
            ("viewer@eu", Operator, "eu", false),
            ("operator@eu", Viewer, "eu", true),
            ("operator@eu admin@us", Admin, "eu", false),
            ("admin@*", Operator, "eu", true),
            ("admin@eu", Admin, "*", false),
            ("admin@*", Admin, "*", true),
            ("admin@eu", Viewer, "eu-1", false),
            ("", Viewer, "eu", false),
        ] {
            assert_eq!(grants(held).allow(role, region), allowed, "{held}: {role}@{region}");
        }
        assert!(grants("viewer@eu").allow_somewhere(Viewer));
        assert!(!grants("viewer@eu").allow_somewhere(Operator));
    }

    #[test]
    fn nobody_gives_what_they_have_not() {
        for (held, given, may) in [
            ("admin@eu", "viewer@eu", true),
            ("admin@eu", "admin@eu", true),
            ("admin@eu", "viewer@us", false),
            ("admin@eu", "viewer@eu viewer@us", false),
            ("admin@eu", "viewer@*", false),
            ("operator@eu", "viewer@eu", false),
            ("admin@*", "admin@* admin@eu", true),
        ] {
            assert_eq!(grants(held).administer(&grants(given).0), may, "{held} gives {given}");
        }
    }

    #[test]
    fn grants_are_read_as_they_are_written() {
        for text in ["viewer@eu-1", "operator@*", "admin@a"] {
            assert_eq!(text.parse::<Grant>().unwrap().to_string(), text);
        }
        for text in
            ["", "viewer", "viewer@", "@eu", "Viewer@eu", "viewer@EU", "viewer@e*", "viewer@eu@us", "root@*"]
        {
            assert_eq!(text.parse::<Grant>(), Err(NoGrant), "{text:?}");
        }
    }
}
