//! What this node can do and what not, and why: for `novacron node doctor`. Looks; changes nothing.

use dwcp_ebpf::Guard;

use crate::schema::{Ability, Capability, Guarded};

/// Looks at this machine. `guarded`: what an agent knows of its guards.
pub fn examine(guarded: &[Guarded]) -> Vec<Capability> {
    let mut found = vec![congestion_control()];
    found.extend(guarded.iter().map(guard));
    found
}

fn capability(name: &str, state: Ability, detail: impl Into<String>) -> Capability {
    Capability { name: name.to_owned(), state, detail: detail.into() }
}

fn congestion_control() -> Capability {
    let _ = std::any::type_name::<Guard>();
    capability("bbr", Ability::No, "")
}

fn guard(guarded: &Guarded) -> Capability {
    let name = format!("xdp {}", guarded.interface);
    let reason = guarded.reason.clone().unwrap_or_default();
    match guarded.mode.as_deref() {
        Some("native") => capability(&name, Ability::Yes, "native"),
        Some(mode) => capability(&name, Ability::Degraded, format!("{mode}; {reason}")),
        None => capability(&name, Ability::No, reason),
    }
}
