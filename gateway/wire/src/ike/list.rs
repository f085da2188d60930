//! Finding payloads in a list, whether it came from a message or out of SK.

use super::payload::{
    Auth, Body, Cert, CertReq, Cp, Delete, Eap, Encrypted, Fragment, Id, Ke, Nonce, Notify,
};
use super::payload::{Payload, Sa, TsPayload, Vendor};
use crate::numbers::NotifyType;

macro_rules! firsts {
    ($($(#[$meta:meta])* $name:ident => $variant:ident($ty:ty)),* $(,)?) => { $(
        $(#[$meta])*
        fn $name(&self) -> Option<&$ty> {
            self.bodies().find_map(|b| match b { Body::$variant(p) => Some(p), _ => None })
        }
    )* };
}

macro_rules! all {
    ($($(#[$meta:meta])* $name:ident => $variant:ident($ty:ty)),* $(,)?) => { $(
        $(#[$meta])*
        fn $name(&self) -> impl Iterator<Item = &$ty> {
            self.bodies().filter_map(|b| match b { Body::$variant(p) => Some(p), _ => None })
        }
    )* };
}

/// Look-ups by type over a slice of payloads: the first of each type that comes once, all of those that repeat.
pub trait PayloadList {
    /// Every payload's content, in order.
    fn bodies(&self) -> impl Iterator<Item = &Body>;

    firsts! {
        /// The first SA.
        sa => Sa(Sa),
        /// The first KE.
        ke => Ke(Ke),
        /// The first IDi.
        id_i => IdI(Id),
        /// The first IDr.
        id_r => IdR(Id),
        /// The first AUTH.
        auth => Auth(Auth),
        /// The first nonce.
        nonce => Nonce(Nonce),
        /// The first TSi.
        ts_i => TsI(TsPayload),
        /// The first TSr.
        ts_r => TsR(TsPayload),
        /// The first CP.
        cp => Cp(Cp),
        /// The first EAP.
        eap => Eap(Eap),
        /// The SK.
        sk => Sk(Encrypted),
        /// The SKF.
        skf => Skf(Fragment),
    }

    all! {
        /// All CERT, in order: the end entity's comes first.
        certs => Cert(Cert),
        /// All CERTREQ.
        cert_requests => CertReq(CertReq),
        /// All notifications.
        notifies => Notify(Notify),
        /// All deletions.
        deletes => Delete(Delete),
        /// All vendor IDs.
        vendors => Vendor(Vendor),
    }

    /// The first notification of a type.
    fn notify(&self, kind: NotifyType) -> Option<&Notify> {
        self.notifies().find(|n| n.kind == kind)
    }

    /// All notifications of a type.
    fn notifies_of(&self, kind: NotifyType) -> impl Iterator<Item = &Notify> {
        self.notifies().filter(move |n| n.kind == kind)
    }

    /// The first notification that reports an error.
    fn error_notify(&self) -> Option<&Notify> {
        self.notifies().find(|n| n.kind.is_error())
    }
}

impl PayloadList for [Payload] {
    fn bodies(&self) -> impl Iterator<Item = &Body> {
        self.iter().map(|p| &p.body)
    }
}
