//! The IANA registries of IKEv2 as newtypes: any value can be held, the assigned ones have a name.

/// Makes a newtype over an integer with one constant per assigned value and a `Display` that prints the
/// registry's name, or the bare number where none is assigned.
macro_rules! registry {
    ($(#[$meta:meta])* $ty:ident($int:ty) { $($value:literal $konst:ident $name:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $ty(pub $int);

        impl $ty {
            $(#[doc = concat!("`", $name, "` (", stringify!($value), ").")]
            pub const $konst: $ty = $ty($value);)*

            /// Every assigned value with its registry name, in ascending order.
            pub const ASSIGNED: &'static [($ty, &'static str)] = &[$(($ty($value), $name),)*];

            /// The registry's name, `None` where the value is not assigned.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 { $($value => Some($name),)* _ => None }
            }
        }

        impl From<$int> for $ty { fn from(value: $int) -> Self { $ty(value) } }
        impl From<$ty> for $int { fn from(value: $ty) -> Self { value.0 } }

        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() { Some(name) => f.pad(name), None => fmt::Display::fmt(&self.0, f) }
            }
        }

        impl fmt::Debug for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(self, f) }
        }
    };
}

mod algorithms;
mod eap;
mod exchange;
mod identity;
mod notify;

pub use algorithms::{
    AttributeType, DhId, EncrId, EsnId, HashId, IntegId, IpcompId, KeId, PrfId, TransformType,
};
pub use eap::{EapCode, EapType};
pub use exchange::{ExchangeType, PayloadType, ProtocolId};
pub use identity::{
    AuthMethod, CertEncoding, CfgAttrType, CfgType, GatewayIdType, IdType, PpkIdType, TsType,
};
pub use notify::NotifyType;

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn assigned_values_print_their_registry_name_and_others_the_number() {
        assert_eq!(format!("{}", ExchangeType::IKE_SA_INIT), "IKE_SA_INIT");
        assert_eq!(format!("{}", ExchangeType(200)), "200");
        assert_eq!(format!("{:?}", NotifyType::NO_PROPOSAL_CHOSEN), "NO_PROPOSAL_CHOSEN");
        assert_eq!(format!("{:>6}", PayloadType::SA), "    SA");
    }

    #[test]
    fn registries_are_listed_in_ascending_order_without_doubles() {
        assert!(NotifyType::ASSIGNED.windows(2).all(|w| w[0].0 < w[1].0));
        assert!(EncrId::ASSIGNED.windows(2).all(|w| w[0].0 < w[1].0));
        assert!(KeId::ASSIGNED.windows(2).all(|w| w[0].0 < w[1].0));
        assert!(CfgAttrType::ASSIGNED.windows(2).all(|w| w[0].0 < w[1].0));
    }
}
