//! Attributes (RFC 2865 section 5): type, length, value, one behind the other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet::PacketError;

/// Longest value of an attribute, octets.
pub const MAX_VALUE: usize = 253;

/// An attribute's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind(pub u8);

/// A vendor's attributes (RFC 2865 section 5.26): the enterprise number.
pub const MICROSOFT: u32 = 311;

macro_rules! kinds {
    ($($value:literal $name:ident $text:literal,)*) => {
        impl Kind {
            $(#[doc = concat!("`", $text, "` (", stringify!($value), ").")] pub const $name: Kind = Kind($value);)*
        }
    };
}

kinds! {
    1 USER_NAME "User-Name",
    4 NAS_IP_ADDRESS "NAS-IP-Address",
    5 NAS_PORT "NAS-Port",
    6 SERVICE_TYPE "Service-Type",
    8 FRAMED_IP_ADDRESS "Framed-IP-Address",
    11 FILTER_ID "Filter-Id",
    12 FRAMED_MTU "Framed-MTU",
    18 REPLY_MESSAGE "Reply-Message",
    24 STATE "State",
    25 CLASS "Class",
    26 VENDOR_SPECIFIC "Vendor-Specific",
    27 SESSION_TIMEOUT "Session-Timeout",
    30 CALLED_STATION_ID "Called-Station-Id",
    31 CALLING_STATION_ID "Calling-Station-Id",
    32 NAS_IDENTIFIER "NAS-Identifier",
    33 PROXY_STATE "Proxy-State",
    40 ACCT_STATUS_TYPE "Acct-Status-Type",
    41 ACCT_DELAY_TIME "Acct-Delay-Time",
    42 ACCT_INPUT_OCTETS "Acct-Input-Octets",
    43 ACCT_OUTPUT_OCTETS "Acct-Output-Octets",
    44 ACCT_SESSION_ID "Acct-Session-Id",
    45 ACCT_AUTHENTIC "Acct-Authentic",
    46 ACCT_SESSION_TIME "Acct-Session-Time",
    47 ACCT_INPUT_PACKETS "Acct-Input-Packets",
    48 ACCT_OUTPUT_PACKETS "Acct-Output-Packets",
    49 ACCT_TERMINATE_CAUSE "Acct-Terminate-Cause",
    52 ACCT_INPUT_GIGAWORDS "Acct-Input-Gigawords",
    53 ACCT_OUTPUT_GIGAWORDS "Acct-Output-Gigawords",
    55 EVENT_TIMESTAMP "Event-Timestamp",
    61 NAS_PORT_TYPE "NAS-Port-Type",
    77 CONNECT_INFO "Connect-Info",
    79 EAP_MESSAGE "EAP-Message",
    80 MESSAGE_AUTHENTICATOR "Message-Authenticator",
    81 TUNNEL_PRIVATE_GROUP_ID "Tunnel-Private-Group-ID",
    85 ACCT_INTERIM_INTERVAL "Acct-Interim-Interval",
    95 NAS_IPV6_ADDRESS "NAS-IPv6-Address",
    97 FRAMED_IPV6_PREFIX "Framed-IPv6-Prefix",
    101 ERROR_CAUSE "Error-Cause",
    168 FRAMED_IPV6_ADDRESS "Framed-IPv6-Address",
    169 DNS_SERVER_IPV6_ADDRESS "DNS-Server-IPv6-Address",
}

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its type.
    pub kind: Kind,
    /// Its value, 0 to 253 octets.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// A number of four octets; `None` when it has another length.
    pub fn number(&self) -> Option<u32> {
        self.value.try_into().ok().map(u32::from_be_bytes)
    }

    /// An address of either family; `None` when it has another length.
    pub fn address(&self) -> Option<IpAddr> {
        address(self.value)
    }

    /// Vendor, the vendor's type and value of the attributes inside a Vendor-Specific one, as most vendors lay them out.
    /// What does not fit ends the list.
    pub fn of_vendor(&self) -> impl Iterator<Item = (u32, u8, &'a [u8])> + use<'a> {
        let (vendor, mut rest) = match (self.kind, self.value.split_first_chunk::<4>()) {
            (Kind::VENDOR_SPECIFIC, Some((vendor, rest))) => (u32::from_be_bytes(*vendor), rest),
            _ => (0, [].as_slice()),
        };
        std::iter::from_fn(move || {
            let (attribute, after) = split(rest).ok().flatten()?;
            rest = after;
            Some((vendor, attribute.kind.0, attribute.value))
        })
    }
}

/// Attributes one behind the other, looked over already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Looks over the octets.
    ///
    /// # Errors
    /// An attribute whose length is less than two or runs past the end.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let mut rest = bytes;
        while let Some((_, after)) = split(rest)? {
            rest = after;
        }
        Ok(Attributes(bytes))
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (attribute, after) = split(rest).ok().flatten()?;
            rest = after;
            Some(attribute)
        })
    }

    /// Those of one type.
    pub fn all(&self, kind: Kind) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        self.iter().filter(move |attribute| attribute.kind == kind)
    }

    /// The first of one type.
    pub fn first(&self, kind: Kind) -> Option<Attribute<'a>> {
        self.all(kind).next()
    }

    /// Those of one vendor and type.
    pub fn vendor(&self, vendor: u32, kind: u8) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.iter()
            .flat_map(|attribute| attribute.of_vendor())
            .filter(move |(of, its, _)| (*of, *its) == (vendor, kind))
            .map(|(_, _, value)| value)
    }

    /// The EAP packet that the EAP-Message attributes are the pieces of (RFC 3579 section 3.1); `None` without any.
    pub fn eap(&self) -> Option<Vec<u8>> {
        let mut packet = None;
        for piece in self.all(Kind::EAP_MESSAGE) {
            packet.get_or_insert_with(Vec::new).extend_from_slice(piece.value);
        }
        packet
    }

    /// The octets.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
}

/// Attributes being put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written(Vec<u8>);

/// A value of more than 253 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an attribute of {0} octets, of which there may be 253")]
pub struct TooLong(pub usize);

impl Written {
    /// None.
    pub fn new() -> Self {
        Written::default()
    }

    /// Adds one.
    ///
    /// # Errors
    /// The value is too long.
    pub fn push(&mut self, kind: Kind, value: &[u8]) -> Result<(), TooLong> {
        let length = u8::try_from(value.len() + 2).map_err(|_| TooLong(value.len()))?;
        self.0.extend_from_slice(&[kind.0, length]);
        self.0.extend_from_slice(value);
        Ok(())
    }

    /// Adds a text, cut at 253 octets between two characters; nothing if it is empty, which RFC 2865 section 5 forbids.
    pub fn text(&mut self, kind: Kind, text: &str) {
        let end = text.floor_char_boundary(MAX_VALUE);
        if end > 0 {
            self.short(kind, &text.as_bytes()[..end]);
        }
    }

    /// Adds a number.
    pub fn number(&mut self, kind: Kind, number: u32) {
        self.short(kind, &number.to_be_bytes());
    }

    /// Adds an address under the type of its family.
    pub fn address(&mut self, v4: Kind, v6: Kind, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.short(v4, &address.octets()),
            IpAddr::V6(address) => self.short(v6, &address.octets()),
        }
    }

    /// Adds an EAP packet in pieces (RFC 3579 section 3.1).
    pub fn eap(&mut self, packet: &[u8]) {
        for piece in packet.chunks(MAX_VALUE) {
            self.short(Kind::EAP_MESSAGE, piece);
        }
    }

    /// Adds all of others.
    pub fn append(&mut self, others: &Written) {
        self.0.extend_from_slice(&others.0);
    }

    /// Adds what was read.
    pub fn copy(&mut self, read: Attributes<'_>) {
        self.0.extend_from_slice(read.as_bytes());
    }

    /// Octets so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// To be read.
    pub fn read(&self) -> Attributes<'_> {
        Attributes(&self.0)
    }

    /// A value that is known to fit.
    fn short(&mut self, kind: Kind, value: &[u8]) {
        let pushed = self.push(kind, value);
        debug_assert!(pushed.is_ok(), "{} octets", value.len());
    }
}

/// An address from its octets.
pub(crate) fn address(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Some(Ipv4Addr::from(octets).into());
    }
    <[u8; 16]>::try_from(octets).ok().map(|octets| Ipv6Addr::from(octets).into())
}

/// The first attribute and what follows it; `None` at the end.
fn split(bytes: &[u8]) -> Result<Option<(Attribute<'_>, &[u8])>, PacketError> {
    let Some((head, _)) = bytes.split_first_chunk::<2>() else {
        return if bytes.is_empty() { Ok(None) } else { Err(PacketError::Attribute) };
    };
    let length = usize::from(head[1]);
    let whole = bytes.split_at_checked(length).filter(|_| length >= 2);
    let (whole, rest) = whole.ok_or(PacketError::Attribute)?;
    Ok(Some((Attribute { kind: Kind(head[0]), value: &whole[2..] }, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_lie_are_refused() {
        for wrong in [&[1][..], &[1, 1], &[1, 0], &[1, 3], &[1, 2, 1], &[1, 4, 1, 1, 6]] {
            assert_eq!(Attributes::parse(wrong), Err(PacketError::Attribute), "{wrong:?}");
        }
        assert_eq!(Attributes::parse(&[1, 2]).unwrap().first(Kind(1)).unwrap().value, b"");
    }

    #[test]
    fn an_eap_packet_comes_back_from_its_pieces() {
        for length in [1usize, 252, 253, 254, 506, 507, 1400] {
            let packet: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let mut written = Written::new();
            written.text(Kind::USER_NAME, "alice");
            written.eap(&packet);
            written.number(Kind::SESSION_TIMEOUT, 7);
            let read = Attributes::parse(written.read().as_bytes()).unwrap();
            assert_eq!(read.all(Kind::EAP_MESSAGE).count(), length.div_ceil(MAX_VALUE));
            assert_eq!(read.eap().unwrap(), packet);
        }
        assert_eq!(Written::new().read().eap(), None);
    }

    #[test]
    fn vendors_attributes_are_found_and_damaged_ones_passed_over() {
        let mut written = Written::new();
        written.push(Kind::VENDOR_SPECIFIC, &[0, 0, 1, 55, 16, 4, 9, 9, 17, 3, 8]).unwrap();
        written.push(Kind::VENDOR_SPECIFIC, &[0, 0, 1, 55, 16, 200, 9]).unwrap();
        written.push(Kind::VENDOR_SPECIFIC, &[0, 0, 1]).unwrap();
        written.push(Kind::VENDOR_SPECIFIC, &[0, 0, 0, 9, 16, 3, 7]).unwrap();
        let read = written.read();
        assert_eq!(read.vendor(MICROSOFT, 16).collect::<Vec<_>>(), [[9, 9]]);
        assert_eq!(read.vendor(MICROSOFT, 17).collect::<Vec<_>>(), [[8]]);
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let mut written = Written::new();
        written.text(Kind::USER_NAME, &"ä".repeat(200));
        written.text(Kind::CONNECT_INFO, "");
        let read = written.read();
        assert_eq!(read.iter().count(), 1);
        assert_eq!(std::str::from_utf8(read.first(Kind::USER_NAME).unwrap().value).unwrap(), "ä".repeat(126));
        assert_eq!(written.push(Kind::CLASS, &[0; 254]), Err(TooLong(254)));
    }
}
