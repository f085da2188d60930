//! Plug-ins that are honest, and some that are not: 24 steps of the host, then what the plug-in says.

/// An SA, bursts both ways, operations, a reset, a removal, another queue.
const STEPS: [u8; 24] =
    [0, 0xe1, 0x62, 3, 19, 7, 7, 4, 0, 0xe9, 7, 16, 0xf9, 0xf1, 7, 5, 0xe1, 6, 0, 0xe2, 3, 4, 7, 7];

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let with = |says: &[u8]| [&STEPS[..], says].concat();
    // ABI, oddness of the table; second device, oddness of the first; again for every look at the list.
    let fine = [0, 0, 0, 0];
    let then = |says: &[u8]| with(&[&fine[..], &fine, &[0; 6], says].concat());
    vec![
        ("honest", with(&[])),
        ("no-abi", with(&[1])),
        ("small", with(&[0, 2, 40, 0, 0, 0])),
        ("missing", with(&[0, 1, 0x30])),
        ("other-abi", with(&[0, 4, 2, 0, 0, 0])),
        ("odd-device", with(&[0, 0, 3, 1, 20, 0, 0, 0, 44, 1, 0, 0])),
        ("false-token", then(&[0x10, 7, 0x10, 7])),
        ("wrong-length", then(&[2, 0xff, 0xff, 0, 0])),
        ("doubled", then(&[0x40, 0x40, 0x40])),
    ]
}
