//! What is counted. A dropped packet makes a number grow and nothing else: no log line, no allocation.

use std::fmt;

macro_rules! reasons {
    ($($name:ident $text:literal $doc:literal;)*) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum DropReason { $(#[doc = $doc] $name,)* }

        impl DropReason {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name),*];

            /// Its name in metrics: lower case, words joined by underscores.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$name => $text,)* }
            }
        }
    };
}

reasons! {
    NotIp "not_ip" "From the inner side: not a well-formed IP packet.";
    NoPolicy "no_policy" "No policy speaks of it (RFC 4301 section 5.1: discard).";
    Discard "policy_discard" "A policy says discard.";
    CleartextProtected "cleartext_protected" "Arrived in the clear where a policy demands protection (RFC 4301 section 5.2).";
    NoSa "no_sa" "Protected by policy, no SA yet, and no place left to wait.";
    WaitExpired "wait_expired" "Waited for an SA that did not come.";
    TooBig "too_big" "Larger than the tunnel, and may not be fragmented; the sender was told.";
    FragmentInTransport "fragment_in_transport" "A fragment for a transport mode SA, which carries whole datagrams only (RFC 4303 section 3.3.4).";
    TransportHeader "transport_header" "IPv6 extension headers that cannot stand inside transport mode.";
    SequenceExhausted "sequence_exhausted" "The sequence number would wrap (RFC 4303 section 3.3.3).";
    HardLimit "hard_limit" "The SA has carried all it may.";
    PoolDry "pool_dry" "No packet buffer left.";
    Backpressure "backpressure" "The device is behind and the waiting line is full.";
    CpuShare "cpu_share" "The CPU time its realm may use is used up, and the waiting line is full.";
    Astray "astray" "Handed over to a worker that has no SA for it either.";
    Segmentation "segmentation" "A superpacket whose description does not fit its octets.";
    Runt "runt" "Too short to be an ESP packet of its SA.";
    Misaligned "misaligned" "Ciphertext not a multiple of the algorithm's block.";
    SpiReserved "spi_reserved" "SPI 0 to 255 (RFC 4303 section 2.1).";
    UnknownSpi "unknown_spi" "No SA has this SPI.";
    Replay "replay" "Sequence number seen before.";
    Stale "stale" "Sequence number left of the replay window.";
    ReplayTwin "replay_twin" "Its twin was authenticated while it was in the device.";
    BadIcv "bad_icv" "The integrity check failed.";
    BadTrailer "bad_trailer" "Padding that is not 1, 2, 3 … or longer than the packet (RFC 4303 section 2.4).";
    BadNextHeader "bad_next_header" "A next header that the SA's mode does not carry.";
    BadInner "bad_inner" "The opened packet is not a well-formed IP packet.";
    SelectorMismatch "selector_mismatch" "The opened packet is not what its SA was negotiated for (RFC 4301 section 5.2).";
    EcnViolation "ecn_violation" "Congestion was marked on a packet that cannot bear it (RFC 6040 section 4.2).";
    DeviceFault "device_fault" "The device failed the packet.";
    DeviceDown "device_down" "The device of its SA is out of order, and nothing else may carry it.";
    DeviceLost "device_lost" "The device never gave it back.";
    SaGone "sa_gone" "Its SA was removed while it was in the device or waiting for it.";
    Stray "stray" "A completion that answers nothing we asked.";
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One counter for each reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropCounters([u64; DropReason::ALL.len()]);

impl DropCounters {
    /// All zero.
    pub const fn new() -> Self {
        DropCounters([0; DropReason::ALL.len()])
    }

    /// Counts `packets` more.
    pub fn add(&mut self, reason: DropReason, packets: u64) {
        self.0[reason as usize] += packets;
    }

    /// Packets dropped for this reason.
    pub fn of(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// Packets dropped for any reason.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons that happened, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|r| (*r, self.of(*r))).filter(|(_, n)| *n > 0)
    }
}

impl Default for DropCounters {
    fn default() -> Self {
        DropCounters::new()
    }
}

/// What one worker's data path did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets sealed and handed out for sending.
    pub sealed: u64,
    /// Their octets, SPI to ICV.
    pub sealed_bytes: u64,
    /// Packets opened and handed out for delivery.
    pub opened: u64,
    /// Their octets.
    pub opened_bytes: u64,
    /// Bursts given to devices.
    pub bursts: u64,
    /// Packets that policy lets through in the clear.
    pub bypassed: u64,
    /// Dummy packets received and thrown away (RFC 4303 section 2.6).
    pub dummies_in: u64,
    /// Dummy packets sent.
    pub dummies_out: u64,
    /// NAT keepalives received (RFC 3948 section 4).
    pub keepalives_in: u64,
    /// NAT keepalives asked to be sent.
    pub keepalives_out: u64,
    /// ICMP errors written to inner senders.
    pub icmp: u64,
    /// Packets that were fragmented before they were sealed.
    pub fragmented: u64,
    /// Flow cache: found.
    pub flow_hits: u64,
    /// Flow cache: decided anew.
    pub flow_misses: u64,
    /// Places in the delivery order given up because their time was over.
    pub holes: u64,
    /// Bursts that came after their place was given up.
    pub late: u64,
    /// Packets and superpackets handed to the worker that has their SA.
    pub handed: u64,
    /// Drops by reason, SA or not.
    pub drops: DropCounters,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter_and_name() {
        let mut all = DropCounters::new();
        for (i, reason) in DropReason::ALL.iter().enumerate() {
            all.add(*reason, i as u64 + 1);
        }
        for (i, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(all.of(*reason), i as u64 + 1, "{reason}");
        }
        let mut names: Vec<_> = DropReason::ALL.iter().map(|r| r.to_string()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), DropReason::ALL.len());
    }
}
