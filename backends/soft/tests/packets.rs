//! Packets whose octets are known from elsewhere: from RFCs, and put together from independent parts.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Ops, device, hex, open, params, seal, with_every_engine};
use spi::alg::EncrKind;
use spi::{Device, Direction, Encr, Integ, Outcome, Prf, SaParams, Secret, SkSuite};

fn install(dir: Direction, spi: u32, encr: Encr, key: &str, integ: Integ, integ_key: &[u8]) -> SaParams {
    SaParams {
        spi,
        dir,
        encr,
        integ,
        encr_key: Secret::new(hex(key)),
        integ_key: Secret::from_slice(integ_key),
        esn: false,
    }
}

/// The ICV as the PRF with the same hash makes it.
fn hmac(integ: Integ, key: &[u8], covered: &[&[u8]]) -> Vec<u8> {
    let prf = match integ {
        Integ::HMAC_SHA1_96 => Prf::HMAC_SHA1,
        Integ::HMAC_SHA2_256_128 => Prf::HMAC_SHA2_256,
        Integ::HMAC_SHA2_384_192 => Prf::HMAC_SHA2_384,
        Integ::HMAC_SHA2_512_256 => Prf::HMAC_SHA2_512,
        Integ::AES_XCBC_96 => Prf::AES128_XCBC,
        _ => Prf::AES128_CMAC,
    };
    let full = device().short_ops().unwrap().prf(prf, key, covered).unwrap();
    full.expose()[..integ.info().unwrap().icv_len].to_vec()
}

#[test]
fn aes_gcm_packet_of_the_rfc_4106_test_document() {
    // draft-mcgrew-gcm-test-01, the first example: a DNS query in tunnel mode.
    let device = device();
    let key = "feffe9928665731c6d6a8f9467308308 cafebabe";
    let text = hex("4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d00100
                    000100000000000003736970096379626572636974790264 6b0000010001 0001");
    let ciphertext = hex("deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c
                          3de81827c10e9a4f51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd1");
    let icv = hex("83b70d3aa8bc6ee4c309e9d85a41ad4a");
    let packet = [hex("0000a5f80000000afacedbaddecaf888"), ciphertext, icv].concat();
    let sa = install(Direction::Open, 0xa5f8, Encr::AES128_GCM16, key, Integ::NONE, &[]);
    let sa = device.install_sa(&sa).unwrap();
    assert_eq!(open(&*device, sa, 10, &packet), (Outcome::Done, text));
}

#[test]
fn aes_gmac_packet_of_the_rfc_4106_test_document() {
    // draft-mcgrew-gcm-test-01, the example for RFC 4543: an echo request that is not encrypted.
    let device = device();
    let key = "4c80cdefbb5d10da906ac73c3613a634 22433c64";
    let text = hex("45000030da3a00008001df3bc0a80005c0a800010800c6cd02000700
                    6162636465666768696a6b6c6d6e6f707172737401020201");
    let head = hex("00004321000000070000000000000000");
    let packet = [head, text.clone(), hex("f2a9a836e155106aa8dcd618e4099aaa")].concat();
    let sa = install(Direction::Open, 0x4321, Encr::AES128_GMAC, key, Integ::NONE, &[]);
    let sa = device.install_sa(&sa).unwrap();
    assert_eq!(open(&*device, sa, 7, &packet), (Outcome::Done, text));
}

#[test]
fn aes_cbc_text_of_rfc_3602_case_1_and_aes_ctr_text_of_rfc_3686_case_1() {
    with_every_engine(|device| {
        let cases = [
            (
                Encr::AES128_CBC,
                "06a9214036b8a15b512e03d534120006",
                "3dafba429d9eb430b422da802c9fac41",
                "e353779c1079aeb82708942dbe77181a",
            ),
            (
                Encr::AES128_CTR,
                "ae6852f8121067cc4bf7a5765577f39e 00000030",
                "0000000000000000",
                "e4095d4fb7a7b3792d6175a3261311b8",
            ),
        ];
        for (encr, key, iv, ciphertext) in cases {
            for integ in Integ::ALL.iter().copied().filter(|integ| *integ != Integ::NONE) {
                let integ_key = vec![0x77; integ.info().unwrap().key_len];
                let body = [hex("0000012300000009"), hex(iv), hex(ciphertext)].concat();
                let packet = [body.clone(), hmac(integ, &integ_key, &[&body])].concat();
                let sa = install(Direction::Open, 0x123, encr, key, integ, &integ_key);
                let sa = device.install_sa(&sa).unwrap();
                let expected = (Outcome::Done, b"Single block msg".to_vec());
                assert_eq!(open(&*device, sa, 9, &packet), expected, "{encr} {integ}");
            }
        }
    });
}

/// With ESN the ICV covers eight octets of sequence number, of which four are sent. Here the same ICV is made by other
/// means, from octets laid out by hand.
#[test]
fn the_high_half_of_the_sequence_number_goes_where_the_rfcs_say() {
    with_every_engine(|device| {
        let short = device.short_ops().unwrap();
        let (high, low) = ([0, 0, 0, 9], [0x80, 0, 0, 3]);
        let seq = 0x0000_0009_8000_0003;
        let spi = 0x1234_5678u32.to_be_bytes();
        for cap in device.desc().caps.esp.clone() {
            for esn in [true, false] {
                let name = format!("{} {} esn {esn}", cap.encr, cap.integ);
                let sa = params(Direction::Seal, cap.encr, cap.integ, esn);
                let id = device.install_sa(&sa).unwrap();
                let info = cap.encr.info().unwrap();
                let text: Vec<u8> = (0..48).collect();
                let packet = seal(&*device, id, 8 + info.iv_len, seq, &text);
                let iv = &packet[8..8 + info.iv_len];
                let high = if esn { &high[..] } else { &[] };
                let covered = packet.len() - sa.icv_len();
                let icv = &packet[covered..];
                match info.kind {
                    EncrKind::Aead => {
                        // RFC 4106 section 5: SPI, high, low.
                        let aad = [&spi[..], high, &low].concat();
                        let suite = SkSuite { encr: cap.encr, integ: Integ::NONE };
                        let mut message = [&aad[..], iv, &text].concat();
                        short.sk_seal(suite, &sa.encr_key, &sa.integ_key, &mut message, aad.len()).unwrap();
                        assert_eq!(packet[8..], message[aad.len()..], "{name}");
                    }
                    EncrKind::Gmac => {
                        // RFC 4543 section 3.3: SPI, high, low, IV, text; nothing is encrypted.
                        let aad = [&spi[..], high, &low, iv, &text].concat();
                        let suite = SkSuite {
                            encr: Encr { id: Encr::AES128_GCM16.id, ..cap.encr },
                            integ: Integ::NONE,
                        };
                        let mut message = [&aad[..], iv].concat();
                        short.sk_seal(suite, &sa.encr_key, &sa.integ_key, &mut message, aad.len()).unwrap();
                        assert_eq!(*icv, message[aad.len() + iv.len()..], "{name}");
                        assert_eq!(packet[16..covered], text, "{name}");
                    }
                    // RFC 4303 section 2.2.1: the packet, then high.
                    EncrKind::Cbc | EncrKind::Ctr | EncrKind::Null => {
                        let expected = hmac(cap.integ, sa.integ_key.expose(), &[&packet[..covered], high]);
                        assert_eq!(icv, expected, "{name}");
                    }
                }
                device.remove_sa(id);
            }
        }
    });
}

#[test]
fn rfc_4303_null_encryption_sends_the_text_as_it_is() {
    with_every_engine(|device| {
        let sa = params(Direction::Seal, Encr::NULL, Integ::HMAC_SHA2_256_128, false);
        let id = device.install_sa(&sa).unwrap();
        let packet = seal(&*device, id, 8, 5, b"plain text..");
        assert_eq!(packet[..20], *b"\x12\x34\x56\x78\0\0\0\x05plain text..");
    });
}

#[test]
fn operations_and_packets_share_a_device_without_sharing_handles() {
    let ops = Ops::new();
    let sa = params(Direction::Seal, Encr::AES128_GCM16, Integ::NONE, false);
    let id = ops.device.install_sa(&sa).unwrap();
    let key = spi::KeyId { index: id.index, epoch: id.epoch };
    assert!(ops.sign(key, spi::SignScheme::Ed25519, b"").is_err());
}
