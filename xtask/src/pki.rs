//! A certificate authority per key type, made with the openssl program in a second or two and kept in the target
//! folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::checkout;
use crate::process;
use crate::tunnel::KeyType;

/// Who gets a certificate, and under which names.
const HOLDERS: &[(&str, &str)] = &[
    ("moon", "DNS:moon.lab.test,IP:192.168.0.1,IP:fec0::1"),
    ("sun", "DNS:sun.lab.test,IP:192.168.0.2,IP:fec0::2"),
    ("carol", "email:carol@lab.test,DNS:carol.lab.test"),
    ("dave", "email:dave@lab.test,DNS:dave.lab.test"),
];

/// The files of one authority.
pub struct Pki {
    dir: PathBuf,
}

impl Pki {
    /// The authority of a key type, made if it is not there yet or about to expire.
    pub fn of(kind: KeyType) -> Result<Pki> {
        let dir = checkout::target().join("interop-pki").join(kind.name());
        let pki = Pki { dir };
        if !pki.is_complete() {
            pki.make(kind).with_context(|| format!("cannot make the {} certificates", kind.name()))?;
        }
        Ok(pki)
    }

    /// The root certificate, PEM.
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// The certificate of a host, PEM.
    pub fn cert(&self, host: &str) -> PathBuf {
        self.dir.join(format!("{host}.crt"))
    }

    /// The private key of a host, PEM (PKCS#8).
    pub fn key(&self, host: &str) -> PathBuf {
        self.dir.join(format!("{host}.key"))
    }

    /// Whether the last file made is there and good for another day.
    fn is_complete(&self) -> bool {
        let last = HOLDERS.last().map_or("moon", |(host, _)| host);
        let mut check = openssl();
        check.args(["x509", "-noout", "-checkend", "86400", "-in"]).arg(self.cert(last));
        process::run(&mut check).is_ok()
    }

    fn make(&self, kind: KeyType) -> Result<()> {
        fs::create_dir_all(&self.dir)?;
        let name = format!("/C=CH/O=Lab/CN=Lab {} root", kind.name());
        self.new_key(kind, "ca")?;
        let mut root = openssl();
        root.args(["req", "-x509", "-new", "-days", "90", "-subj", &name, "-key"]).arg(self.key("ca"));
        root.args(["-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out"]).arg(self.ca());
        process::run(&mut root)?;
        for (host, names) in HOLDERS {
            self.new_key(kind, host)?;
            let request = self.dir.join(format!("{host}.csr"));
            let subject = format!("/C=CH/O=Lab/CN={host}.lab.test");
            let mut ask = openssl();
            ask.args(["req", "-new", "-subj", &subject, "-key"])
                .arg(self.key(host))
                .arg("-out")
                .arg(&request);
            process::run(&mut ask)?;
            let extensions = self.dir.join(format!("{host}.ext"));
            fs::write(
                &extensions,
                format!(
                    "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
                     extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName={names}\n\
                     subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
                ),
            )?;
            let mut sign = openssl();
            sign.args(["x509", "-req", "-days", "60", "-in"]).arg(&request);
            sign.arg("-CA").arg(self.ca()).arg("-CAkey").arg(self.key("ca")).arg("-CAcreateserial");
            sign.arg("-extfile").arg(&extensions).arg("-out").arg(self.cert(host));
            process::run(&mut sign)?;
        }
        Ok(())
    }

    fn new_key(&self, kind: KeyType, host: &str) -> Result<()> {
        let mut make = openssl();
        make.arg("genpkey").arg("-out").arg(self.key(host));
        match kind {
            KeyType::Rsa => make.args(["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"]),
            KeyType::Ecdsa => make.args(["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
            KeyType::Ed25519 => make.args(["-algorithm", "ED25519"]),
        };
        process::run(&mut make).map(drop)
    }
}

/// Where a file lies, as text for a configuration file.
pub fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn openssl() -> Command {
    Command::new("openssl")
}
