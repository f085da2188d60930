//! Lanes: the workers of the data path. A Child SA belongs to one of them, and its inbound SPI says to which: the remainder of
//! the SPI by their number. So whoever receives a packet knows whose it is before looking anything up. Otherwise SPIs are
//! random.

use std::collections::HashSet;

use spi::ShortOps;

/// The inbound SPIs that are in use, by lane.
pub(crate) struct Lanes {
    spis: HashSet<u32>,
    /// SAs of each lane; as long as there are lanes.
    load: Vec<u32>,
}

impl Lanes {
    /// So many lanes, one at least.
    pub(crate) fn new(lanes: u16) -> Self {
        Lanes { spis: HashSet::new(), load: vec![0; usize::from(lanes.max(1))] }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u16 {
        // It was made from one.
        u16::try_from(self.load.len()).unwrap_or(u16::MAX)
    }

    /// The lane of an SPI.
    pub(crate) fn of(&self, spi: u32) -> u16 {
        (spi % u32::from(self.count())) as u16
    }

    /// The lane with the fewest SAs, the first of equals.
    pub(crate) fn least(&self) -> u16 {
        self.least_by(|_| 0)
    }

    /// The lane with the fewest of what is counted; of equals the one with the fewest SAs, of those the first.
    pub(crate) fn least_by(&self, counted: impl Fn(u16) -> usize) -> u16 {
        let lanes = (0..self.count()).zip(&self.load);
        lanes.min_by_key(|(lane, load)| (counted(*lane), **load)).map_or(0, |(lane, _)| lane)
    }

    /// Takes a fresh SPI of this lane: random, above the reserved 255 (RFC 4303 section 2.1), not in use. A lane that is not
    /// there counts from the first again.
    pub(crate) fn take(&mut self, ops: &dyn ShortOps, lane: u16) -> u32 {
        let count = u32::from(self.count());
        let lane = u32::from(lane) % count;
        loop {
            let mut bytes = [0; 4];
            ops.random(&mut bytes);
            let random = u32::from_be_bytes(bytes);
            // The last few numbers have no neighbour in every lane.
            let Some(spi) = (random - random % count).checked_add(lane) else { continue };
            if spi > 255 && self.spis.insert(spi) {
                if let Some(load) = self.load.get_mut(lane as usize) {
                    *load += 1;
                }
                return spi;
            }
        }
    }

    /// Gives an SPI back.
    pub(crate) fn free(&mut self, spi: u32) {
        let lane = usize::from(self.of(spi));
        if self.spis.remove(&spi)
            && let Some(load) = self.load.get_mut(lane)
        {
            *load = load.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spi::Device;

    #[test]
    fn the_remainder_of_an_spi_is_its_lane_and_the_rest_is_random() {
        let ops = soft::Soft::new(1).device().short_ops().unwrap();
        for count in [1u16, 2, 3, 7, 64, 1000] {
            let mut lanes = Lanes::new(count);
            let mut halves = [0u32; 32];
            for n in 0..2000u16 {
                let lane = n % count;
                let spi = lanes.take(&*ops, lane);
                assert_eq!((spi % u32::from(count), lanes.of(spi)), (u32::from(lane), lane));
                assert!(spi > 255);
                (0..32).for_each(|bit| halves[bit as usize] += spi >> bit & 1);
            }
            // Bits that no remainder of up to 1000 reaches are even.
            assert!(halves[12..].iter().all(|ones| (800..1200).contains(ones)), "{count}: {halves:?}");
        }
    }

    #[test]
    fn loads_are_counted_and_the_least_is_found() {
        let ops = soft::Soft::new(1).device().short_ops().unwrap();
        let mut lanes = Lanes::new(3);
        let mut spis = Vec::new();
        for _ in 0..6 {
            let lane = lanes.least();
            spis.push(lanes.take(&*ops, lane));
        }
        assert_eq!(lanes.load, [2, 2, 2]);
        lanes.free(spis[4]);
        lanes.free(spis[4]);
        lanes.free(77);
        assert_eq!((lanes.load.clone(), lanes.least()), (vec![2, 1, 2], 1));
        assert_eq!(lanes.least_by(|lane| usize::from(lane != 2)), 2, "what is counted goes first");
        assert_eq!(Lanes::new(0).count(), 1);
    }
}
