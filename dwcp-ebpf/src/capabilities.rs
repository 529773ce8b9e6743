//! Whether this thread may load programs. Asked before anything is done, because the kernel's EPERM does not say what is
//! missing.

use std::fs;

use crate::error::Error;

/// What loading and attaching needs (`capabilities(7)`), and its bit. Without CAP_PERFMON the verifier refuses packet
/// pointers of variable offset.
const NEEDED: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
/// Stands for CAP_PERFMON and CAP_BPF.
const SYS_ADMIN: u32 = 21;

/// Fails if a capability is not there.
pub(crate) fn check() -> Result<(), Error> {
    // A thread has its own. Where /proc is hidden, the kernel's own answer has to do.
    let Ok(status) = fs::read_to_string("/proc/thread-self/status") else { return Ok(()) };
    let missing = status.lines().find_map(|line| line.strip_prefix("CapEff:")).and_then(missing);
    missing.map_or(Ok(()), |missing| Err(Error::NotPermitted { missing }))
}

/// Whether programs and links of others may be asked for.
pub(crate) fn is_admin() -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    effective.is_some_and(|effective| effective & 1 << SYS_ADMIN != 0)
}

/// What of `NEEDED` is not among the capabilities of this text.
fn missing(effective: &str) -> Option<String> {
    let effective = u64::from_str_radix(effective.trim(), 16).ok()?;
    let has = |bit: u32| effective & 1 << bit != 0;
    let granted = |bit, name| has(bit) || (name != "CAP_NET_ADMIN" && has(SYS_ADMIN));
    let missing: Vec<_> =
        NEEDED.into_iter().filter(|&(bit, name)| !granted(bit, name)).map(|(_, name)| name).collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(missing("\t000001ffffffffff"), None);
        assert_eq!(missing("\t0000000000000000").as_deref(), Some("CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF"));
        assert_eq!(missing("\t000000c000000000").as_deref(), Some("CAP_NET_ADMIN"));
        assert_eq!(missing("\t000000c000001000"), None);
        assert_eq!(missing("\t0000000000201000"), None, "CAP_SYS_ADMIN stands for two of them");
        assert_eq!(missing("\tsomething else"), None, "then the kernel has to say");
    }
}
