//! Certificates of connections to the store: what new ones use, which follows the files.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use novacron_process::Watched;
use tokio::time::{MissedTickBehavior, interval};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::{app::App, settings::StoreSettings, store::OpenError};

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// What the files say that the settings name; `None`: there are none.
pub(crate) fn tls(settings: &StoreSettings) -> Result<Option<ClientTlsConfig>, OpenError> {
    let read =
        |path: &PathBuf| fs::read(path).map_err(|source| OpenError::File { path: path.clone(), source });
    if settings.ca.as_os_str().is_empty() {
        return Ok(None);
    }
    let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(&settings.ca)?));
    if !settings.cert.as_os_str().is_empty() {
        config = config.identity(Identity::from_pem(read(&settings.cert)?, read(&settings.key)?));
    }
    Ok(Some(config))
}

/// Keeps what new connections use like the files. Of files that are no good is told, and what was before stays in force.
pub(crate) async fn keep_fresh(app: Arc<App>) {
    let settings = &app.settings.store;
    let paths = [&settings.ca, &settings.cert, &settings.key];
    let named: Vec<_> = paths.into_iter().filter(|path| !path.as_os_str().is_empty()).cloned().collect();
    if named.is_empty() {
        return;
    }
    let mut watched = Watched::new(named);
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let app = Arc::clone(&app);
        // Files may be on a disk that hangs.
        let looked = tokio::task::spawn_blocking(move || {
            if watched.have_changed() {
                read_again(&app);
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

fn read_again(app: &App) {
    let settings = &app.settings.store;
    let replaced = tls(settings).and_then(|tls| match tls {
        Some(tls) => Ok(app.store.client().replace_tls(&tls)?),
        None => Ok(()),
    });
    match replaced {
        Ok(()) => tracing::info!(ca = %settings.ca.display(), "certificates for the store read again"),
        Err(error) => {
            tracing::error!(%error, "new certificates for the store are no good, the old ones stay in force");
        }
    }
}
