//! Who a region is, its certificate says.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Duration};

use bytes::Bytes;
use consensus_core::{RegionNetwork, RegionNetworkConfig, TlsConfig};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::sync::mpsc;

use crate::regions::region::until;

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn config(&self, name: &str) -> Arc<TlsConfig> {
        let key = KeyPair::generate().unwrap();
        let names = vec![name.to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        let (cert, key) = (certificate.pem(), key.serialize_pem());
        TlsConfig::from_pem(cert.as_bytes(), key.as_bytes(), self.pem.as_bytes(), None).unwrap().into()
    }
}

async fn network(region: u32, tls: Arc<TlsConfig>) -> (RegionNetwork, mpsc::Receiver<(u32, Bytes)>) {
    let config = RegionNetworkConfig {
        region,
        name: String::new(),
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        tls: Some(tls),
        allow_plaintext: false,
    };
    let (network, messages) = RegionNetwork::listen(config).await.unwrap();
    network.set_speaking(true);
    (network, messages)
}

fn at(region: u32, network: &RegionNetwork) -> BTreeMap<u32, Vec<String>> {
    [(region, vec![format!("https://{}", network.local_addr().unwrap())])].into()
}

/// REGIONS-3.4, REGIONS-3.5
#[tokio::test(flavor = "multi_thread")]
async fn a_region_is_who_its_certificate_says() {
    let authority = Authority::new();
    let (one, mut heard) = network(1, authority.config("region-1.example")).await;
    let (two, _) = network(2, authority.config("region-2")).await;
    // It has a certificate of the authority, of another region.
    let (forger, mut forged) = network(2, authority.config("region-22.example")).await;
    two.set_peers(&at(1, &one));
    forger.set_peers(&at(1, &one));
    until("two is heard", async || {
        forger.send(1, Bytes::from_static(b"forged"));
        two.send(1, Bytes::from_static(b"genuine"));
        heard.try_recv().is_ok()
    })
    .await;
    while let Ok((region, message)) = heard.try_recv() {
        assert_eq!((region, &message[..]), (2, &b"genuine"[..]));
    }
    // Nor is anything told to one that is not who should be there.
    one.set_peers(&at(2, &forger));
    for _ in 0..20 {
        one.send(2, Bytes::from_static(b"for two"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!one.is_connected(2));
    assert!(forged.try_recv().is_err());
    // Who does not lead has no connections.
    one.set_peers(&at(2, &two));
    until("one is connected", async || one.is_connected(2)).await;
    two.set_speaking(false);
    until("it is not any more", async || !one.is_connected(2)).await;
    for network in [one, two, forger] {
        network.shutdown(Duration::from_millis(100)).await;
    }
}
