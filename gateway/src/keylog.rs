//! Keys for Wireshark, in the format of its tables: `ikev2_decryption_table` and `esp_sa`. Only when the configuration names
//! a folder for them; whoever reads it reads all traffic.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use ike::KeyLogEntry;
use spi::{Encr, Integ, Secret};
use zeroize::{Zeroize, Zeroizing};

/// The two files.
pub struct KeyLog {
    ike: File,
    esp: File,
}

impl KeyLog {
    /// Opens the files in a folder that only its owner may enter; what is there stays.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(dir: &Path) -> io::Result<KeyLog> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let open = |name: &str| -> io::Result<File> {
            // A link that somebody put there would be a way to have keys written elsewhere.
            let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
            let mut open = OpenOptions::new();
            open.create(true).append(true).mode(0o600).custom_flags(flags);
            let file = open.open(dir.join(name))?;
            // One that is there already may be open to others.
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            Ok(file)
        };
        Ok(KeyLog { ike: open("ikev2_decryption_table")?, esp: open("esp_sa")? })
    }

    /// Writes an entry. Algorithms that Wireshark has no name for are passed over.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&mut self, entry: &KeyLogEntry) -> io::Result<()> {
        let (file, line) = match entry {
            KeyLogEntry::Ike { .. } => (&mut self.ike, ike_line(entry)),
            KeyLogEntry::Esp { .. } => (&mut self.esp, esp_line(entry)),
        };
        let Some(mut line) = line else { return Ok(()) };
        let written = file.write_all(line.as_bytes());
        line.zeroize();
        written
    }
}

fn ike_line(entry: &KeyLogEntry) -> Option<Zeroizing<String>> {
    let KeyLogEntry::Ike { spi_i, spi_r, sk_ei, sk_er, sk_ai, sk_ar, encr, integ } = entry else {
        return None;
    };
    let mut line = room();
    // Writing into a String cannot fail.
    let _ = write!(line, "{spi_i:016x},{spi_r:016x},");
    hex(&mut line, sk_ei);
    line.push(',');
    hex(&mut line, sk_er);
    let _ = write!(line, ",\"{}\",", ike_encr(*encr)?);
    hex(&mut line, sk_ai);
    line.push(',');
    hex(&mut line, sk_ar);
    let _ = writeln!(line, ",\"{}\"", ike_integ(*integ)?);
    Some(line)
}

fn esp_line(entry: &KeyLogEntry) -> Option<Zeroizing<String>> {
    let KeyLogEntry::Esp { source, destination, spi, encr, integ, encr_key, integ_key } = entry else {
        return None;
    };
    let family = if source.is_ipv4() { "IPv4" } else { "IPv6" };
    let mut line = room();
    let _ = write!(
        line,
        "\"{family}\",\"{source}\",\"{destination}\",\"0x{spi:08x}\",\"{}\",\"0x",
        esp_encr(*encr)?
    );
    hex(&mut line, encr_key);
    let _ = write!(line, "\",\"{}\",\"", esp_integ(*encr, *integ)?);
    if !integ_key.is_empty() {
        line.push_str("0x");
        hex(&mut line, integ_key);
    }
    line.push_str("\"\n");
    Some(line)
}

/// All the room a line can need, so that growing leaves no copy behind.
fn room() -> Zeroizing<String> {
    Zeroizing::new(String::with_capacity(2048))
}

fn hex(line: &mut String, secret: &Secret) {
    for octet in secret.expose() {
        let _ = write!(line, "{octet:02x}");
    }
}

fn ike_encr(encr: Encr) -> Option<&'static str> {
    Some(match encr {
        Encr::NULL => "NULL [RFC2410]",
        Encr::AES128_CBC => "AES-CBC-128 [RFC3602]",
        Encr::AES192_CBC => "AES-CBC-192 [RFC3602]",
        Encr::AES256_CBC => "AES-CBC-256 [RFC3602]",
        Encr::AES128_CTR => "AES-CTR-128 [RFC5930]",
        Encr::AES192_CTR => "AES-CTR-192 [RFC5930]",
        Encr::AES256_CTR => "AES-CTR-256 [RFC5930]",
        Encr::AES128_GCM8 => "AES-GCM-128 with 8 octet ICV [RFC5282]",
        Encr::AES192_GCM8 => "AES-GCM-192 with 8 octet ICV [RFC5282]",
        Encr::AES256_GCM8 => "AES-GCM-256 with 8 octet ICV [RFC5282]",
        Encr::AES128_GCM12 => "AES-GCM-128 with 12 octet ICV [RFC5282]",
        Encr::AES192_GCM12 => "AES-GCM-192 with 12 octet ICV [RFC5282]",
        Encr::AES256_GCM12 => "AES-GCM-256 with 12 octet ICV [RFC5282]",
        Encr::AES128_GCM16 => "AES-GCM-128 with 16 octet ICV [RFC5282]",
        Encr::AES192_GCM16 => "AES-GCM-192 with 16 octet ICV [RFC5282]",
        Encr::AES256_GCM16 => "AES-GCM-256 with 16 octet ICV [RFC5282]",
        Encr::AES128_CCM8 => "AES-CCM-128 with 8 octet ICV [RFC5282]",
        Encr::AES192_CCM8 => "AES-CCM-192 with 8 octet ICV [RFC5282]",
        Encr::AES256_CCM8 => "AES-CCM-256 with 8 octet ICV [RFC5282]",
        Encr::AES128_CCM12 => "AES-CCM-128 with 12 octet ICV [RFC5282]",
        Encr::AES192_CCM12 => "AES-CCM-192 with 12 octet ICV [RFC5282]",
        Encr::AES256_CCM12 => "AES-CCM-256 with 12 octet ICV [RFC5282]",
        Encr::AES128_CCM16 => "AES-CCM-128 with 16 octet ICV [RFC5282]",
        Encr::AES192_CCM16 => "AES-CCM-192 with 16 octet ICV [RFC5282]",
        Encr::AES256_CCM16 => "AES-CCM-256 with 16 octet ICV [RFC5282]",
        _ => return None,
    })
}

fn ike_integ(integ: Integ) -> Option<&'static str> {
    Some(match integ {
        Integ::NONE => "NONE [RFC4306]",
        Integ::HMAC_SHA1_96 => "HMAC_SHA1_96 [RFC2404]",
        Integ::HMAC_SHA2_256_128 => "HMAC_SHA2_256_128 [RFC4868]",
        Integ::HMAC_SHA2_384_192 => "HMAC_SHA2_384_192 [RFC4868]",
        Integ::HMAC_SHA2_512_256 => "HMAC_SHA2_512_256 [RFC4868]",
        _ => return None,
    })
}

fn esp_encr(encr: Encr) -> Option<&'static str> {
    Some(match encr {
        Encr::NULL => "NULL",
        Encr::AES128_CBC | Encr::AES192_CBC | Encr::AES256_CBC => "AES-CBC [RFC3602]",
        Encr::AES128_CTR | Encr::AES192_CTR | Encr::AES256_CTR => "AES-CTR [RFC3686]",
        Encr::AES128_GCM8 | Encr::AES192_GCM8 | Encr::AES256_GCM8 => "AES-GCM with 8 octet ICV [RFC4106]",
        Encr::AES128_GCM12 | Encr::AES192_GCM12 | Encr::AES256_GCM12 => "AES-GCM with 12 octet ICV [RFC4106]",
        Encr::AES128_GCM16 | Encr::AES192_GCM16 | Encr::AES256_GCM16 => "AES-GCM with 16 octet ICV [RFC4106]",
        Encr::CHACHA20_POLY1305 => "ChaCha20 with Poly1305 [RFC7634]",
        _ => return None,
    })
}

fn esp_integ(encr: Encr, integ: Integ) -> Option<&'static str> {
    // Combined modes: the encryption algorithm brings the ICV.
    if integ == Integ::NONE && encr.info().is_some_and(|info| info.is_aead()) {
        return Some("NULL");
    }
    Some(match integ {
        Integ::HMAC_SHA1_96 => "HMAC-SHA-1-96 [RFC2404]",
        Integ::HMAC_SHA2_256_128 => "HMAC-SHA-256-128 [RFC4868]",
        Integ::HMAC_SHA2_384_192 => "HMAC-SHA-384-192 [RFC4868]",
        Integ::HMAC_SHA2_512_256 => "HMAC-SHA-512-256 [RFC4868]",
        Integ::AES_XCBC_96 => "AES-XCBC-MAC-96 [RFC3566]",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_reads_the_files_whoever_made_them() {
        let dir = std::env::temp_dir().join(format!("tussock-keylog-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("esp_sa");
        fs::write(&file, "before\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let _log = KeyLog::open(&dir).unwrap();
        for name in ["esp_sa", "ikev2_decryption_table"] {
            assert_eq!(fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        }
        assert_eq!(fs::read(&file).unwrap(), b"before\n", "what is there stays");
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/tmp/elsewhere", &file).unwrap();
        assert!(KeyLog::open(&dir).is_err(), "no way elsewhere");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn lines_are_what_wireshark_reads() {
        let key = |octet: u8, len: usize| Secret::new(vec![octet; len]);
        let ike = KeyLogEntry::Ike {
            spi_i: 1,
            spi_r: 0xabc,
            sk_ei: key(1, 2),
            sk_er: key(2, 2),
            sk_ai: key(0, 0),
            sk_ar: key(0, 0),
            encr: Encr::AES128_GCM16,
            integ: Integ::NONE,
        };
        let expected = "0000000000000001,0000000000000abc,0101,0202,\"AES-GCM-128 with 16 octet ICV [RFC5282]\",,,\"NONE [RFC4306]\"\n";
        assert_eq!(ike_line(&ike).unwrap().as_str(), expected);
        let esp = KeyLogEntry::Esp {
            source: "192.168.0.1".parse().unwrap(),
            destination: "192.168.0.2".parse().unwrap(),
            spi: 0xc001,
            encr: Encr::AES256_CBC,
            integ: Integ::HMAC_SHA2_256_128,
            encr_key: key(3, 2),
            integ_key: key(4, 2),
        };
        let expected = "\"IPv4\",\"192.168.0.1\",\"192.168.0.2\",\"0x0000c001\",\"AES-CBC [RFC3602]\",\"0x0303\",\"HMAC-SHA-256-128 [RFC4868]\",\"0x0404\"\n";
        assert_eq!(esp_line(&esp).unwrap().as_str(), expected);
    }
}
