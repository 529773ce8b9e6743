//! Signed tokens (RFC 7519), with etcd's claims and etcd's options: whoever has the key knows for whom one stands, so no member
//! has to keep any.
//!
//! A token carries the auth revision that it was made at, and is refused after the next change of users and roles.
//!
//! Deliberately not here: reading files, the clock (both are arguments).

use std::{collections::BTreeMap, fmt, io, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair, UnparsedPublicKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};
use x509_parser::{
    prelude::{FromDer as _, X509Certificate},
    x509::SubjectPublicKeyInfo,
};

/// As in etcd.
const DEFAULT_TTL: Duration = Duration::from_secs(300);

/// Options of tokens that make no sense.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenOptionError {
    /// Neither `simple` nor `jwt`.
    #[error("{kind:?} is no kind of token: simple and jwt are")]
    Kind {
        /// What was found.
        kind: String,
    },
    /// Not NAME=VALUE, unknown, or given twice.
    #[error("option {option:?}: it is not NAME=VALUE, not known, or given twice")]
    Option {
        /// What was found.
        option: String,
    },
    /// Not a method of signing, or one that is not offered.
    #[error(
        "sign-method {method:?} is not one of HS256 HS384 HS512 RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 EdDSA"
    )]
    Method {
        /// What was found.
        method: String,
    },
    /// Not a duration.
    #[error("ttl {ttl:?} is not a duration like 10m or 1h30m")]
    Ttl {
        /// What was found.
        ttl: String,
    },
    /// No key for what is to be done.
    #[error("a key is missing: {option} has to be given")]
    NoKey {
        /// The option that would give it.
        option: &'static str,
    },
    /// A file that cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file without the right kind of key in it.
    #[error("{path}: {reason}")]
    Key {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

type Padding = &'static dyn signature::RsaEncoding;
type Verification = &'static dyn signature::VerificationAlgorithm;

#[derive(Clone, Copy)]
enum Method {
    Hmac(hmac::Algorithm),
    Rsa(Padding, Verification),
    Ecdsa(&'static signature::EcdsaSigningAlgorithm, Verification),
    Ed25519,
}

/// The methods, by their names in RFC 7518 and RFC 8037.
fn method(name: &str) -> Option<(&'static str, Method)> {
    use signature::*;
    Some(match name {
        "HS256" => ("HS256", Method::Hmac(hmac::HMAC_SHA256)),
        "HS384" => ("HS384", Method::Hmac(hmac::HMAC_SHA384)),
        "HS512" => ("HS512", Method::Hmac(hmac::HMAC_SHA512)),
        "RS256" => ("RS256", Method::Rsa(&RSA_PKCS1_SHA256, &RSA_PKCS1_2048_8192_SHA256)),
        "RS384" => ("RS384", Method::Rsa(&RSA_PKCS1_SHA384, &RSA_PKCS1_2048_8192_SHA384)),
        "RS512" => ("RS512", Method::Rsa(&RSA_PKCS1_SHA512, &RSA_PKCS1_2048_8192_SHA512)),
        "PS256" => ("PS256", Method::Rsa(&RSA_PSS_SHA256, &RSA_PSS_2048_8192_SHA256)),
        "PS384" => ("PS384", Method::Rsa(&RSA_PSS_SHA384, &RSA_PSS_2048_8192_SHA384)),
        "PS512" => ("PS512", Method::Rsa(&RSA_PSS_SHA512, &RSA_PSS_2048_8192_SHA512)),
        "ES256" => ("ES256", Method::Ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P256_SHA256_FIXED)),
        "ES384" => ("ES384", Method::Ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, &ECDSA_P384_SHA384_FIXED)),
        "EdDSA" => ("EdDSA", Method::Ed25519),
        _ => return None,
    })
}

enum Signer {
    Hmac(hmac::Key),
    Rsa(Box<RsaKeyPair>, Padding),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

enum Verifier {
    Hmac(hmac::Key),
    Public(Verification, Vec<u8>),
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    typ: String,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    exp: u64,
    revision: u64,
    username: String,
}

/// Makes and reads signed tokens.
pub struct Jwt {
    method: &'static str,
    ttl: Duration,
    /// `None`: it only reads those that others made.
    signer: Option<Signer>,
    verifier: Verifier,
}

/// Without the keys.
impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt").field("method", &self.method).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

impl Jwt {
    /// Reads etcd's options: `pub-key=FILE,priv-key=FILE,sign-method=NAME,ttl=DURATION`.
    pub fn parse(
        options: &str,
        read: impl Fn(&str) -> io::Result<Vec<u8>>,
    ) -> Result<Self, TokenOptionError> {
        let mut given = BTreeMap::new();
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let wrong = || TokenOptionError::Option { option: option.to_owned() };
            let (name, value) = option.split_once('=').ok_or_else(wrong)?;
            if !["pub-key", "priv-key", "sign-method", "ttl"].contains(&name)
                || given.insert(name, value).is_some()
            {
                return Err(wrong());
            }
        }
        let ttl = match given.get("ttl") {
            None => DEFAULT_TTL,
            Some(ttl) => duration(ttl).ok_or_else(|| TokenOptionError::Ttl { ttl: (*ttl).to_owned() })?,
        };
        let name = given.get("sign-method").copied().unwrap_or_default();
        let (name, method) =
            method(name).ok_or_else(|| TokenOptionError::Method { method: name.to_owned() })?;
        let file = |option: &str| {
            let path = given.get(option).copied();
            let read = |path| match read(path) {
                Ok(content) => Ok((path, content)),
                Err(source) => Err(TokenOptionError::File { path: path.to_owned(), source }),
            };
            path.map(read).transpose()
        };
        let (signer, verifier) = keys(method, file("priv-key")?, file("pub-key")?)?;
        Ok(Self { method: name, ttl, signer, verifier })
    }

    /// A token for a user; `None`: there is no key to sign with. `now` is since 1970.
    pub(crate) fn sign(&self, user: &str, revision: u64, now: Duration) -> Option<String> {
        let signer = self.signer.as_ref()?;
        let header = Header { alg: self.method.to_owned(), typ: "JWT".to_owned() };
        let claims = Claims { exp: (now + self.ttl).as_secs(), revision, username: user.to_owned() };
        let header = serde_json::to_vec(&header).ok()?;
        let claims = serde_json::to_vec(&claims).ok()?;
        let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
        let signature = match signer {
            Signer::Hmac(key) => hmac::sign(key, message.as_bytes()).as_ref().to_vec(),
            Signer::Rsa(key, padding) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(*padding, &SystemRandom::new(), message.as_bytes(), &mut signature).ok()?;
                signature
            }
            Signer::Ecdsa(key) => key.sign(&SystemRandom::new(), message.as_bytes()).ok()?.as_ref().to_vec(),
            Signer::Ed25519(key) => key.sign(message.as_bytes()).as_ref().to_vec(),
        };
        Some(format!("{message}.{}", BASE64.encode(signature)))
    }

    /// For whom a token stands, and the auth revision that it was made at.
    pub(crate) fn verify(&self, token: &str, now: Duration) -> Option<(String, u64)> {
        let (message, signature) = token.rsplit_once('.')?;
        let signature = BASE64.decode(signature).ok()?;
        match &self.verifier {
            Verifier::Hmac(key) => hmac::verify(key, message.as_bytes(), &signature).ok()?,
            Verifier::Public(algorithm, key) => {
                UnparsedPublicKey::new(*algorithm, key).verify(message.as_bytes(), &signature).ok()?;
            }
        }
        let (header, claims) = message.split_once('.')?;
        let header: Header = serde_json::from_slice(&BASE64.decode(header).ok()?).ok()?;
        let claims: Claims = serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()?;
        (header.alg == self.method && claims.exp > now.as_secs())
            .then_some((claims.username, claims.revision))
    }
}

type File<'a> = Option<(&'a str, Vec<u8>)>;

/// Keys of a method. With both, they belong together.
fn keys(
    method: Method,
    private: File<'_>,
    public: File<'_>,
) -> Result<(Option<Signer>, Verifier), TokenOptionError> {
    let algorithm = match method {
        Method::Hmac(algorithm) => {
            let (path, secret) = private.ok_or(TokenOptionError::NoKey { option: "priv-key" })?;
            if secret.is_empty() {
                return Err(TokenOptionError::Key { path: path.to_owned(), reason: "it is empty" });
            }
            let key = hmac::Key::new(algorithm, &secret);
            return Ok((Some(Signer::Hmac(key.clone())), Verifier::Hmac(key)));
        }
        Method::Rsa(_, algorithm) | Method::Ecdsa(_, algorithm) => algorithm,
        Method::Ed25519 => &signature::ED25519,
    };
    let signer = private.map(|(path, content)| private_key(method, path, &content)).transpose()?;
    let public = match public {
        None => None,
        Some((path, content)) => {
            let wrong = |reason| TokenOptionError::Key { path: path.to_owned(), reason };
            let key = public_key_in(&content).map_err(wrong)?;
            if signer.as_ref().is_some_and(|signer| public_key(signer) != key) {
                return Err(wrong("it does not belong to the private key"));
            }
            Some(key)
        }
    };
    let key = public.or_else(|| signer.as_ref().map(public_key));
    let key = key.ok_or(TokenOptionError::NoKey { option: "pub-key or priv-key" })?;
    Ok((signer, Verifier::Public(algorithm, key)))
}

fn private_key(method: Method, path: &str, content: &[u8]) -> Result<Signer, TokenOptionError> {
    let wrong = |reason| TokenOptionError::Key { path: path.to_owned(), reason };
    let key =
        PrivateKeyDer::from_pem_slice(content).map_err(|_| wrong("no private key in PEM format in it"))?;
    let other_kind = |_| wrong("not a key of this method");
    let der = key.secret_der();
    match (method, &key) {
        (Method::Rsa(padding, _), PrivateKeyDer::Pkcs1(_)) => {
            RsaKeyPair::from_der(der).map(|key| Signer::Rsa(Box::new(key), padding)).map_err(other_kind)
        }
        (_, PrivateKeyDer::Pkcs1(_) | PrivateKeyDer::Sec1(_)) => {
            Err(wrong("not a PRIVATE KEY of this method; `openssl pkcs8 -topk8 -nocrypt` converts an EC one"))
        }
        (Method::Rsa(padding, _), _) => {
            RsaKeyPair::from_pkcs8(der).map(|key| Signer::Rsa(Box::new(key), padding)).map_err(other_kind)
        }
        (Method::Ecdsa(algorithm, _), _) => EcdsaKeyPair::from_pkcs8(algorithm, der, &SystemRandom::new())
            .map(Signer::Ecdsa)
            .map_err(other_kind),
        (Method::Ed25519, _) => {
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map(Signer::Ed25519).map_err(other_kind)
        }
        (Method::Hmac(_), _) => Err(wrong("a secret has no format")),
    }
}

/// The key in a file: its own, or, as etcd takes it too, that of a certificate.
fn public_key_in(content: &[u8]) -> Result<Vec<u8>, &'static str> {
    if let Ok(certificate) = CertificateDer::from_pem_slice(content) {
        let (_, certificate) = X509Certificate::from_der(&certificate).map_err(|_| "not a certificate")?;
        return Ok(certificate.public_key().subject_public_key.data.to_vec());
    }
    let spki = SubjectPublicKeyInfoDer::from_pem_slice(content)
        .map_err(|_| "no PUBLIC KEY or CERTIFICATE in PEM format in it")?;
    let (_, spki) = SubjectPublicKeyInfo::from_der(&spki).map_err(|_| "not a public key")?;
    Ok(spki.subject_public_key.data.to_vec())
}

fn public_key(signer: &Signer) -> Vec<u8> {
    match signer {
        Signer::Hmac(_) => Vec::new(),
        Signer::Rsa(key, _) => key.public_key().as_ref().to_vec(),
        Signer::Ecdsa(key) => key.public_key().as_ref().to_vec(),
        Signer::Ed25519(key) => key.public_key().as_ref().to_vec(),
    }
}

/// A duration as Go writes it, in whole units.
fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u32 = rest[..unit_at].parse().ok()?;
        let tail = &rest[unit_at..];
        let unit = &tail[..tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len())];
        let length = match unit {
            "h" => Duration::from_secs(3600),
            "m" => Duration::from_secs(60),
            "s" => Duration::from_secs(1),
            "ms" => Duration::from_millis(1),
            _ => return None,
        };
        total = total.checked_add(length.checked_mul(number)?)?;
        rest = &tail[unit.len()..];
    }
    (total > Duration::ZERO).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000_000);

    fn jwt(options: &str, files: &[(&str, &str)]) -> Result<Jwt, TokenOptionError> {
        Jwt::parse(options, |path| {
            let file = files.iter().find(|(name, _)| *name == path);
            file.map(|(_, content)| content.as_bytes().to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }

    fn key_pair(algorithm: &'static rcgen::SignatureAlgorithm) -> (String, String) {
        let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
        (pair.serialize_pem(), pair.public_key_pem())
    }

    #[test]
    fn what_one_signs_those_with_the_public_key_read() {
        for (method, algorithm) in [
            ("ES256", &rcgen::PKCS_ECDSA_P256_SHA256),
            ("ES384", &rcgen::PKCS_ECDSA_P384_SHA384),
            ("EdDSA", &rcgen::PKCS_ED25519),
        ] {
            let (private, public) = key_pair(algorithm);
            let files = [("private", &*private), ("public", &*public)];
            let both = format!("priv-key=private,pub-key=public,sign-method={method},ttl=1m");
            let signer = jwt(&both, &files).unwrap();
            let reader = jwt(&format!("pub-key=public,sign-method={method}"), &files).unwrap();
            let token = signer.sign("alice", 7, NOW).unwrap();
            for jwt in [&signer, &reader] {
                assert_eq!(jwt.verify(&token, NOW), Some(("alice".to_owned(), 7)), "{method}");
                assert_eq!(jwt.verify(&token, NOW + Duration::from_secs(60)), None, "its time is over");
            }
            assert_eq!(reader.sign("alice", 7, NOW), None, "it has no key to sign with");
            let (_, other) = key_pair(algorithm);
            assert!(jwt(&both, &[files[0], ("public", &other)]).is_err(), "keys that do not belong together");
            let stranger = jwt(&format!("pub-key=p,sign-method={method}"), &[("p", &other)]).unwrap();
            assert_eq!(stranger.verify(&token, NOW), None);
        }
    }

    #[test]
    fn a_certificate_is_a_public_key_too() {
        let pair = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["host".to_owned()]).unwrap();
        let (private, certificate) = (pair.serialize_pem(), params.self_signed(&pair).unwrap().pem());
        let files = [("private", &*private), ("certificate", &*certificate)];
        let options = "priv-key=private,pub-key=certificate,sign-method=ES256";
        let signer = jwt(options, &files).unwrap();
        let reader = jwt("pub-key=certificate,sign-method=ES256", &files).unwrap();
        assert!(reader.verify(&signer.sign("alice", 7, NOW).unwrap(), NOW).is_some());
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        assert!(jwt(options, &[("private", &other), files[1]]).is_err(), "they do not belong together");
    }

    #[test]
    fn a_changed_token_is_none() {
        let hmac = |secret: &'static str| jwt("priv-key=s,sign-method=HS256", &[("s", secret)]).unwrap();
        let token = hmac("secret").sign("alice", 1, NOW).unwrap();
        assert!(hmac("secret").verify(&token, NOW).is_some());
        assert!(hmac("other").verify(&token, NOW).is_none());
        let parts: Vec<_> = token.split('.').collect();
        let root = hmac("other").sign("root", 1, NOW).unwrap();
        let claims = root.split('.').nth(1).unwrap();
        let unsigned = BASE64.encode(br#"{"alg":"none"}"#);
        for forged in [
            format!("{}.{claims}.{}", parts[0], parts[2]),
            format!("{unsigned}.{claims}."),
            format!("{unsigned}.{}.{}", parts[1], parts[2]),
            format!("{}.{}", parts[0], parts[1]),
            String::new(),
            "...".to_owned(),
        ] {
            assert_eq!(hmac("secret").verify(&forged, NOW), None, "{forged}");
        }
        let longer = jwt("priv-key=s,sign-method=HS512", &[("s", "secret")]).unwrap();
        assert_eq!(longer.verify(&token, NOW), None, "another method");
    }

    #[test]
    fn signatures_are_those_of_the_specification() {
        // RFC 7515, appendix A.1: the key and the signature; its claims are not etcd's.
        let key = BASE64
            .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
            .unwrap();
        let jwt = Jwt::parse("priv-key=k,sign-method=HS256", |_| Ok(key.clone())).unwrap();
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let (message, signature) = token.rsplit_once('.').unwrap();
        let Verifier::Hmac(key) = &jwt.verifier else { panic!("a secret") };
        assert!(hmac::verify(key, message.as_bytes(), &BASE64.decode(signature).unwrap()).is_ok());
        assert_eq!(jwt.verify(token, NOW), None, "it names no user");
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        for options in [
            "",
            "sign-method=HS256",
            "sign-method=none,priv-key=s",
            "sign-method=HS256,priv-key=missing",
            "sign-method=HS256,priv-key=s,priv-key=s",
            "sign-method=HS256,priv-key=s,ttl=5",
            "sign-method=HS256,priv-key=s,ttl=0s",
            "sign-method=HS256,priv-key=s,more=x",
            "sign-method=HS256,priv-key",
            "sign-method=RS256,priv-key=s",
            "sign-method=ES256",
        ] {
            assert!(jwt(options, &[("s", "secret")]).is_err(), "{options}");
        }
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("99999999999h"), None);
    }
}
