//! Responses: 32 octets, for packets and for operations alike as far as they are looked at.

/// Octets of a response.
pub(crate) const LEN: usize = 32;
/// What the first word of a place holds as long as no response is there.
pub(crate) const NOTHING: u32 = 0x7f7f_7f7f;

/// Services, as a response names them.
pub(crate) const LOOKASIDE: u8 = 4;
pub(crate) const NUMBERS: u8 = 3;

const VALID: u8 = 0x80;

/// Status bits that are looked at.
pub(crate) const CRYPTO_ERROR: u8 = 1 << 7;
pub(crate) const NUMBER_ERROR: u8 = 1 << 6;

/// Codes with which an engine is not well: fatal, hanging, endpoint, parity.
const ILL: [i8; 4] = [-13, -16, -17, -27];

/// What the device says of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Bits; all clear is good.
    pub(crate) status: u8,
    /// More about an error; 0: no more.
    pub(crate) code: i8,
}

impl Answer {
    /// All well.
    pub(crate) const GOOD: Answer = Answer { status: 0, code: 0 };

    pub(crate) fn is_good(self) -> bool {
        self.status == 0 && self.code == 0
    }

    /// The digest does not match, and nothing else is wrong.
    pub(crate) fn is_mismatch(self) -> bool {
        self.status == CRYPTO_ERROR && self.code == 0
    }

    /// The function on numbers said no, and nothing else is wrong.
    pub(crate) fn is_refusal(self) -> bool {
        self.status == NUMBER_ERROR && self.code == 0
    }

    /// An engine needs a reset.
    pub(crate) fn is_ill(self) -> bool {
        ILL.contains(&self.code)
    }

    /// For the log.
    pub(crate) fn vendor(self) -> u32 {
        u32::from(self.status) << 8 | u32::from(self.code as u8)
    }
}

/// A response, as far as its form is right: cookie and answer.
pub(crate) fn parse(octets: &[u8; LEN], service: u8) -> Option<(u64, Answer)> {
    let [_, _, kind, flags, four, five, six, _, cookie @ ..] = octets;
    if *kind != service || flags & VALID == 0 {
        return None;
    }
    let cookie = u64::from_le_bytes(*cookie.first_chunk()?);
    let answer = match service {
        NUMBERS => Answer { code: *four as i8, status: *five },
        _ => Answer { code: *five as i8, status: *six },
    };
    Some((cookie, answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(head: [u8; 8]) -> [u8; LEN] {
        let mut octets = [0; LEN];
        octets[..8].copy_from_slice(&head);
        octets[8..16].copy_from_slice(&0x0102_0304_0506_0708u64.to_le_bytes());
        octets
    }

    #[test]
    fn status_and_code_lie_elsewhere_for_each_service() {
        let packet = response([0, 0, 4, 0x80, 0, 0xf0, 0x80, 2]);
        let (cookie, answer) = parse(&packet, LOOKASIDE).unwrap();
        assert_eq!(cookie, 0x0102_0304_0506_0708);
        assert!(answer.is_ill() && !answer.is_mismatch() && answer.vendor() == 0x80f0);
        let number = response([0, 0, 3, 0x80, 0, 0x40, 0, 0]);
        assert!(parse(&number, NUMBERS).unwrap().1.is_refusal());
        assert!(parse(&response([0, 0, 4, 0x80, 0, 0, 0x80, 0]), LOOKASIDE).unwrap().1.is_mismatch());
    }

    #[test]
    fn what_is_not_a_response_is_none() {
        assert!(parse(&response([0, 0, 4, 0, 0, 0, 0, 0]), LOOKASIDE).is_none(), "not valid");
        assert!(parse(&response([0, 0, 3, 0x80, 0, 0, 0, 0]), LOOKASIDE).is_none(), "another service");
        assert!(parse(&[0x7f; LEN], LOOKASIDE).is_none());
    }
}
