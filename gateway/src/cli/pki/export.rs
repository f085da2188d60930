//! `tussock pki export`: certificate, key and CA in one file (PKCS #12), as phones and Windows want it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use openssl::pkcs12::Pkcs12;
use openssl::pkey::PKey;
use openssl::stack::Stack;
use openssl::x509::X509;
use zeroize::Zeroizing;

use super::ca::Folder;
use super::store::{Store, replace, secret};

/// What to export.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Export {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub folder: Folder,
    /// Whose certificate
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Where it goes
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// The password is the first line of this file; it is asked for without
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

pub(super) fn export(export: &Export) -> anyhow::Result<()> {
    let store = Store::open(&export.folder.dir)?;
    let issued = store.find(&export.name)?;
    if issued.revoked.is_some() {
        bail!("the certificate of `{}` was revoked", export.name);
    }
    let read = |path: PathBuf| fs::read(&path).with_context(|| format!("cannot read {}", path.display()));
    let cert = X509::from_pem(&read(store.cert(&export.name))?)?;
    let ca = X509::from_pem(&read(store.path("ca.crt"))?)?;
    let key = PKey::private_key_from_pem(secret(&store.key(&export.name))?.as_bytes())?;
    let password = password(export)?;
    let mut above = Stack::new()?;
    above.push(ca)?;
    let made = Pkcs12::builder().name(&export.name).pkey(&key).cert(&cert).ca(above).build2(&password)?;
    replace(&export.out, &Zeroizing::new(made.to_der()?))
}

fn password(export: &Export) -> anyhow::Result<Zeroizing<String>> {
    let password = match &export.password_file {
        Some(path) => {
            let text = secret(path)?;
            Zeroizing::new(text.lines().next().unwrap_or_default().to_owned())
        }
        None => {
            let ask = |what: &str| rpassword::prompt_password(what).map(Zeroizing::new);
            let no_terminal = "there is no terminal to ask for a password at; use --password-file";
            let once = ask("Password of the new file: ").context(no_terminal)?;
            if once != ask("The same again: ").context(no_terminal)? {
                bail!("these were two different passwords");
            }
            once
        }
    };
    if password.is_empty() {
        bail!("the password is empty: there is a private key in the file");
    }
    Ok(password)
}
