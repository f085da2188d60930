//! Two devices on the same random jobs: what one seals the other opens, octet by octet where nothing is left to chance, and both refuse
//! the same. Every number follows from the seed, which is printed.

use spi::alg::{EncrKind, GroupKind};
use spi::caps::EspCap;
use spi::esp::MAX_OPS;
use spi::{Device, Direction, Driver, EspOp, Outcome, PacketBuf, Reject, SignScheme};

use crate::operation::{Ops, open_keys};
use crate::packet::{Bench, Pair};
use crate::ring::devices;
use crate::seed::Seeded;

/// How much is compared, and from which seed.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Packets, and operations for each thousand of them one.
    pub jobs: usize,
    /// Everything random follows from this.
    pub seed: u64,
}

impl Default for Plan {
    /// A hundred thousand jobs, unless `HWTEST_JOBS` says otherwise, from `HWTEST_SEED` or 1.
    fn default() -> Self {
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        Plan {
            jobs: number("HWTEST_JOBS").map_or(100_000, |jobs| jobs as usize),
            seed: number("HWTEST_SEED").unwrap_or(1),
        }
    }
}

/// Compares a driver's devices with the reference's first one. Returns how many packets and operations were compared.
pub fn agree(driver: &dyn Driver, reference: &dyn Driver, plan: Plan) -> (usize, usize) {
    let reference = devices(reference).swap_remove(0);
    println!("HWTEST_SEED={} HWTEST_JOBS={}", plan.seed, plan.jobs);
    let (mut packets, mut operations) = (0, 0);
    for device in devices(driver) {
        let mut seeded = Seeded::new(plan.seed);
        packets += compare_packets(&*device, &*reference, plan.jobs, &mut seeded);
        operations += compare_exchanges(&*device, &*reference, plan.jobs / 1000, &mut seeded);
    }
    (packets, operations)
}

/// Has the reference's first device judge a signature of each scheme that a driver's devices declare. Returns how many there were, and
/// which the reference does not know.
pub fn signatures_verify(driver: &dyn Driver, reference: &dyn Driver) -> (usize, Vec<SignScheme>) {
    let reference = devices(reference).swap_remove(0);
    let (mut judged, mut unknown) = (0, Vec::new());
    for device in devices(driver) {
        let (Some(ours), Some(theirs)) = (Ops::open(&*device), Ops::open(&*reference)) else { continue };
        let keys = open_keys(&*device);
        for (key, scheme) in keys.iter().flat_map(|key| key.schemes.iter().map(move |scheme| (key, *scheme)))
        {
            if !reference.desc().caps.verify.contains(&scheme) {
                unknown.push(scheme);
                continue;
            }
            for octets in [&b""[..], b"octets", &[7; 3000]] {
                let signature = ours.sign(key.id, scheme, octets).expect("a scheme of the key signs");
                let verdict = theirs.verify(&key.spki, scheme, octets, &signature);
                assert_eq!(
                    verdict,
                    Ok(()),
                    "{scheme:?}: the reference on a signature of {} octets",
                    octets.len()
                );
            }
            judged += 1;
        }
        keys.iter().for_each(|key| device.close_key(key.id));
    }
    (judged, unknown)
}

/// A transform on both.
struct Twins {
    ours: Pair,
    theirs: Pair,
    /// Sealing gives the same octets everywhere.
    exact: bool,
    next: u64,
}

fn compare_packets(device: &dyn Device, reference: &dyn Device, jobs: usize, seeded: &mut Seeded) -> usize {
    let known = &reference.desc().caps;
    let shared = device.desc().caps.esp.iter().filter(|cap| known.carries(cap.encr, cap.integ, cap.esn));
    let shared: Vec<EspCap> = shared.copied().collect();
    if shared.is_empty() {
        return 0;
    }
    let (mut ours, mut theirs) = (Bench::new(device), Bench::new(reference));
    let most = device.desc().caps.max_len.min(16 * 1024);
    let mut done = 0;
    while done < jobs {
        let cap = shared[seeded.below(shared.len())];
        let esn = cap.esn && seeded.below(2) == 0;
        let kind = cap.encr.info().map(|info| info.kind);
        let mut twins = Twins {
            ours: Pair::new(device, &cap, esn),
            theirs: Pair::new(reference, &cap, esn),
            exact: kind != Some(EncrKind::Cbc),
            next: 1 + seeded.next_u64() % (if esn { u64::MAX / 2 } else { 0xffff_0000 }),
        };
        // An SA lives for some bursts.
        for _ in 0..1 + seeded.below(8) {
            done += one_burst(&mut twins, &mut ours, &mut theirs, most, seeded);
        }
        twins.ours.remove(device);
        twins.theirs.remove(reference);
    }
    done
}

/// One burst, sealed by both and opened by the other; some packets are spoiled on the way.
fn one_burst(
    twins: &mut Twins,
    ours: &mut Bench,
    theirs: &mut Bench,
    most: usize,
    seeded: &mut Seeded,
) -> usize {
    let Twins { ours: pair, theirs: twin, exact, next } = twins;
    let name = pair.name();
    let count = 1 + seeded.below(MAX_OPS);
    let (mut a, mut b) = (ours.take(), theirs.take());
    let (around, mut at) = (pair.head + pair.icv, 0);
    for _ in 0..count {
        at += seeded.below(64);
        // Mostly what networks carry, now and then anything.
        let limit = [128, 1500, most - around][seeded.below(16).min(2)];
        let len = seeded.below(limit.min(most - around) + 1) / pair.block * pair.block;
        if at + around + len > a.capacity() {
            break;
        }
        let mut text = vec![0; len];
        seeded.fill(&mut text);
        for buf in [&mut a, &mut b] {
            buf.bytes_mut()[at + pair.head..at + pair.head + len].copy_from_slice(&text);
            buf.push_op(EspOp::new(at as u32, len as u16, *next)).expect("it fits");
        }
        *next += 1;
        at += around + len;
    }
    let texts: Vec<Vec<u8>> = (0..a.ops().len()).map(|n| text_of(&a, pair, n)).collect();
    let mut a = ours.run(pair.seal, Direction::Seal, a);
    let mut b = theirs.run(twin.seal, Direction::Seal, b);
    for (n, text) in texts.iter().enumerate() {
        assert_eq!(a.ops()[n], b.ops()[n], "{name}: sealing {} octets", text.len());
        assert!(
            !*exact || a.op_bytes(n) == b.op_bytes(n),
            "{name}: {} octets sealed differently",
            text.len()
        );
    }
    // The same octet of both is changed, in one packet of eight.
    let mut spoiled = vec![false; texts.len()];
    for (n, is_spoiled) in spoiled.iter_mut().enumerate() {
        let op = a.ops()[n];
        *is_spoiled = seeded.below(8) == 0;
        let (place, bit) = (op.at as usize + seeded.below(op.len.into()), 1 << seeded.below(8));
        for buf in [&mut a, &mut b] {
            let (octets, ops) = buf.split_mut();
            ops[n].outcome = Outcome::Pending;
            if *is_spoiled {
                octets[place] ^= bit;
            }
        }
    }
    // Each opens what the other has sealed.
    let (a, b) = (exchange(a, theirs.take()), exchange(b, ours.take()));
    let b = ours.run(pair.open, Direction::Open, b);
    let a = theirs.run(twin.open, Direction::Open, a);
    for (n, text) in texts.iter().enumerate() {
        let expected = if spoiled[n] { Outcome::Rejected(Reject::BadIcv) } else { Outcome::Done };
        assert_eq!(b.ops()[n].outcome, expected, "{name}: opening {} octets of the reference's", text.len());
        assert_eq!(a.ops()[n].outcome, expected, "{name}: the reference opening {} octets", text.len());
        if !spoiled[n] {
            assert!(b.op_bytes(n) == text && a.op_bytes(n) == text, "{name}: another text came out");
        }
    }
    texts.len()
}

fn text_of(buf: &PacketBuf, pair: &Pair, n: usize) -> Vec<u8> {
    let op = buf.ops()[n];
    let at = op.at as usize + pair.head;
    buf.bytes()[at..at + usize::from(op.len)].to_vec()
}

/// The same octets and operations in another device's buffer.
fn exchange(from: PacketBuf, mut to: PacketBuf) -> PacketBuf {
    to.bytes_mut().copy_from_slice(from.bytes());
    for op in from.ops() {
        to.push_op(*op).expect("both have the same size");
    }
    to
}

/// Key exchanges with one end on each.
fn compare_exchanges(device: &dyn Device, reference: &dyn Device, jobs: usize, seeded: &mut Seeded) -> usize {
    let (Some(ours), Some(theirs)) = (Ops::open(device), Ops::open(reference)) else { return 0 };
    let known = &reference.desc().caps.dh;
    let shared: Vec<_> = device.desc().caps.dh.iter().filter(|group| known.contains(group)).collect();
    let mut done = 0;
    while done < jobs && !shared.is_empty() {
        // Each group once, then cheap ones: a large exponent takes milliseconds.
        let group = match shared.get(done) {
            Some(group) => **group,
            None => *shared[seeded.below(shared.len())],
        };
        let info = group.info().expect("declared groups are in the table");
        if done >= shared.len() && info.kind == GroupKind::Modp && seeded.below(8) > 0 {
            done += 1;
            continue;
        }
        let (near, public) = ours.generate(group);
        let (one, other) = if info.kind == GroupKind::Kem {
            let (ciphertext, secret) = theirs.encapsulate(group, public).expect("a fresh key is good");
            (secret, ours.derive(group, near, ciphertext))
        } else {
            let (far, answer) = theirs.generate(group);
            let secret = theirs.derive(group, far, public).expect("the reference takes our public value");
            (secret, ours.derive(group, near, answer))
        };
        let other = other.unwrap_or_else(|outcome| panic!("{group}: {outcome:?} for the reference's value"));
        assert!(one.ct_eq(other.expose()), "{group}: the ends disagree");
        done += 1;
    }
    done
}
