//! Where the program runs if the settings leave it open.

use dwcp_ebpf::Mode;
use dwcp_node::probe::{self, Interface};

/// Drivers that take programs and are better off without. A veth leaves its fast path for as long as it has one: all TCP
/// through it has half its throughput, and loses about a tenth in generic mode (docs/benchmarks.md).
const GENERIC_DRIVERS: [&str; 1] = ["veth"];

/// Of this interface; `None`: native where the driver can, else generic.
pub(crate) fn preferred(interface: &str) -> Option<Mode> {
    let interfaces = probe::interfaces().unwrap_or_default();
    interfaces.iter().find(|found| found.name == interface).and_then(of)
}

pub(crate) fn of(interface: &Interface) -> Option<Mode> {
    let driver = interface.driver.as_deref()?;
    GENERIC_DRIVERS.contains(&driver).then_some(Mode::Generic)
}
