//! The datagrams of one message: a single one, or the fragments (RFC 7383). What is kept for retransmission is kept once for
//! each IKE SA and for long, so it is one piece of memory, no larger than need be.

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Datagrams(Box<[u8]>);

/// Octets before each datagram that say how long it is.
const LENGTH: usize = 4;

impl Datagrams {
    /// Copies of these.
    pub fn new(datagrams: &[Vec<u8>]) -> Self {
        let mut octets = Vec::with_capacity(datagrams.iter().map(|d| LENGTH + d.len()).sum());
        for datagram in datagrams {
            // No message is so long: its own length field has as many octets (RFC 7296 section 3.1).
            let length = u32::try_from(datagram.len()).unwrap_or(u32::MAX);
            octets.extend_from_slice(&length.to_be_bytes());
            octets.extend_from_slice(datagram.get(..length as usize).unwrap_or(datagram));
        }
        Datagrams(octets.into())
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk::<LENGTH>()?;
            let (datagram, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            rest = after;
            Some(datagram)
        })
    }

    /// Octets of all of them.
    pub fn octets(&self) -> usize {
        self.iter().map(<[u8]>::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_and_takes_no_more_than_it_must() {
        for lens in [&[][..], &[0], &[1], &[28, 0, 65_535, 70_000], &[500; 64]] {
            let all: Vec<Vec<u8>> = lens.iter().map(|len| vec![*len as u8; *len]).collect();
            let kept = Datagrams::new(&all);
            assert!(kept.iter().eq(all.iter().map(Vec::as_slice)), "{lens:?}");
            assert_eq!(kept.octets(), lens.iter().sum::<usize>());
            assert_eq!(kept.0.len(), kept.octets() + LENGTH * lens.len());
        }
    }
}
