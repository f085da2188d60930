//! Clients of the vfio-user server: what QEMU says from the first message to the last, and what it never says.

/// A message: the command and what is odd about it, the length of the body, the body.
fn message(what: u8, body: &[u8]) -> Vec<u8> {
    [&[what, body.len() as u8][..], body].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn access(offset: u64, region: u32, count: u32, data: &[u8]) -> Vec<u8> {
    [&offset.to_le_bytes()[..], &words(&[region, count]), data].concat()
}

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let agreed = |messages: &[Vec<u8>]| [&[0][..], &messages.concat()].concat();
    let info = message(4, &words(&[16, 0, 0, 0]));
    let window = |iova: u64, len: u64| {
        [&words(&[32, 3])[..], &0u64.to_le_bytes(), &iova.to_le_bytes(), &len.to_le_bytes()].concat()
    };
    let gone = [&words(&[24, 0])[..], &0u64.to_le_bytes(), &4096u64.to_le_bytes()].concat();
    let with_fd = |what: u8, body: &[u8], count: u8| [message(what | 0x40, body), vec![count]].concat();
    let multi: Vec<u8> =
        [&2u64.to_le_bytes()[..], &access(0, 0, 4, &[1; 8]), &access(8, 0, 8, &[2; 8])].concat();
    let proposal = b"\0\0\x01\0{\"capabilities\":{\"write_multiple\":true}}\0";
    vec![
        (
            "session",
            agreed(&[
                info.clone(),
                message(5, &words(&[32, 0, 0, 0])),
                message(5, &words(&[32, 0, 7, 0])),
                message(7, &words(&[16, 0, 2, 0])),
                with_fd(2, &window(0, 4096), 1),
                with_fd(8, &words(&[20, 0x24, 2, 0, 3]), 3),
                message(9, &access(0, 7, 64, &[])),
                message(10, &access(4, 0, 4, &[1, 2, 3, 4])),
                message(15, &multi),
                message(13, &[]),
                message(8, &words(&[20, 0x21, 2, 0, 0])),
                message(3, &gone),
            ]),
        ),
        ("version", [&[1][..], &message(1, proposal), &info].concat()),
        ("version-twice", agreed(&[message(1, &[0, 0, 1, 0]), info.clone()])),
        ("version-other", [&[1][..], &message(1, &[1, 0, 0, 0]), &info].concat()),
        ("no-version", [&[1][..], &info].concat()),
        ("no-answer-wanted", agreed(&[message(10 | 0x20, &access(0, 0, 2, &[1, 2])), info.clone()])),
        ("in-pieces", agreed(&[[message(4 | 0x80, &words(&[16, 0, 0, 0])), vec![7]].concat(), info.clone()])),
        (
            "outside",
            agreed(&[
                message(9, &access(4090, 0, 64, &[])),
                message(9, &access(u64::MAX, 0, 2, &[])),
                message(10, &access(0, 4, 1, &[0])),
                message(9, &access(0, 1, 1, &[])),
                message(9, &access(0, 99, 1, &[])),
            ]),
        ),
        (
            "long-read",
            agreed(&[message(9, &access(0, 2, 1 << 20, &[])), message(9, &access(0, 2, (1 << 20) + 1, &[]))]),
        ),
        (
            "long-write",
            agreed(&[[vec![10 | 0x10, 16, 1], access(0, 2, 4112 * 3, &[]), vec![3]].concat(), info.clone()]),
        ),
        ("window-outside", agreed(&[message(2, &window(u64::MAX, 2)), message(2, &window(5, 0))])),
        (
            "interrupts",
            agreed(&[
                message(8, &words(&[20, 0x0a, 2, 1, 2, 0x0100])),
                message(8, &words(&[20, 0x09, 1, 0, 1])),
                message(8, &words(&[20, 0x24, 2, 0, 2])),
                message(8, &words(&[20, 0x24, 9, 0, 0])),
                message(8, &words(&[20, 0x24, 2, u32::MAX, 2])),
            ]),
        ),
        ("too-many-descriptors", agreed(&[with_fd(2, &window(0, 4096), 17), info.clone()])),
        ("descriptor-for-nothing", agreed(&[with_fd(4, &words(&[16, 0, 0, 0]), 1), info.clone()])),
        (
            "wrong-length",
            agreed(&[[vec![4 | 0x10, 4, 4], words(&[16]), vec![0, 0, 0, 0x40]].concat(), info.clone()]),
        ),
        ("torn", agreed(&[[vec![4 | 0x10, 4, 2], words(&[16]), vec![9]].concat()])),
        ("reply", agreed(&[[vec![4 | 0x10, 4, 8], words(&[16]), vec![1]].concat(), info])),
    ]
}
