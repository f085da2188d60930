//! The payloads of RFC 7296 and RFC 7383, one file each.

mod auth;
mod cert;
mod cp;
mod delete;
mod eap;
mod id;
mod ke;
mod nonce;
mod notify;
mod redirect;
mod sa;
mod sk;
mod ts;
mod vendor;

pub use auth::Auth;
pub use cert::{Cert, CertReq};
pub use cp::{CfgAttr, Cp};
pub use delete::Delete;
pub use eap::Eap;
pub use id::Id;
pub use ke::Ke;
pub use nonce::Nonce;
pub use notify::Notify;
pub use redirect::{GatewayId, Redirect};
pub use sa::{Attribute, Proposal, Sa, Transform};
pub(crate) use sk::check_fragment;
pub use sk::{Encrypted, Fragment};
pub use ts::{TsEntry, TsPayload};
pub use vendor::{Unknown, Vendor};

use super::error::ParseError;
use super::reader::Reader;
use crate::numbers::PayloadType;
use alloc::vec::Vec;

/// One payload: the octet of its generic header that holds the critical bit, and what it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Critical bit (0x80) and seven reserved bits, as received. Zero for every payload RFC 7296 defines: a
    /// receiver ignores the bit on types it knows (RFC 7296 section 3.2).
    pub flags: u8,
    /// The content.
    pub body: Body,
}

/// What a payload carries.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Body {
    /// Security association, type 33.
    Sa(Sa),
    /// Key exchange, type 34.
    Ke(Ke),
    /// Identity of the initiator, type 35.
    IdI(Id),
    /// Identity of the responder, type 36.
    IdR(Id),
    /// Certificate, type 37.
    Cert(Cert),
    /// Certificate request, type 38.
    CertReq(CertReq),
    /// Authentication, type 39.
    Auth(Auth),
    /// Nonce, type 40.
    Nonce(Nonce),
    /// Notify, type 41.
    Notify(Notify),
    /// Delete, type 42.
    Delete(Delete),
    /// Vendor ID, type 43.
    Vendor(Vendor),
    /// Traffic selectors of the initiator, type 44.
    TsI(TsPayload),
    /// Traffic selectors of the responder, type 45.
    TsR(TsPayload),
    /// Encrypted and authenticated, type 46; always the last payload.
    Sk(Encrypted),
    /// Configuration, type 47.
    Cp(Cp),
    /// Extensible authentication, type 48.
    Eap(Eap),
    /// Encrypted fragment, type 53 (RFC 7383); always the last payload.
    Skf(Fragment),
    /// Any other type, verbatim.
    Unknown(Unknown),
}

impl Payload {
    /// The critical bit.
    pub const CRITICAL: u8 = 0x80;

    /// Whether the critical bit is set.
    pub const fn is_critical(&self) -> bool {
        self.flags & Self::CRITICAL != 0
    }

    /// The payload type.
    pub const fn kind(&self) -> PayloadType {
        self.body.kind()
    }
}

impl Body {
    /// The payload type.
    pub const fn kind(&self) -> PayloadType {
        match self {
            Body::Sa(_) => PayloadType::SA,
            Body::Ke(_) => PayloadType::KE,
            Body::IdI(_) => PayloadType::IDI,
            Body::IdR(_) => PayloadType::IDR,
            Body::Cert(_) => PayloadType::CERT,
            Body::CertReq(_) => PayloadType::CERTREQ,
            Body::Auth(_) => PayloadType::AUTH,
            Body::Nonce(_) => PayloadType::NONCE,
            Body::Notify(_) => PayloadType::NOTIFY,
            Body::Delete(_) => PayloadType::DELETE,
            Body::Vendor(_) => PayloadType::VENDOR,
            Body::TsI(_) => PayloadType::TSI,
            Body::TsR(_) => PayloadType::TSR,
            Body::Sk(_) => PayloadType::SK,
            Body::Cp(_) => PayloadType::CP,
            Body::Eap(_) => PayloadType::EAP,
            Body::Skf(_) => PayloadType::SKF,
            Body::Unknown(unknown) => unknown.kind,
        }
    }

    /// `first_inner` of an encrypted payload: what its generic header names as next payload.
    pub(crate) fn first_inner(&self) -> Option<PayloadType> {
        match self {
            Body::Sk(sk) => Some(sk.first_inner),
            Body::Skf(skf) => Some(skf.first_inner),
            _ => None,
        }
    }

    /// Reads the content of one payload; `next` is the next-payload octet of its generic header.
    pub(crate) fn parse(kind: PayloadType, next: PayloadType, mut r: Reader<'_>) -> Result<Body, ParseError> {
        let r = &mut r;
        let body = match kind {
            PayloadType::SA => Body::Sa(Sa::parse(r)?),
            PayloadType::KE => Body::Ke(Ke::parse(r)?),
            PayloadType::IDI => Body::IdI(Id::parse(r)?),
            PayloadType::IDR => Body::IdR(Id::parse(r)?),
            PayloadType::CERT => Body::Cert(Cert::parse(r)?),
            PayloadType::CERTREQ => Body::CertReq(CertReq::parse(r)?),
            PayloadType::AUTH => Body::Auth(Auth::parse(r)?),
            PayloadType::NONCE => Body::Nonce(Nonce::parse(r)?),
            PayloadType::NOTIFY => Body::Notify(Notify::parse(r)?),
            PayloadType::DELETE => Body::Delete(Delete::parse(r)?),
            PayloadType::VENDOR => Body::Vendor(Vendor(r.rest().into())),
            PayloadType::TSI => Body::TsI(TsPayload::parse(r)?),
            PayloadType::TSR => Body::TsR(TsPayload::parse(r)?),
            PayloadType::SK => Body::Sk(Encrypted { first_inner: next, body: r.rest().into() }),
            PayloadType::CP => Body::Cp(Cp::parse(r)?),
            PayloadType::EAP => Body::Eap(Eap(r.rest().into())),
            PayloadType::SKF => Body::Skf(Fragment::parse(next, r)?),
            kind => Body::Unknown(Unknown { kind, bytes: r.rest().into() }),
        };
        r.finish("octets left over")?;
        Ok(body)
    }

    /// Appends the content without the generic header.
    pub(crate) fn emit_into(&self, out: &mut Vec<u8>) {
        match self {
            Body::Sa(sa) => sa.emit_into(out),
            Body::Ke(ke) => ke.emit_into(out),
            Body::IdI(id) | Body::IdR(id) => id.emit_into(out),
            Body::Cert(cert) => cert.emit_into(out),
            Body::CertReq(req) => req.emit_into(out),
            Body::Auth(auth) => auth.emit_into(out),
            Body::Nonce(nonce) => out.extend_from_slice(&nonce.0),
            Body::Notify(notify) => notify.emit_into(out),
            Body::Delete(delete) => delete.emit_into(out),
            Body::Vendor(vendor) => out.extend_from_slice(&vendor.0),
            Body::TsI(ts) | Body::TsR(ts) => ts.emit_into(out),
            Body::Sk(sk) => out.extend_from_slice(&sk.body),
            Body::Cp(cp) => cp.emit_into(out),
            Body::Eap(eap) => out.extend_from_slice(&eap.0),
            Body::Skf(skf) => skf.emit_into(out),
            Body::Unknown(unknown) => out.extend_from_slice(&unknown.bytes),
        }
    }
}

/// Whether the type is one [`Body`] has a variant for: the critical bit is ignored on these.
pub(crate) const fn is_understood(kind: PayloadType) -> bool {
    matches!(kind.0, 33..=48 | 53)
}

impl From<Body> for Payload {
    fn from(body: Body) -> Self {
        Payload { flags: 0, body }
    }
}

macro_rules! into_payload {
    ($($ty:ident => $variant:ident),* $(,)?) => { $(
        impl From<$ty> for Payload {
            fn from(body: $ty) -> Self { Body::$variant(body).into() }
        }
    )* };
}
into_payload! {
    Sa => Sa, Ke => Ke, Cert => Cert, CertReq => CertReq, Auth => Auth, Nonce => Nonce, Notify => Notify,
    Delete => Delete, Vendor => Vendor, Encrypted => Sk, Cp => Cp, Eap => Eap, Fragment => Skf, Unknown => Unknown,
}
