//! What tests of the kernel share.
#![allow(dead_code, reason = "each test uses some")]

use dwcp_lab::namespace::Namespace;

/// A network namespace, if this process may make one.
pub(crate) fn namespace() -> Option<Namespace> {
    match Namespace::create() {
        Ok(namespace) => Some(namespace),
        Err(error) => {
            eprintln!("SKIP: no network namespace can be made here: {error:#}");
            None
        }
    }
}

/// Two namespaces with a veth pair between them: `u0` at both ends, 10.77.0.1 and 10.77.0.2, fd77::1 and fd77::2.
pub(crate) fn pair(mtu: u32) -> Option<[Namespace; 2]> {
    let (one, other) = (namespace()?, namespace()?);
    one.ip(&[&format!(
        "link add u0 mtu {mtu} type veth peer name u0 mtu {mtu} netns {}",
        other.path().display()
    )])
    .expect("a veth pair");
    for (namespace, last) in [(&one, 1), (&other, 2)] {
        let lines = [
            format!("addr add 10.77.0.{last}/24 dev u0"),
            format!("addr add fd77::{last}/64 dev u0 nodad"),
            "link set u0 up".to_owned(),
        ];
        namespace.ip(&lines.each_ref().map(String::as_str)).expect("addresses");
    }
    Some([one, other])
}
