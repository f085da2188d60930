//! Packets of every size and in every place.

use spi::Driver;
use spi::caps::EspCap;

use crate::packet::{Bench, Pair, round_trip, round_trip_at};
use crate::ring::devices;
use crate::seed::Seeded;

/// Every transform at every length from 0 to 2048, or as many of them as the device takes.
pub fn every_length_up_to_2048_works(driver: &dyn Driver) {
    each(driver, 22, |bench, pair, most, seeded| {
        let lengths: Vec<usize> = (0..=2048.min(most)).step_by(pair.block).collect();
        round_trip(bench, pair, &lengths, seeded);
    });
}

/// Jumbo frames: 9000 octets and what is next to that.
pub fn packets_of_9000_octets_work(driver: &dyn Driver) {
    each(driver, 24, |bench, pair, most, seeded| {
        let jumbo = [8192, 8976, 9000, 9016, 9216].map(|len: usize| len / pair.block * pair.block);
        let lengths: Vec<usize> = jumbo.into_iter().filter(|len| *len <= most).collect();
        round_trip(bench, pair, &lengths, seeded);
    });
}

/// The longest packet the device says it takes; at most one that fills a buffer of this check.
pub fn the_longest_packet_works(driver: &dyn Driver) {
    each(driver, 25, |bench, pair, most, seeded| {
        let most = most.min(60_000) / pair.block * pair.block;
        round_trip(bench, pair, &[most], seeded);
    });
}

/// A packet may begin at any octet: at each place of two cache lines, with a short text, one of some lines, and none.
pub fn every_alignment_works(driver: &dyn Driver) {
    each(driver, 26, |bench, pair, most, seeded| {
        let lengths = [0, 16, 64, 208].map(|len: usize| len.min(most) / pair.block * pair.block);
        for from in 0..8 {
            // Sixteen packets in a burst, each one octet further in its line than the one before.
            let places: Vec<(usize, usize)> =
                (0..16).map(|n| (512 * n + from * 16 + n, lengths[(n + from) % 4])).collect();
            round_trip_at(bench, pair, &places, seeded);
        }
    });
}

/// Runs something for each transform of each device, with and without extended numbers; it is told how long a text may be.
fn each(driver: &dyn Driver, seed: u64, run: impl Fn(&mut Bench, &Pair, usize, &mut Seeded)) {
    for device in devices(driver) {
        let caps = &device.desc().caps;
        if caps.esp.is_empty() {
            continue;
        }
        let mut bench = Bench::new(&*device);
        let mut seeded = Seeded::new(seed);
        for cap in one_of_a_kind(&caps.esp) {
            let pair = Pair::new(&*device, &cap, cap.esn);
            let most = caps.max_len - pair.head - pair.icv;
            run(&mut bench, &pair, most, &mut seeded);
            pair.remove(&*device);
        }
    }
}

/// With many transforms at once, the longest key of each algorithm stands for the others.
fn one_of_a_kind(all: &[EspCap]) -> Vec<EspCap> {
    let mut kinds: Vec<EspCap> = Vec::new();
    for cap in all {
        let better = all.iter().any(|c| c.encr.id == cap.encr.id && c.encr.key_bits > cap.encr.key_bits);
        if !better && !kinds.iter().any(|known| known.encr.id == cap.encr.id) {
            kinds.push(*cap);
        }
    }
    kinds
}
