//! PEM files: what is wrong with them, and what happens when they change under us.

use std::{
    fs,
    io::{ErrorKind, IoSlice, IoSliceMut},
    path::Path,
    sync::{Arc, mpsc},
    time::Duration,
};

use dwcp_core::security::{AllowRule, LinkSocket, TlsConfig, TlsError, TlsFiles, TlsStore, watch};
use tempfile::TempDir;

use crate::pki::{Authority, EXPIRED, FUTURE, VALID, handshake};

fn write(folder: &Path, cert: &str, key: &str, ca: &str) -> TlsFiles {
    let files = TlsFiles {
        cert: folder.join("cert.pem"),
        key: folder.join("key.pem"),
        ca: folder.join("ca.pem"),
        allow: None,
    };
    for (path, text) in [(&files.cert, cert), (&files.key, key), (&files.ca, ca)] {
        fs::write(path, text).unwrap();
    }
    files
}

/// The error of files that are good but for a change by `spoil`, and its text.
fn error_of(spoil: impl FnOnce(&Authority, &TlsFiles)) -> (TlsError, String) {
    let (folder, ca) = (TempDir::new().unwrap(), Authority::new());
    let node = ca.issue(&["node.example"], VALID);
    let files = write(folder.path(), &node.cert, &node.key, &ca.pem);
    files.load().unwrap();
    spoil(&ca, &files);
    let error = TlsConfig::from_pem_files(&files).unwrap_err();
    let text = error.to_string();
    (error, text)
}

#[test]
fn a_missing_file_is_named() {
    let (error, text) = error_of(|_, files| fs::remove_file(&files.key).unwrap());
    assert!(matches!(error, TlsError::Read { source, .. } if source.kind() == ErrorKind::NotFound));
    assert!(text.contains("key file") && text.contains("key.pem"), "{text}");
}

#[test]
fn a_file_without_certificate_is_named() {
    for content in ["", "hello\n"] {
        let (error, text) = error_of(|_, files| fs::write(&files.ca, content).unwrap());
        assert!(matches!(error, TlsError::Missing { wanted: "CERTIFICATE", .. }), "{error:?}");
        assert!(text.contains("CA file") && text.contains("ca.pem"), "{text}");
    }
}

#[test]
fn swapped_files_are_recognised() {
    let (error, text) = error_of(|_, files| fs::copy(&files.cert, &files.key).map(drop).unwrap());
    assert!(matches!(error, TlsError::Missing { wanted: "PRIVATE KEY", .. }), "{error:?}");
    assert!(text.contains("swapped"), "{text}");
    let (error, _) = error_of(|_, files| fs::copy(&files.key, &files.cert).map(drop).unwrap());
    assert!(matches!(error, TlsError::Missing { wanted: "CERTIFICATE", .. }), "{error:?}");
}

#[test]
fn a_cut_off_file_is_not_valid_pem() {
    let (error, text) = error_of(|_, files| {
        let whole = fs::read(&files.cert).unwrap();
        fs::write(&files.cert, &whole[..whole.len() / 2]).unwrap();
    });
    assert!(matches!(error, TlsError::BadPem { .. }), "{error:?}");
    assert!(text.contains("cert.pem"), "{text}");
}

#[test]
fn pem_that_holds_no_certificate_inside_is_refused() {
    let nonsense = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    for role in ["certificate", "CA"] {
        let (error, text) = error_of(|_, files| {
            fs::write(if role == "CA" { &files.ca } else { &files.cert }, nonsense).unwrap();
        });
        assert!(matches!(error, TlsError::BadCertificate { .. }), "{error:?}");
        assert!(text.contains(role), "{text}");
    }
}

#[test]
fn the_key_of_another_certificate_is_refused() {
    let (error, text) =
        error_of(|ca, files| fs::write(&files.key, ca.issue(&["node.example"], VALID).key).unwrap());
    assert!(matches!(error, TlsError::KeyMismatch { .. }), "{error:?}");
    assert!(text.contains("key.pem") && text.contains("cert.pem"), "{text}");
}

#[test]
fn our_own_certificate_must_be_valid_now() {
    for years in [EXPIRED, FUTURE] {
        let (error, text) = error_of(|ca, files| {
            let node = ca.issue(&["node.example"], years);
            fs::write(&files.cert, node.cert).unwrap();
            fs::write(&files.key, node.key).unwrap();
        });
        match years {
            EXPIRED => assert!(matches!(error, TlsError::Expired { .. }) && text.contains("2001"), "{text}"),
            _ => assert!(matches!(error, TlsError::NotYetValid { .. }) && text.contains("3999"), "{text}"),
        }
    }
}

async fn ping(from: &LinkSocket, to: &LinkSocket) {
    from.writable().await.unwrap();
    assert_eq!(from.try_write(&[IoSlice::new(b"ping")]).unwrap(), 4);
    let mut bytes = [0; 8];
    loop {
        to.readable().await.unwrap();
        match to.try_read(&mut [IoSliceMut::new(&mut bytes)]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            got => {
                assert_eq!(got.unwrap(), 4);
                return;
            }
        }
    }
}

#[tokio::test]
async fn new_files_are_taken_bad_ones_are_not_and_connections_go_on() {
    const PATIENCE: Duration = Duration::from_secs(60);
    /// Reloads that wait to be looked at; a test makes fewer.
    const RELOADS_MAX: usize = 16;
    const INTERVAL: Duration = Duration::from_millis(20);
    let (old_ca, new_ca) = (Authority::new(), Authority::new());
    let folder = TempDir::new().unwrap();
    let node = old_ca.issue(&["node.example"], VALID);
    let mut files = write(folder.path(), &node.cert, &node.key, &old_ca.pem);
    files.allow = Some(AllowRule::new(["*.example"]).unwrap());
    let store = Arc::new(TlsStore::new(Arc::new(files.load().unwrap())));
    let first = store.current();
    let (told, applied) = mpsc::sync_channel(RELOADS_MAX);
    let watcher = tokio::spawn(watch(files.clone(), INTERVAL, {
        let store = store.clone();
        move |config| {
            store.replace(config);
            told.send(()).unwrap();
        }
    }));
    let (client, server) = handshake(&store.current(), "node.example", &store.current()).await;
    let (client, server) = (client.unwrap().0, server.unwrap().0);
    // The watcher takes the state at its first look as known.
    tokio::time::sleep(INTERVAL * 5).await;

    // Bad: half of a new pair, nonsense, nothing. Each must be seen before the next is written.
    let new = new_ca.issue(&["node.example"], VALID);
    for bad in [new.cert.as_str(), "nonsense", ""] {
        fs::write(&files.cert, bad).unwrap();
        tokio::time::sleep(INTERVAL * 5).await;
        assert!(applied.try_recv().is_err());
        assert!(Arc::ptr_eq(&store.current(), &first));
    }
    ping(&client, &server).await;

    // Good again, by renaming into place; the allow rule stays. The certificate comes last: until then it is bad, and
    // nothing in between is taken.
    fs::write(&files.ca, &new_ca.pem).unwrap();
    fs::write(&files.key, &new.key).unwrap();
    let next = folder.path().join("next");
    fs::write(&next, &new.cert).unwrap();
    fs::rename(&next, &files.cert).unwrap();
    let applied = tokio::task::spawn_blocking(move || applied.recv_timeout(PATIENCE)).await.unwrap();
    applied.expect("the new files were not taken");
    let peer = new_ca.config(&["peer.example"], &[]);
    let (a, b) = handshake(&peer, "node.example", &store.current()).await;
    a.unwrap();
    b.unwrap();
    let stranger = new_ca.config(&["peer.elsewhere"], &[]);
    let (_, b) = handshake(&stranger, "node.example", &store.current()).await;
    assert!(b.is_err());

    // What was connected with the old certificates is not disturbed.
    ping(&client, &server).await;
    ping(&server, &client).await;
    watcher.abort();
}
