//! What is told of an uplink, in words.

use dwcp_node::mtu::{self, Underlay};

use novacron_control::schema::{Ability, Capability, Tuned, TunedState};

/// An uplink, as of the last look.
pub(super) struct Told {
    pub(super) interface: String,
    pub(super) former: u32,
    pub(super) device: u32,
    pub(super) traffic: u32,
    /// Why not more.
    pub(super) reason: String,
    /// It has what is wanted, whoever has set that.
    pub(super) is_enough: bool,
    /// What tunnels to its peers go over.
    pub(super) underlay: Underlay,
}

impl Told {
    fn detail(&self) -> String {
        let Self { former, device, traffic, reason, .. } = self;
        if device == former {
            return format!("{device}: {reason}");
        }
        let sent = match traffic == device {
            true => String::new(),
            false => format!(", of which {traffic} are used"),
        };
        let (vxlan, wireguard) =
            (mtu::vxlan(*traffic, self.underlay), mtu::wireguard(*traffic, self.underlay));
        format!(
            "{device}{sent}, {former} before: {reason}; over it VXLAN has room for {vxlan}, WireGuard for {wireguard}"
        )
    }
}

pub(super) fn tuned(told: &Told) -> Tuned {
    let state = match told {
        told if told.device > told.former => TunedState::Set,
        told if told.is_enough => TunedState::Already,
        _ => TunedState::Cannot,
    };
    Tuned { item: format!("MTU of {}", told.interface), state, detail: told.detail() }
}

pub(super) fn capability(told: &Told) -> Capability {
    let state = match told {
        told if told.traffic > told.former && told.traffic == told.device => Ability::Yes,
        told if told.is_enough => Ability::Yes,
        told if told.device > told.former => Ability::Degraded,
        _ => Ability::No,
    };
    Capability { name: format!("larger MTU on {}", told.interface), state, detail: told.detail() }
}

/// Where nothing is raised.
pub(super) fn off() -> Capability {
    let detail = "node.set_mtu is off: interfaces keep their MTU, and paths are only measured";
    Capability { name: "larger MTU".to_owned(), state: Ability::No, detail: detail.to_owned() }
}

/// Where none can be raised.
pub(super) fn failed(error: &str) -> Capability {
    Capability { name: "larger MTU".to_owned(), state: Ability::No, detail: error.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_have_room_for_what_is_sent_not_for_what_is_tried() {
        let mut told = Told {
            interface: "eth0".to_owned(),
            former: 1500,
            device: 9000,
            traffic: 1500,
            reason: "why".to_owned(),
            is_enough: false,
            underlay: Underlay::V4,
        };
        let tried = "9000, of which 1500 are used, 1500 before: why; \
                     over it VXLAN has room for 1450, WireGuard for 1440";
        assert_eq!((tuned(&told).detail.as_str(), tuned(&told).state), (tried, TunedState::Set));
        assert_eq!(capability(&told).state, Ability::Degraded);
        told.traffic = 9000;
        told.underlay = Underlay::V6;
        let raised = "9000, 1500 before: why; over it VXLAN has room for 8930, WireGuard for 8920";
        assert_eq!((tuned(&told).detail.as_str(), capability(&told).state), (raised, Ability::Yes));
        (told.device, told.traffic) = (1500, 1500);
        assert_eq!((tuned(&told).detail.as_str(), tuned(&told).state), ("1500: why", TunedState::Cannot));
        told.is_enough = true;
        assert_eq!((tuned(&told).state, capability(&told).state), (TunedState::Already, Ability::Yes));
    }
}
