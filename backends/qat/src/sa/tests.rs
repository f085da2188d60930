use super::*;
use crate::csr::Csr;
use crate::dma::Space;
use crate::fake::Fake;
use crate::generation::{INTEL, PairPlace, Service, model};
use crate::pci::PciFunction;
use crate::ring::{Ring, Whose, memory_len};
use crate::sys::mem::Block;
use spi::{Encr, Integ, Secret};

/// Address of the packet for the card.
const PACKET: u64 = 0x12_3456_7890;

fn sa(encr: Encr, integ: Integ, dir: Direction, esn: bool, fourth: bool) -> Sa {
    let fake = Arc::new(Fake { ranges: vec![0..=u64::MAX], ..Fake::default() });
    let vault = Vault::new(Arc::new(Space::new(fake)));
    let (e, i) = (encr.info().unwrap(), integ.info().unwrap());
    let mut encr_key = vec![0x11; e.key_len];
    encr_key.extend(&[0xa1, 0xa2, 0xa3, 0xa4][..e.salt_len]);
    let params = SaParams {
        spi: 0x0102_0304,
        dir,
        encr,
        integ,
        encr_key: Secret::new(encr_key),
        integ_key: Secret::new(vec![0x22; i.key_len]),
        esn,
    };
    Sa::new(&params, fourth, &vault).unwrap()
}

/// The words of a request, and the extra memory that goes with it, with its address.
fn request(sa: &Sa, text: u32, seq: u64) -> (Vec<u32>, Vec<u8>, u64) {
    let function: Arc<dyn PciFunction> = Arc::new(Fake::default());
    let csr = Csr::new(&function, model(INTEL, 0x4941).unwrap().generation, 0);
    let place = PairPlace { bank: 0, request_ring: 0, response_ring: 1, service: Service::Symmetric };
    let block = Block::map(memory_len(place.service, 16)).unwrap();
    let mut ring = Ring::new(csr, place, Arc::clone(&block), 0x40_0000, 16);
    ring.start(0);
    let mut bytes = [0; 256];
    let op = EspOp::new(0, text as u16, seq);
    let head = sa.begin(&mut bytes, &op, &mut Ivs::new().unwrap()).unwrap();
    let mut iova = 0;
    ring.put(Whose::default(), 0, |_, extra| {
        iova = extra.iova;
        sa.request(PACKET, text, seq, head, 0x0fed_cba9_8765_4321, extra)
    });
    let mut octets = [0; 128];
    block.copy_out(0, &mut octets);
    let mut aside = vec![0; 128];
    block.copy_out((iova - 0x40_0000) as usize, &mut aside);
    let words = octets.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
    (words, aside, iova)
}

#[test]
fn gcm_on_generation_4_is_the_example_of_the_specification() {
    let sa = sa(Encr::AES256_GCM16, Integ::NONE, Direction::Seal, false, true);
    let (words, aside, iova) = request(&sa, 64, 7);
    let descriptor = sa._cell.iova();
    assert_eq!(words[..2], [0x8004_0000, 0x6424]);
    assert_eq!(words[2..6], [descriptor as u32, (descriptor >> 32) as u32, 0x0006_0000, 0]);
    assert_eq!(words[6..8], [0x8765_4321, 0x0fed_cba9]);
    assert_eq!(words[8..14], [0x3456_7890, 0x12, 0x3456_7890, 0x12, 0x60, 0x60]);
    assert_eq!(words[14..16], [0x10, 0x40]);
    assert_eq!(words[16..20], [0xa4a3_a2a1, 0, 0x0700_0000, 0], "salt and IV");
    assert_eq!(words[20..22], [0, 8]);
    assert_eq!(words[22..24], [(iova + 64) as u32, 0]);
    assert_eq!(words[24..], [0, 0, 0x1000_0000, 0x0402, 0, 0, 0, 0]);
    assert_eq!(aside[64..80], [1, 2, 3, 4, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn the_high_half_is_associated_data_of_combined_modes() {
    for (encr, fourth) in [(Encr::AES128_GCM16, false), (Encr::CHACHA20_POLY1305, true)] {
        let sa = sa(encr, Integ::NONE, Direction::Seal, true, fourth);
        let (words, aside, _) = request(&sa, 64, 0x0000_0005_0000_0009);
        assert_eq!(aside[64..80], [1, 2, 3, 4, 0, 0, 0, 5, 0, 0, 0, 9, 0, 0, 0, 0]);
        if !fourth {
            assert_eq!(words[20..22], [0x10, 0x40], "the text is hashed");
            assert_eq!(words[24..26], [0x3456_7890 + 0x50, 0x12], "and the digest goes behind it");
            assert_eq!(words[26], 0x1002_0010);
        }
    }
}

#[test]
fn chains_hash_from_the_header_on_and_put_the_digest_behind() {
    let cbc = sa(Encr::AES128_CBC, Integ::HMAC_SHA2_256_128, Direction::Seal, false, true);
    let (words, _, _) = request(&cbc, 64, 3);
    assert_eq!(words[..2], [0x8004_0200, 0x0424]);
    assert_eq!(words[12..16], [104, 104, 24, 64]);
    assert_eq!((words[20], words[21], words[26]), (0, 88, 0x1000_0000));
    assert_eq!(words[24..26], [0, 0]);
    let null = sa(Encr::NULL, Integ::HMAC_SHA1_96, Direction::Open, false, true);
    let (words, _, _) = request(&null, 64, 3);
    assert_eq!(words[..2], [0x8004_0100, 0x0444]);
    assert_eq!((words[14], words[15], words[21], words[26]), (0, 0, 72, 0x0c00_0000));
    let ctr = sa(Encr::AES128_CTR, Integ::HMAC_SHA1_96, Direction::Seal, false, false);
    let (words, _, _) = request(&ctr, 5, 3);
    assert_eq!(words[16..20], [0xa4a3_a2a1, 0, 0x0300_0000, 0x0100_0000], "nonce, IV, a counter of one");
    assert_eq!((words[14], words[15], words[21]), (16, 5, 21));
}

#[test]
fn the_high_half_is_a_piece_between_text_and_icv_of_chains() {
    let sa = sa(Encr::AES128_CBC, Integ::HMAC_SHA2_256_128, Direction::Seal, true, true);
    let (words, aside, iova) = request(&sa, 64, 0x0000_0005_0000_0009);
    assert_eq!(words[1], 0x0001_0424);
    assert_eq!(words[8..12], [iova as u32, 0, iova as u32, 0]);
    assert_eq!((words[20], words[21]), (0, 92));
    assert_eq!(words[12], 108);
    let expected = list([(PACKET, 88), (iova + 64, 4), (PACKET + 88, 16)]);
    assert_eq!(aside[..64], expected);
    assert_eq!(aside[64..68], [0, 0, 0, 5]);
    assert!(iova.is_multiple_of(64));
}

#[test]
fn impossible_operations_are_none_and_possible_ones_are_finished() {
    let seal = sa(Encr::AES128_CBC, Integ::HMAC_SHA1_96, Direction::Seal, false, true);
    assert_eq!(seal.text_len(100, &EspOp::new(0, 64, 1)), Some(64));
    assert_eq!(seal.text_len(99, &EspOp::new(0, 64, 1)), None, "no room for the ICV");
    assert_eq!(seal.text_len(1000, &EspOp::new(0, 65, 1)), None, "not whole blocks");
    assert_eq!(seal.text_len(1 << 20, &EspOp::new(0, 65_520, 1)), None, "too long with what is around it");
    assert_eq!(seal.text_len(10, &EspOp::new(11, 0, 1)), None);
    let open = sa(Encr::AES128_GCM16, Integ::NONE, Direction::Open, false, true);
    assert_eq!(open.text_len(1000, &EspOp::new(0, 31, 1)), None);
    assert_eq!(open.text_len(1000, &EspOp::new(0, 32, 1)), Some(0));
    let mut op = EspOp::new(8, 132, 1);
    open.finish(&mut op, Answer::GOOD);
    assert_eq!((op.outcome, op.at, op.len), (Outcome::Done, 24, 100));
    let mut op = EspOp::new(8, 132, 1);
    open.finish(&mut op, Answer { status: 0x80, code: 0 });
    assert_eq!((op.outcome, op.at, op.len), (Outcome::Rejected(Reject::BadIcv), 8, 132));
    open.finish(&mut op, Answer { status: 0x82, code: 0 });
    assert!(matches!(op.outcome, Outcome::Failed(fault) if fault.vendor == 0x8200));
    seal.finish(&mut op, Answer { status: 0x80, code: 0 });
    assert!(matches!(op.outcome, Outcome::Failed(_)), "sealing has no verdict");
}
