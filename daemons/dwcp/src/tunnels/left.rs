//! Interfaces that an earlier process of this agent has made, and that the settings no longer name.

use std::path::Path;

use dwcp_node::{
    state::{Lock, StateError},
    vxlan, wireguard,
};

use super::neighbours::{Made, Neighbours};
use crate::settings::Tunnels;

/// What this agent makes by its settings.
pub(super) fn wanted(settings: &Tunnels) -> Made {
    Made {
        wireguard: settings.address.map(|_| settings.interface.clone()),
        vxlan: settings.vxlan.map(|_| settings.vxlan_interface.clone()),
    }
}

/// The right to the file with what was made; `None`: there is nothing to keep, or no place to keep it.
///
/// # Errors
///
/// Another agent runs that has it, and the interfaces with it.
pub(super) fn lock(settings: &Tunnels) -> Result<Option<Lock>, StateError> {
    Lock::take_if(wanted(settings) != Made::default(), &settings.state).or_else(|error| {
        tracing::warn!(%error, "interfaces of earlier tunnels stay");
        match error {
            StateError::InUse { .. } => Err(error),
            _ => Ok(None),
        }
    })
}

/// Takes away what is not wanted, and notes what will be there; whether something was taken away. VXLAN first, which WireGuard
/// may carry.
pub(super) fn take_away(neighbours: &mut Neighbours, wanted: Made) -> bool {
    let made = neighbours.made().clone();
    let unwanted = |made: &Option<String>, wanted: &Option<String>| made.clone().filter(|_| made != wanted);
    let (mut stays, mut taken) = (wanted.clone(), false);
    if let Some(interface) = unwanted(&made.vxlan, &wanted.vxlan) {
        match vxlan::remove(&interface) {
            Ok(removed) => taken |= told(&interface, removed),
            // What has its name is somebody else's.
            Err(vxlan::Error::Foreign { .. }) => {}
            Err(error) => failed(&mut stays.vxlan, interface, &error),
        }
    }
    if let Some(interface) = unwanted(&made.wireguard, &wanted.wireguard) {
        match wireguard::remove(&interface) {
            Ok(removed) => taken |= told(&interface, removed),
            Err(wireguard::Error::Foreign { .. }) => {}
            Err(error) => failed(&mut stays.wireguard, interface, &error),
        }
    }
    neighbours.set_made(stays);
    taken
}

fn told(interface: &str, removed: bool) -> bool {
    if removed {
        tracing::info!(
            interface,
            "the interface of a tunnel is removed: the settings do not name it any more"
        );
    }
    removed
}

/// It is tried again at the next start, unless there is another of its kind to remember.
fn failed(stays: &mut Option<String>, interface: String, error: &dyn std::error::Error) {
    tracing::warn!(interface, %error, "the interface of an earlier tunnel stays");
    stays.get_or_insert(interface);
}

/// Those that are left, if the agent makes none: on request.
pub(super) fn take_away_all(lock: Option<&Lock>, state: &Path) -> bool {
    lock.is_some() && take_away(&mut Neighbours::read(state), Made::default())
}
