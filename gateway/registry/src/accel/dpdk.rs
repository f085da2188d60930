//! `driver = "dpdk"`: what DPDK has a driver for, a software device by the name of its driver or a QuickAssist card by PCI address.

use super::kind::Wrong;
use super::{Accel, Form, Kind};

pub(crate) const KIND: Kind = Kind {
    driver: "dpdk",
    built: cfg!(feature = "dpdk"),
    keys: &[("vdev", Form::Text), ("device", Form::Text)],
    check,
};

fn check(section: &Accel) -> Result<String, Wrong> {
    match (section.text("vdev"), section.text("device")) {
        (Some(vdev), None) if !is_driver(vdev) => {
            let what = format!(
                "vdev = {vdev:?} is no driver of DPDK's for cryptography: they look like crypto_openssl or crypto_aesni_mb"
            );
            Err((Some("vdev"), what))
        }
        (None, Some(device)) if !is_pci_address(device) => {
            let what = format!("device = {device:?} is no PCI address: they look like 0000:6b:00.1");
            Err((Some("device"), what))
        }
        (Some(vdev), None) => Ok(vdev.to_owned()),
        (None, Some(device)) => Ok(device.to_owned()),
        (Some(_), Some(_)) => Err((None, "has vdev and device: one of the two says what it is".into())),
        (None, None) => {
            Err((None, "has neither vdev (a software device of DPDK's) nor device (a PCI address)".into()))
        }
    }
}

/// Names go into DPDK's own command language, in which a comma begins something else.
fn is_driver(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let rest = name.strip_prefix("crypto_").unwrap_or_default();
    (1..=24).contains(&rest.len()) && rest.bytes().all(fits)
}

#[cfg(feature = "dpdk")]
use qat::is_pci_address;

/// Without a driver nobody knows.
#[cfg(not(feature = "dpdk"))]
fn is_pci_address(_: &str) -> bool {
    true
}

/// The driver of all sections that are for it.
#[cfg(feature = "dpdk")]
pub(crate) fn driver(sections: &[Accel]) -> Option<qat::Dpdk> {
    let site = |section: &Accel| {
        let place = match (section.text("vdev"), section.text("device")) {
            (Some(vdev), _) => qat::DpdkPlace::Software(vdev.to_owned()),
            (None, Some(device)) => qat::DpdkPlace::Pci(device.to_owned()),
            (None, None) => return None,
        };
        Some(qat::DpdkSite { name: section.name.clone(), place })
    };
    let ours = sections.iter().filter(|section| section.driver == KIND.driver);
    let sites: Vec<qat::DpdkSite> = ours.filter_map(site).collect();
    (!sites.is_empty()).then(|| qat::Dpdk::new(sites))
}

#[cfg(test)]
#[cfg(feature = "dpdk")]
mod tests {
    use super::super::check;
    use super::*;

    fn section(name: &str) -> Accel {
        Accel::new(name).of("dpdk")
    }

    fn error(section: &Accel) -> String {
        check(std::slice::from_ref(section)).unwrap_err().to_string()
    }

    #[test]
    fn sections_that_make_sense_make_a_driver() {
        let sections =
            [section("a").with("vdev", "crypto_openssl"), section("b").with("device", "0000:6b:01.0")];
        assert_eq!(check(&sections), Ok(()));
        let found = spi::Driver::probe(&driver(&sections).unwrap());
        let names: Vec<&str> = found.iter().map(|desc| desc.id.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(driver(&[section("a").with("vdev", "crypto_openssl").of("qat")]).is_none());
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        assert!(error(&section("a")).starts_with("accel.a: has neither vdev"));
        let both = section("a").with("vdev", "crypto_openssl").with("device", "0000:6b:01.0");
        assert!(error(&both).contains("one of the two"));
        for bad in
            ["", "openssl", "crypto_", "crypto_openssl,max_nb_queue_pairs=9", "crypto_Openssl", "net_tap0"]
        {
            assert!(error(&section("a").with("vdev", bad)).contains("is no driver"), "{bad}");
        }
        assert!(error(&section("a").with("device", "6b:01.0")).contains("is no PCI address"));
        let twice = [section("a"), section("b")].map(|section| section.with("vdev", "crypto_openssl"));
        assert!(check(&twice).unwrap_err().to_string().contains("the same device"));
    }
}
