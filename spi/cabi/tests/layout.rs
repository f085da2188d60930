//! `abi` and `accel.h` say the same, by the word of C compilers.
#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Write as _;
use std::mem::{offset_of, size_of};

use cabi::raw::*;

macro_rules! claims {
    ($text:ident: $($c:ident = $rust:ident { $($field:ident $(as $name:ident)?),* $(,)? })*) => { $(
        let _ = writeln!($text, "_Static_assert(sizeof({}) == {}, \"{0}\");", stringify!($c), size_of::<$rust>());
        $(
            let field = [$(stringify!($name),)? stringify!($field)][0];
            let _ = writeln!($text, "_Static_assert(offsetof({}, {field}) == {}, \"{0} {field}\");", stringify!($c),
                offset_of!($rust, $field));
        )*
    )* };
}

#[test]
fn both_compilers_lay_everything_out_as_we_do() {
    let mut text = String::from("#include \"accel.h\"\n#include <stddef.h>\n");
    claims! { text:
        accel_transform = Transform { encr, key_bits, integ, esn }
        accel_info = Info { size, traits, name, numa_node, ring, max_sas, max_len, transform_count, group_count, has_random,
            transforms, groups }
        accel_sa = Sa { size, spi, encr, key_bits, integ, dir, esn, encr_key_len, integ_key_len, encr_key, integ_key }
        accel_packet = Packet { seq, at, len, status }
        accel_burst = Burst { token, buf, packets, capacity, count, sa, dir }
        accel_burst_done = BurstDone { token, sa, count }
        accel_op = Op { token, secret, out, input as in, what, group, secret_len, out_len, in_len, zero }
        accel_op_done = OpDone { token, status, secret_len, out_len, zero }
        accel_host = Host { size, abi, ring, log }
        accel_driver = Driver { size, abi, name, version, probe, device_open, device_close, device_health, memory_add, sa_install,
            sa_remove, queue_open, queue_room, burst_submit, burst_poll, op_submit, op_poll, queue_stop, queue_close }
    }
    let numbers = [
        ("ACCEL_ABI", ABI),
        ("ACCEL_MAX_PACKETS", MAX_PACKETS as u32),
        ("ACCEL_PENDING", PENDING),
        ("ACCEL_DONE", DONE),
        ("ACCEL_BAD_ICV", BAD_ICV),
        ("ACCEL_BAD_INPUT", BAD_INPUT),
        ("ACCEL_ABORTED", ABORTED),
        ("ACCEL_UNSUPPORTED", UNSUPPORTED),
        ("ACCEL_EXHAUSTED", EXHAUSTED),
        ("ACCEL_FAILED", FAILED),
        ("ACCEL_READY", READY),
        ("ACCEL_IN_ORDER", IN_ORDER),
        ("ACCEL_FIPS", FIPS),
        ("ACCEL_PACKETS", PACKETS),
        ("ACCEL_OPERATIONS", OPERATIONS),
        ("ACCEL_SEAL", SEAL.into()),
        ("ACCEL_OPEN", OPEN.into()),
        ("ACCEL_GENERATE", GENERATE),
        ("ACCEL_DERIVE", DERIVE),
        ("ACCEL_RANDOM", RANDOM),
    ];
    for (name, value) in numbers {
        let _ = writeln!(text, "_Static_assert({name} == {value}, \"{name}\");");
    }
    let source = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("layout.c");
    std::fs::write(&source, text).unwrap();
    for compiler in ["cc", "clang"] {
        support::build(compiler, "layout", &[source.to_str().unwrap()], &[]);
    }
}
