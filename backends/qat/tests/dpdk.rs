//! DPDK's software devices keep the contract, each under every check.
#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used)]

use qat::{Dpdk, DpdkPlace, DpdkSite};

fn software(driver: &str) -> Dpdk {
    Dpdk::new(vec![DpdkSite { name: "dpdk0".into(), place: DpdkPlace::Software(driver.into()) }])
}

mod openssl {
    hwtest::suite!(super::software("crypto_openssl"));
}

mod aesni_mb {
    hwtest::suite!(super::software("crypto_aesni_mb"));
}
