//! Every port of the daemons, and who may reach it: Services, containers, probes and NetworkPolicies follow from this table.

/// What runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// Members of the store.
    Consensus,
    /// The HTTP API.
    Api,
    /// The agent of a node, which is in the node's own network.
    Dwcp,
    /// The operator.
    Operator,
    /// Jobs that back up and restore; nothing of them listens.
    Backup,
}

impl Component {
    /// Those that a region has.
    pub const OF_REGION: [Self; 3] = [Self::Consensus, Self::Api, Self::Dwcp];

    /// As labels, images and objects call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Consensus => "consensus",
            Self::Api => "api",
            Self::Dwcp => "dwcp",
            Self::Operator => "operator",
            Self::Backup => "backup",
        }
    }
}

/// What carries a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// As Kubernetes calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// Who may reach a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Whoever has a route: the port has its own login, or those who come are in no pod's network.
    Anywhere,
    /// Pods of these components of the same region.
    Components(&'static [Component]),
}

/// A port of a component.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// Whose it is.
    pub component: Component,
    /// What it is called, in at most 15 letters.
    pub name: &'static str,
    /// Its number.
    pub number: u16,
    /// What carries it.
    pub protocol: Protocol,
    /// Who may reach it.
    pub from: From,
}

const fn tcp(component: Component, name: &'static str, number: u16, from: From) -> Port {
    Port { component, name, number, protocol: Protocol::Tcp, from }
}

const fn udp(component: Component, name: &'static str, number: u16, from: From) -> Port {
    Port { component, name, number, protocol: Protocol::Udp, from }
}

/// The HTTP API.
pub const API: Port = tcp(Component::Api, "http", 8080, From::Anywhere);
/// Its metrics and health.
pub const API_METRICS: Port = tcp(Component::Api, "metrics", 8081, From::Anywhere);
/// The store's clients. Agents are in their nodes' networks, which no policy can name: certificates keep others out.
pub const CLIENT: Port = tcp(Component::Consensus, "client", 2379, From::Anywhere);
/// Raft.
pub const PEER: Port = tcp(Component::Consensus, "peer", 9090, From::Components(&[Component::Consensus]));
/// Other regions' members, where regions replicate. They are in other clusters, which no policy can name: certificates keep others
/// out.
pub const REGIONS: Port = tcp(Component::Consensus, "regions", 9091, From::Anywhere);
/// Its metrics and health.
pub const CONSENSUS_METRICS: Port = tcp(Component::Consensus, "metrics", 8081, From::Anywhere);
/// Streams between agents.
pub const DWCP: Port = tcp(Component::Dwcp, "dwcp", 8888, From::Anywhere);
/// Datagrams between agents.
pub const DATAGRAMS: Port = udp(Component::Dwcp, "datagrams", 8889, From::Anywhere);
/// An agent's metrics and health.
pub const DWCP_METRICS: Port = tcp(Component::Dwcp, "metrics", 9101, From::Anywhere);
/// The operator's metrics and health.
pub const OPERATOR_METRICS: Port = tcp(Component::Operator, "metrics", 8081, From::Anywhere);

/// All of them.
pub const PORTS: [Port; 10] = [
    API,
    API_METRICS,
    CLIENT,
    PEER,
    REGIONS,
    CONSENSUS_METRICS,
    DWCP,
    DATAGRAMS,
    DWCP_METRICS,
    OPERATOR_METRICS,
];

/// Those of a component.
pub fn of(component: Component) -> impl Iterator<Item = Port> {
    PORTS.into_iter().filter(move |port| port.component == component)
}
