//! Octets to instructions.

/// Longest of them, octets.
pub(crate) const LONGEST: usize = 4;

/// An instruction of the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Instruction {
    /// One group of random octets.
    Xstore,
    /// As many random octets as RCX says.
    RepXstore,
    /// REP XCRYPT in a mode.
    Xcrypt(Mode),
    /// REP XSHA1.
    Xsha1,
    /// REP XSHA256.
    Xsha256,
    /// REP MONTMUL.
    Montmul,
}

/// A mode of XCRYPT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "they are called what they are called everywhere")]
pub enum Mode {
    Ecb,
    Cbc,
    Ctr,
    Cfb,
    Ofb,
}

impl Instruction {
    /// Which one begins with these octets, and how long it is. Without REP only XSTORE is one.
    pub(crate) fn decode(octets: &[u8]) -> Option<(Instruction, u64)> {
        let (rep, rest) = match octets {
            [0xf3, rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let [0x0f, group, last, ..] = rest else { return None };
        let found = match (rep, group, last) {
            (false, 0xa7, 0xc0) => Instruction::Xstore,
            (true, 0xa7, 0xc0) => Instruction::RepXstore,
            (true, 0xa7, 0xc8) => Instruction::Xcrypt(Mode::Ecb),
            (true, 0xa7, 0xd0) => Instruction::Xcrypt(Mode::Cbc),
            (true, 0xa7, 0xd8) => Instruction::Xcrypt(Mode::Ctr),
            (true, 0xa7, 0xe0) => Instruction::Xcrypt(Mode::Cfb),
            (true, 0xa7, 0xe8) => Instruction::Xcrypt(Mode::Ofb),
            (true, 0xa6, 0xc0) => Instruction::Montmul,
            (true, 0xa6, 0xc8) => Instruction::Xsha1,
            (true, 0xa6, 0xd0) => Instruction::Xsha256,
            _ => return None,
        };
        Some((found, if rep { 4 } else { 3 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_is_known_by_its_octets_and_nothing_else_is() {
        let mut known = 0;
        for rep in [&[][..], &[0xf3], &[0xf2]] {
            for group in 0..=255 {
                for last in 0..=255 {
                    let octets = [rep, &[0x0f, group, last, 0x90]].concat();
                    if let Some((_, len)) = Instruction::decode(&octets) {
                        assert_eq!(len as usize, rep.len() + 3);
                        known += 1;
                    }
                }
            }
        }
        assert_eq!(known, 10);
        assert!(Instruction::decode(&[0xf3, 0x0f, 0xa7]).is_none());
        assert!(Instruction::decode(&[]).is_none());
    }
}
