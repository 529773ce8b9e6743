//! Which role each operation needs: one table. An operation without a line here is not there for anybody.

use std::collections::HashMap;

use axum::http::Method;

use super::{
    principal::Principal,
    role::{ALL, Role},
};
use crate::http::problem::Problem;

/// Who may do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Everybody, without a login.
    Public,
    /// Whoever has the role in some region. Which region it has to be, the operation checks.
    Somewhere(Role),
    /// Whoever has the role in all regions.
    Everywhere(Role),
}

use Role::{Admin, Operator, Viewer};
use Rule::{Everywhere, Public, Somewhere};

/// Every operation.
const RULES: &[(Method, &str, Rule)] = &[
    (Method::GET, "/api/v1/vms", Somewhere(Viewer)),
    (Method::POST, "/api/v1/vms", Somewhere(Operator)),
    (Method::GET, "/api/v1/vms/{name}", Somewhere(Viewer)),
    (Method::PUT, "/api/v1/vms/{name}", Somewhere(Operator)),
    (Method::DELETE, "/api/v1/vms/{name}", Somewhere(Operator)),
    (Method::GET, "/api/v1/jobs", Somewhere(Viewer)),
    (Method::POST, "/api/v1/jobs", Somewhere(Operator)),
    (Method::GET, "/api/v1/jobs/{id}", Somewhere(Viewer)),
    (Method::GET, "/api/v1/jobs/{id}/events", Somewhere(Viewer)),
    (Method::POST, "/api/v1/jobs/{id}/cancel", Somewhere(Operator)),
    (Method::GET, "/api/v1/dwcp/migrations", Somewhere(Viewer)),
    (Method::POST, "/api/v1/dwcp/migrations", Somewhere(Operator)),
    (Method::GET, "/api/v1/dwcp/migrations/{id}", Somewhere(Viewer)),
    (Method::GET, "/api/v1/dwcp/migrations/{id}/events", Somewhere(Viewer)),
    (Method::POST, "/api/v1/dwcp/migrations/{id}/cancel", Somewhere(Operator)),
    (Method::GET, "/api/v1/schedules", Somewhere(Viewer)),
    (Method::POST, "/api/v1/schedules", Somewhere(Operator)),
    (Method::GET, "/api/v1/schedules/{name}", Somewhere(Viewer)),
    (Method::PUT, "/api/v1/schedules/{name}", Somewhere(Operator)),
    (Method::DELETE, "/api/v1/schedules/{name}", Somewhere(Operator)),
    (Method::GET, "/api/v1/nodes", Somewhere(Viewer)),
    (Method::GET, "/api/v1/nodes/{name}", Somewhere(Viewer)),
    (Method::GET, "/api/v1/nodes/{name}/paths", Somewhere(Viewer)),
    (Method::GET, "/api/v1/nodes/{name}/transfers", Somewhere(Viewer)),
    (Method::GET, "/api/v1/nodes/{name}/capabilities", Somewhere(Viewer)),
    (Method::POST, "/api/v1/nodes/{name}/transfers/{id}/cancel", Somewhere(Operator)),
    (Method::GET, "/api/v1/transfers", Somewhere(Viewer)),
    (Method::GET, "/api/v1/paths", Somewhere(Viewer)),
    (Method::GET, "/api/v1/regions", Somewhere(Viewer)),
    (Method::GET, "/api/v1/regions/{name}", Somewhere(Viewer)),
    (Method::GET, "/api/v1/consensus/members", Everywhere(Viewer)),
    (Method::GET, "/api/v1/tokens", Somewhere(Admin)),
    (Method::POST, "/api/v1/tokens", Somewhere(Admin)),
    (Method::GET, "/api/v1/tokens/{id}", Somewhere(Admin)),
    (Method::DELETE, "/api/v1/tokens/{id}", Somewhere(Admin)),
    (Method::GET, "/api/v1/audit", Everywhere(Admin)),
    (Method::GET, "/api/v1/health", Somewhere(Viewer)),
    (Method::GET, "/healthz", Public),
    (Method::GET, "/ready", Public),
    (Method::GET, "/startup", Public),
    (Method::GET, "/openapi.json", Public),
    // The page: files that are the same for everybody. What it shows it asks for with its reader's login.
    (Method::GET, "/", Public),
    (Method::GET, "/page.js", Public),
    (Method::GET, "/page.css", Public),
    (Method::GET, "/icon.svg", Public),
];

impl Rule {
    /// Refuses whom it is not for.
    pub(crate) fn check(self, principal: &Principal) -> Result<(), Problem> {
        match self {
            Public => Ok(()),
            Somewhere(role) => principal.require_somewhere(role),
            Everywhere(role) => principal.require(role, ALL),
        }
    }

    /// The role that it names.
    pub(crate) fn role(self) -> Option<Role> {
        match self {
            Public => None,
            Somewhere(role) | Everywhere(role) => Some(role),
        }
    }
}

/// The rules by path, those of short names included.
pub(crate) struct Rules(HashMap<&'static str, Vec<(Method, Rule)>>);

impl Rules {
    /// `aliases`: short names, and what they are short for.
    pub(crate) fn new(aliases: &[(&'static str, &str)]) -> Self {
        let mut rules: HashMap<_, Vec<_>> = HashMap::new();
        for (method, path, rule) in RULES {
            rules.entry(*path).or_default().push((method.clone(), *rule));
        }
        for (alias, path) in aliases {
            let same = rules.get(path).expect("aliases are of what there is").clone();
            rules.insert(alias, same);
        }
        Self(rules)
    }

    /// The rule of a method at a path's pattern.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Option<Rule> {
        // As the router has it.
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        let (_, rule) = self.0.get(path)?.iter().find(|(allowed, _)| allowed == method)?;
        Some(*rule)
    }

    /// The methods of a path's pattern.
    pub(crate) fn methods(&self, path: &str) -> String {
        let mut methods: Vec<_> =
            self.0.get(path).into_iter().flatten().map(|(method, _)| method.as_str()).collect();
        if methods.contains(&"GET") {
            methods.push("HEAD");
        }
        methods.join(", ")
    }

    /// How many operations there are.
    pub(crate) fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}
