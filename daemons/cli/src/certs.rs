//! `novacron certs --out DIR`: a development authority, and certificates of nodes signed by it.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

use crate::exit::Usage;

const AUTHORITY_NAME: &str = "NovaCron development CA";
const AUTHORITY_DAYS: i64 = 365;
/// Clocks of two machines may differ by this.
const BACKDATED: Duration = Duration::hours(1);

/// Makes a development certificate authority (if DIR has none) and certificates of nodes.
///
/// For trying things out and for laboratories: whoever can read ca.key can be any node.
#[derive(Args, Debug)]
pub(crate) struct CertsArgs {
    /// Folder for ca.pem, ca.key, NODE.pem and NODE.key.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Makes a certificate for this node, which carries its name.
    #[arg(long, value_name = "NAME")]
    node: Vec<String>,
    /// Further DNS names, IP addresses or URIs that the certificates carry.
    #[arg(long, value_name = "NAME", requires = "node")]
    san: Vec<String>,
    /// Days that the node certificates are valid.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=AUTHORITY_DAYS))]
    days: u16,
    /// Replaces existing node certificates; the authority is never replaced.
    #[arg(long)]
    force: bool,
}

/// Makes what is missing.
pub(crate) fn run(args: &CertsArgs) -> Result<()> {
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let authority = authority(&args.out)?;
    for node in &args.node {
        if node.is_empty() || node.starts_with('.') || node.contains('/') || node == "ca" {
            bail!(Usage(format!("{node:?} cannot be the name of a node")));
        }
        let mut names = vec![san(node)?];
        for name in &args.san {
            names.push(san(name)?);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, node);
        params.subject_alt_names = names;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        validity(&mut params, args.days.into());
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &authority)?;
        write_pair(&args.out, node, &cert.pem(), &key.serialize_pem(), args.force)?;
    }
    Ok(())
}

/// The authority of a folder; made if the folder has none.
fn authority(folder: &Path) -> Result<Issuer<'static, KeyPair>> {
    let (cert_path, key_path) = (folder.join("ca.pem"), folder.join("ca.key"));
    if cert_path.exists() || key_path.exists() {
        let read =
            |path: &Path| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        let key = KeyPair::from_pem(&read(&key_path)?).with_context(|| key_path.display().to_string())?;
        return Issuer::from_ca_cert_pem(&read(&cert_path)?, key)
            .with_context(|| cert_path.display().to_string());
    }
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, AUTHORITY_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, AUTHORITY_DAYS);
    let key = KeyPair::generate()?;
    let cert = params.self_signed(&key)?;
    write_pair(folder, "ca", &cert.pem(), &key.serialize_pem(), false)?;
    Ok(Issuer::new(params, key))
}

fn validity(params: &mut CertificateParams, days: i64) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATED;
    params.not_after = now + Duration::days(days);
}

fn san(name: &str) -> Result<SanType> {
    let invalid = |_| Usage(format!("{name:?} is not a DNS name, IP address or URI"));
    Ok(match name.parse() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) if name.contains("://") => SanType::URI(name.try_into().map_err(invalid)?),
        Err(_) => SanType::DnsName(name.try_into().map_err(invalid)?),
    })
}

/// The key first: a certificate without its key would look like success.
fn write_pair(folder: &Path, name: &str, cert: &str, key: &str, force: bool) -> Result<()> {
    let (cert_path, key_path) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    for path in [&cert_path, &key_path] {
        if path.exists() && !force {
            bail!("{} exists; --force replaces node certificates", path.display());
        }
    }
    write(&key_path, key, 0o600)?;
    write(&cert_path, cert, 0o644)?;
    eprintln!("made {} and {}", cert_path.display(), key_path.display());
    Ok(())
}

/// Through a temporary file, so that nobody reads half of one, and with its mode from the beginning.
fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    written.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_authority_is_made_once_and_nodes_are_not_replaced_by_accident() {
        let dir = tempfile::tempdir().unwrap();
        let args = |node: &str, force| CertsArgs {
            out: dir.path().join("certs"),
            node: vec![node.to_owned()],
            san: vec!["127.0.0.1".into(), "spiffe://test/node".into()],
            days: 7,
            force,
        };
        run(&args("a", false)).unwrap();
        let read = |name: &str| fs::read(dir.path().join("certs").join(name)).unwrap();
        let (authority, first) = (read("ca.pem"), read("a.pem"));
        run(&args("b", false)).unwrap();
        assert_eq!(read("ca.pem"), authority);
        assert!(run(&args("a", false)).is_err());
        assert_eq!(read("a.pem"), first);
        run(&args("a", true)).unwrap();
        assert_ne!(read("a.pem"), first);
        for key in ["ca.key", "a.key", "b.key"] {
            let mode = fs::metadata(dir.path().join("certs").join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
        for bad in ["ca", "../x", "", "ünïcode"] {
            assert!(run(&args(bad, false)).is_err(), "{bad:?}");
        }
    }
}
