//! Checks of what depends on more than one setting.

use std::net::SocketAddr;

use novacron_settings::{SettingsError, Sources};

use super::Settings;

/// Whoever reaches an address that is not loopback may read and write there, unless there are certificates.
pub(super) fn plaintext(sources: &Sources<Settings>) -> Result<(), SettingsError> {
    let transport = &sources.values.transport;
    let is_open = |address: &SocketAddr| !address.ip().is_loopback();
    if transport.tls.is_none() && !transport.endpoint.allow_plaintext {
        let expected = "a loopback address, since there are no certificates (tls.cert, tls.key, tls.ca), or else --allow-plaintext";
        if is_open(&transport.listen) {
            return Err(sources.invalid("listen", transport.listen.to_string(), expected));
        }
        if let Some(datagrams) = sources.values.datagrams().filter(is_open) {
            return Err(sources.invalid("datagrams.listen", datagrams.to_string(), expected));
        }
    }
    if let Some(metrics) = transport.metrics.listen.filter(is_open)
        && !transport.metrics.allow_plaintext
    {
        let expected = "a loopback address, or else --metrics-allow-plaintext";
        return Err(sources.invalid("metrics.listen", metrics.to_string(), expected));
    }
    Ok(())
}

/// Nobody asks what a guard would be told if there is none.
pub(super) fn xdp(sources: &Sources<Settings>) -> Result<(), SettingsError> {
    let Settings { xdp, .. } = &sources.values;
    if xdp.interfaces.is_empty() {
        return Ok(());
    }
    let Some(datagrams) = sources.values.datagrams() else {
        let expected = "empty, since datagrams.listen is off: datagrams are all that is guarded";
        return Err(sources.invalid("xdp.interfaces", xdp.interfaces.join(","), expected));
    };
    let mut config = crate::guard::config(xdp, Some(datagrams));
    // Port 0 is any that is free.
    config.ports.iter_mut().filter(|port| **port == 0).for_each(|port| *port = 1);
    match config.check() {
        Err(dwcp_ebpf::Error::Setting { setting, allowed }) => {
            let key = match setting {
                "deny" => "xdp.deny",
                "allow" => "xdp.allow",
                _ => "xdp.limit",
            };
            let limit = xdp.limit.map(|limit| format!("{}/{}", limit.datagrams_per_second, limit.burst));
            let value = match setting {
                "deny" => format!("{} prefixes", xdp.deny.len()),
                "allow" => format!("{} prefixes", xdp.allow.len()),
                _ => limit.unwrap_or_default(),
            };
            Err(sources.invalid(key, value, allowed))
        }
        _ => Ok(()),
    }
}
