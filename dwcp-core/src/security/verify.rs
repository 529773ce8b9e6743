//! rustls certificate verifiers that also ask the allow rule.
//!
//! The rule is applied inside the handshake, so a peer that is not allowed learns it as a TLS alert
//! and never gets to send application data. Chain, validity, purpose, name and signature checks are
//! those of `rustls-webpki`.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{
    allow::{AllowRule, names_of},
    error::NotAllowed,
};

/// The peer's names, if the rule (if any) accepts one of them.
pub(super) fn check(
    rule: Option<&AllowRule>,
    certificate: &CertificateDer<'_>,
) -> Result<Vec<String>, NotAllowed> {
    let parsed = names_of(certificate);
    let names = parsed.iter().map(ToString::to_string).collect();
    if rule.is_some_and(|rule| !rule.allows(&parsed)) {
        return Err(NotAllowed { names });
    }
    Ok(names)
}

fn check_in_handshake(rule: Option<&AllowRule>, certificate: &CertificateDer<'_>) -> Result<(), Error> {
    check(rule, certificate)
        .map(drop)
        .map_err(|error| CertificateError::Other(OtherError(Arc::new(error))).into())
}

#[derive(Debug)]
pub(super) struct AllowedServer {
    pub(super) chain: Arc<dyn ServerCertVerifier>,
    pub(super) rule: Option<AllowRule>,
}

impl ServerCertVerifier for AllowedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        check_in_handshake(self.rule.as_ref(), end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[derive(Debug)]
pub(super) struct AllowedClient {
    pub(super) chain: Arc<dyn ClientCertVerifier>,
    pub(super) rule: Option<AllowRule>,
}

impl ClientCertVerifier for AllowedClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        check_in_handshake(self.rule.as_ref(), end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
