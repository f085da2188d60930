//! Which socket of several a datagram goes to. The programs are classic BPF (`linux/filter.h`).
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::sock_filter;

/// Of a group of sockets bound to one port, the one with number `lanes` gets the datagrams that begin with four zero octets
/// (the non-ESP marker of RFC 3948 section 2.2), and of the others that whose number is the SPI modulo `lanes`. Datagrams too
/// short to have an SPI go to number 0.
///
/// # Errors
/// What the kernel says.
pub fn steer_by_spi(fd: BorrowedFd<'_>, lanes: u16) -> io::Result<()> {
    let lanes = u32::from(lanes.max(1));
    // A datagram too short for the load ends the program with 0.
    let mut program = [
        load_word(0),
        skip_unless(0, 1),
        take(lanes),
        modulo(lanes),
        sock_filter { code: (libc::BPF_RET | libc::BPF_A) as u16, jt: 0, jf: 0, k: 0 },
    ];
    attach(fd, libc::SO_ATTACH_REUSEPORT_CBPF, &mut program)
}

/// Has a raw socket for protocol 50 take only packets whose SPI is `lane` modulo `lanes`.
///
/// # Errors
/// What the kernel says.
pub fn take_lane_only(fd: BorrowedFd<'_>, v6: bool, lane: u16, lanes: u16) -> io::Result<()> {
    let (lane, lanes) = (u32::from(lane), u32::from(lanes.max(1)));
    let tail = [modulo(lanes), skip_unless(lane, 1), take(u32::MAX), take(0)];
    // What an IPv4 raw socket gets begins with the IP header, what an IPv6 one gets does not.
    let mut program = match v6 {
        true => vec![load_word(0)],
        false => {
            let header = (libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH) as u16;
            let behind = (libc::BPF_LD | libc::BPF_W | libc::BPF_IND) as u16;
            vec![
                sock_filter { code: header, jt: 0, jf: 0, k: 0 },
                sock_filter { code: behind, jt: 0, jf: 0, k: 0 },
            ]
        }
    };
    program.extend(tail);
    attach(fd, libc::SO_ATTACH_FILTER, &mut program)
}

fn load_word(at: u32) -> sock_filter {
    sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: at }
}

fn modulo(by: u32) -> sock_filter {
    sock_filter { code: (libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K) as u16, jt: 0, jf: 0, k: by }
}

/// Skips `count` instructions unless the accumulator is `value`.
fn skip_unless(value: u32, count: u8) -> sock_filter {
    let code = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    sock_filter { code, jt: 0, jf: count, k: value }
}

fn take(value: u32) -> sock_filter {
    sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: value }
}

fn attach(fd: BorrowedFd<'_>, option: libc::c_int, program: &mut [sock_filter]) -> io::Result<()> {
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: program and filter live until the call returns; the kernel copies them.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const filter).cast::<c_void>(),
            size_of::<libc::sock_fprog>() as u32,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
