//! Certificates of the port: what new handshakes use, which follows the files.

use std::time::Duration;

use novacron_process::{CurrentTls, ServerFiles, Watched};
use tokio::time::{MissedTickBehavior, interval};

use crate::settings::TlsSettings;

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
const ALPN: &[&[u8]] = &[b"http/1.1"];

/// The files; `None`: plaintext.
pub(crate) fn files(settings: &TlsSettings) -> Option<ServerFiles> {
    let is_named = |path: &std::path::Path| !path.as_os_str().is_empty();
    is_named(&settings.cert).then(|| ServerFiles {
        cert: settings.cert.clone(),
        key: settings.key.clone(),
        client_ca: is_named(&settings.ca).then(|| settings.ca.clone()),
        client_cert_required: settings.client_cert_required,
        alpn: ALPN,
    })
}

/// Keeps what new connections use like the files. Of files that are no good is told, and what was before stays in force.
pub(crate) async fn keep_fresh(files: ServerFiles, mut watched: Watched, current: CurrentTls) {
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (files, current) = (files.clone(), current.clone());
        // Files may be on a disk that hangs.
        let looked = tokio::task::spawn_blocking(move || {
            if watched.have_changed() {
                match files.load() {
                    Ok(config) => {
                        current.replace(config);
                        tracing::info!(cert = %files.cert.display(), "certificates read again");
                    }
                    Err(error) => {
                        tracing::error!(%error, "new certificates are no good, the old ones stay in force");
                    }
                }
            }
            watched
        });
        match looked.await {
            Ok(same) => watched = same,
            // The runtime shuts down.
            Err(_) => return,
        }
    }
}
