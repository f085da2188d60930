//! `include/accel.h` in Rust, name by name. `tests/layout.rs` has a C compiler confirm that both say the same.
#![allow(missing_docs, reason = "the header documents them")]

use std::ffi::{c_char, c_void};

pub const ABI: u32 = 1;
pub const MAX_PACKETS: usize = 64;

pub const PENDING: u32 = 0;
pub const DONE: u32 = 1;
pub const BAD_ICV: u32 = 2;
pub const BAD_INPUT: u32 = 3;
pub const ABORTED: u32 = 4;
pub const UNSUPPORTED: u32 = 5;
pub const EXHAUSTED: u32 = 6;
pub const FAILED: u32 = 7;

pub const READY: u32 = 0;

pub const IN_ORDER: u32 = 1;
pub const FIPS: u32 = 2;

pub const PACKETS: u32 = 0;
pub const OPERATIONS: u32 = 1;

pub const SEAL: u8 = 0;
pub const OPEN: u8 = 1;

pub const GENERATE: u32 = 0;
pub const DERIVE: u32 = 1;
pub const RANDOM: u32 = 2;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transform {
    pub encr: u16,
    pub key_bits: u16,
    pub integ: u16,
    pub esn: u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Info {
    pub size: u32,
    pub traits: u32,
    pub name: [u8; 32],
    pub numa_node: i32,
    pub ring: u32,
    pub max_sas: u32,
    pub max_len: u32,
    pub transform_count: u32,
    pub group_count: u32,
    pub has_random: u32,
    pub transforms: *const Transform,
    pub groups: *const u16,
}

#[repr(C)]
pub struct Sa {
    pub size: u32,
    pub spi: u32,
    pub encr: u16,
    pub key_bits: u16,
    pub integ: u16,
    pub dir: u8,
    pub esn: u8,
    pub encr_key_len: u32,
    pub integ_key_len: u32,
    pub encr_key: *const u8,
    pub integ_key: *const u8,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    pub seq: u64,
    pub at: u32,
    pub len: u16,
    pub status: u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Burst {
    pub token: u64,
    pub buf: *mut u8,
    pub packets: *mut Packet,
    pub capacity: u32,
    pub count: u32,
    pub sa: u32,
    pub dir: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BurstDone {
    pub token: u64,
    pub sa: u32,
    pub count: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Op {
    pub token: u64,
    pub secret: *mut u8,
    pub out: *mut u8,
    pub input: *const u8,
    pub what: u32,
    pub group: u32,
    pub secret_len: u32,
    pub out_len: u32,
    pub in_len: u32,
    pub zero: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpDone {
    pub token: u64,
    pub status: u32,
    pub secret_len: u32,
    pub out_len: u32,
    pub zero: u32,
}

#[repr(C)]
pub struct Host {
    pub size: u32,
    pub abi: u32,
    pub ring: unsafe extern "C" fn(bell: u64),
    pub log: unsafe extern "C" fn(line: *const c_char),
}

/// A device or a queue of the plug-in's.
pub type Opaque = *mut c_void;

/// Every function may be missing, until somebody has looked.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Driver {
    pub size: u32,
    pub abi: u32,
    pub name: *const c_char,
    pub version: *const c_char,
    pub probe: Option<unsafe extern "C" fn(index: u32, info: *mut Info) -> u32>,
    pub device_open: Option<unsafe extern "C" fn(index: u32, host: *const Host) -> Opaque>,
    pub device_close: Option<unsafe extern "C" fn(device: Opaque)>,
    pub device_health: Option<unsafe extern "C" fn(device: Opaque) -> u32>,
    pub memory_add: Option<unsafe extern "C" fn(device: Opaque, base: *mut c_void, len: u64) -> u32>,
    pub sa_install: Option<unsafe extern "C" fn(device: Opaque, sa: *const Sa, handle: *mut u32) -> u32>,
    pub sa_remove: Option<unsafe extern "C" fn(device: Opaque, handle: u32)>,
    pub queue_open: Option<unsafe extern "C" fn(device: Opaque, kind: u32, depth: u32, bell: u64) -> Opaque>,
    pub queue_room: Option<unsafe extern "C" fn(queue: Opaque) -> u32>,
    pub burst_submit: Option<unsafe extern "C" fn(queue: Opaque, bursts: *const Burst, count: u32) -> u32>,
    pub burst_poll: Option<unsafe extern "C" fn(queue: Opaque, done: *mut BurstDone, room: u32) -> u32>,
    pub op_submit: Option<unsafe extern "C" fn(queue: Opaque, ops: *const Op, count: u32) -> u32>,
    pub op_poll: Option<unsafe extern "C" fn(queue: Opaque, done: *mut OpDone, room: u32) -> u32>,
    pub queue_stop: Option<unsafe extern "C" fn(queue: Opaque)>,
    pub queue_close: Option<unsafe extern "C" fn(queue: Opaque)>,
}
