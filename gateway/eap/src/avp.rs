//! Attributes inside EAP-TTLS, in the form of Diameter (RFC 5281 section 10.1), and the few we know.

/// User-Name.
pub(crate) const USER_NAME: Kind = Kind { code: 1, vendor: 0 };
/// User-Password.
pub(crate) const USER_PASSWORD: Kind = Kind { code: 2, vendor: 0 };
/// EAP-Message.
pub(crate) const EAP_MESSAGE: Kind = Kind { code: 79, vendor: 0 };
/// MS-CHAP-Error.
pub(crate) const MS_CHAP_ERROR: Kind = Kind { code: 2, vendor: MICROSOFT };
/// MS-CHAP-Challenge.
pub(crate) const MS_CHAP_CHALLENGE: Kind = Kind { code: 11, vendor: MICROSOFT };
/// MS-CHAP2-Response.
pub(crate) const MS_CHAP2_RESPONSE: Kind = Kind { code: 25, vendor: MICROSOFT };
/// MS-CHAP2-Success.
pub(crate) const MS_CHAP2_SUCCESS: Kind = Kind { code: 26, vendor: MICROSOFT };

const MICROSOFT: u32 = 311;

/// Four octets of the vendor follow.
const VENDOR: u8 = 0x80;
/// Who does not know it must not go on without it.
const MANDATORY: u8 = 0x40;

/// Attributes in one message.
const MAX_AVPS: usize = 32;

/// An attribute's number and whose it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kind {
    pub(crate) code: u32,
    pub(crate) vendor: u32,
}

impl Kind {
    fn is_known(self) -> bool {
        [
            USER_NAME,
            USER_PASSWORD,
            EAP_MESSAGE,
            MS_CHAP_ERROR,
            MS_CHAP_CHALLENGE,
            MS_CHAP2_RESPONSE,
            MS_CHAP2_SUCCESS,
        ]
        .contains(&self)
    }
}

/// The attributes of one message, in their order.
pub(crate) struct Avps<'a>(Vec<(Kind, &'a [u8])>);

impl<'a> Avps<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// A length that does not fit, too many of them, or one that is mandatory and not known.
    pub(crate) fn parse(mut octets: &'a [u8]) -> Result<Self, String> {
        let mut avps = Vec::new();
        while !octets.is_empty() {
            let (kind, mandatory, value, rest) = split(octets).ok_or("an attribute of the wrong length")?;
            if mandatory && !kind.is_known() {
                return Err(format!("an unknown attribute {} of vendor {}", kind.code, kind.vendor));
            }
            if avps.len() >= MAX_AVPS {
                return Err(format!("more than {MAX_AVPS} attributes"));
            }
            avps.push((kind, value));
            octets = rest;
        }
        Ok(Avps(avps))
    }

    /// The first of a kind.
    pub(crate) fn get(&self, kind: Kind) -> Option<&'a [u8]> {
        self.all(kind).next()
    }

    /// All of a kind.
    pub(crate) fn all(&self, kind: Kind) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |(k, _)| *k == kind).map(|(_, value)| *value)
    }
}

fn split(octets: &[u8]) -> Option<(Kind, bool, &[u8], &[u8])> {
    let (header, after) = octets.split_first_chunk::<8>()?;
    let [a, b, c, d, flags, x, y, z] = *header;
    let length = u32::from_be_bytes([0, x, y, z]) as usize;
    let body = after.get(..length.checked_sub(8)?)?;
    // Padded to four octets, which the last one's padding may be missing.
    let rest = after.get(body.len().next_multiple_of(4)..).unwrap_or_default();
    let (vendor, value) = if flags & VENDOR == 0 {
        (0, body)
    } else {
        let (vendor, value) = body.split_first_chunk::<4>()?;
        (u32::from_be_bytes(*vendor), value)
    };
    Some((Kind { code: u32::from_be_bytes([a, b, c, d]), vendor }, flags & MANDATORY != 0, value, rest))
}

/// Appends an attribute. Values are far below the 16 MiB that the length has room for.
pub(crate) fn push(out: &mut Vec<u8>, kind: Kind, value: &[u8]) {
    let vendor = kind.vendor.to_be_bytes();
    let (flag, vendor) = if kind.vendor == 0 { (0, &[][..]) } else { (VENDOR, &vendor[..]) };
    let length = 8 + vendor.len() + value.len();
    out.extend_from_slice(&kind.code.to_be_bytes());
    out.extend_from_slice(&((length as u32) | u32::from(flag | MANDATORY) << 24).to_be_bytes());
    out.extend_from_slice(vendor);
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let mut out = Vec::new();
            for value in &values {
                push(&mut out, MS_CHAP2_RESPONSE, value);
                push(&mut out, USER_NAME, value);
            }
            let avps = Avps::parse(&out).unwrap();
            prop_assert_eq!(avps.all(USER_NAME).map(<[u8]>::to_vec).collect::<Vec<_>>(), values.clone());
            prop_assert_eq!(avps.all(MS_CHAP2_RESPONSE).map(<[u8]>::to_vec).collect::<Vec<_>>(), values);
        }

        #[test]
        fn garbage_is_an_error_or_attributes(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Avps::parse(&octets);
        }
    }

    #[test]
    fn what_is_mandatory_and_unknown_is_an_error_and_what_is_not_is_skipped() {
        assert!(Avps::parse(&[0, 0, 9, 9, MANDATORY, 0, 0, 8]).is_err());
        assert!(Avps::parse(&[0, 0, 9, 9, 0, 0, 0, 8]).is_ok());
        assert!(Avps::parse(&[0, 0, 0, 1, 0, 0, 0, 7]).is_err());
        assert!(Avps::parse(&[0, 0, 0, 1, 0, 0, 0, 9]).is_err());
        assert!(Avps::parse(&[0; 8].repeat(40)).is_err());
    }
}
