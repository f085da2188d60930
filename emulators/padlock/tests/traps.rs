//! The instructions as programs execute them: what is in registers and memory afterwards, and what is a fault.
#![allow(clippy::unwrap_used)]
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod sys;

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use sys::Registers;
use tussock_padlock_emulator::{Emulator, Fault, Instruction, Options, Units};

#[repr(C, align(16))]
struct Aligned<const N: usize>([u8; N]);

impl<const N: usize> Aligned<N> {
    fn at(&mut self) -> u64 {
        self.0.as_mut_ptr() as u64
    }
}

fn emulator() -> &'static Emulator {
    Emulator::install(Options::default()).unwrap()
}

/// Key, control word and IV for AES with 128 bits.
struct Setting {
    key: Aligned<256>,
    control: Aligned<16>,
    iv: Aligned<16>,
}

impl Setting {
    fn new(key: u8) -> Setting {
        let mut setting = Setting { key: Aligned([0; 256]), control: Aligned([0; 16]), iv: Aligned([0; 16]) };
        setting.key.0[..16].fill(key);
        setting.control.0[0] = 10;
        setting
    }

    fn registers(&mut self, text: u64, blocks: u64) -> Registers {
        let (rax, rbx, rdx) = (self.iv.at(), self.key.at(), self.control.at());
        Registers { rax, rbx, rcx: blocks, rdx, rsi: text, rdi: text }
    }
}

#[test]
fn registers_are_behind_the_text_and_ciphertexts_last_block_is_at_rax() {
    emulator();
    let mut setting = Setting::new(7);
    let mut text = Aligned([0; 256]);
    let at = text.at();
    let before = setting.registers(at, 3);
    let after = sys::xcrypt_cbc(before);
    assert_eq!(after, Registers { rax: at + 32, rcx: 0, rsi: at + 48, rdi: at + 48, ..before });
    assert!(text.0[..48].iter().any(|octet| *octet != 0) && text.0[48..].iter().all(|octet| *octet == 0));
    // None at all is none.
    let before = setting.registers(at, 0);
    assert_eq!(sys::xcrypt_cbc(before), before);
}

#[test]
fn a_counter_wraps_within_sixteen_bits() {
    emulator();
    let mut setting = Setting::new(9);
    let mut streams = Vec::new();
    for (counter, blocks) in [(0x1_ffff_u128, 2), (0x1_0000, 1)] {
        setting.iv.0 = counter.to_be_bytes();
        let mut text = Aligned([0; 256]);
        let before = setting.registers(text.at(), blocks);
        sys::xcrypt_ctr(before);
        streams.push(text.0);
    }
    assert_eq!(
        streams[0][16..32],
        streams[1][..16],
        "the second block is that of the counter without a carry"
    );
}

/// In one test, since what is watched are all threads.
#[test]
fn a_key_is_used_again_until_the_flags_are_written_to() {
    let emulator = emulator();
    let mut results = Vec::new();
    for (watched, writes) in [(false, false), (true, false), (true, true)] {
        let (mut one, mut other) = (Setting::new(1), Setting::new(2));
        let mut text = Aligned([0; 256]);
        let first = one.registers(text.at(), 1);
        let second = other.registers(text.at() + 16, 1);
        emulator.watch(watched).unwrap();
        sys::popf();
        sys::xcrypt_ecb(first);
        if writes {
            sys::popf();
        }
        sys::xcrypt_ecb(second);
        sys::popf();
        emulator.watch(false).unwrap();
        results.push((text.0[..16] == text.0[16..32], text.0[16..32].to_vec()));
    }
    assert!(!results[0].0, "not watched: each has its own key");
    assert!(results[1].0, "the second block was encrypted with the first key");
    assert!(!results[2].0 && results[2].1 == results[0].1, "after POPF with its own");
}

#[test]
fn a_whole_message_is_ended_and_blocks_are_not() {
    use sha2::Digest as _;
    emulator();
    let message: Vec<u8> = (0..300u32).map(|n| n as u8).collect();
    for len in [0, 1, 55, 56, 64, 119, 120, 300] {
        let mut state = Aligned([0; 128]);
        let words: [u32; 8] = [
            0x6a09_e667,
            0xbb67_ae85,
            0x3c6e_f372,
            0xa54f_f53a,
            0x510e_527f,
            0x9b05_688c,
            0x1f83_d9ab,
            0x5be0_cd19,
        ];
        for (n, word) in words.iter().enumerate() {
            state.0[4 * n..4 * n + 4].copy_from_slice(&word.to_le_bytes());
        }
        let from = message.as_ptr() as u64;
        let rdi = state.at();
        let after = sys::xsha256(Registers { rcx: len, rsi: from, rdi, ..Registers::default() });
        assert_eq!((after.rcx, after.rsi), (0, from + len));
        let digest: Vec<u8> =
            state.0[..32].chunks(4).flat_map(|word| [word[3], word[2], word[1], word[0]]).collect();
        assert_eq!(digest, sha2::Sha256::digest(&message[..len as usize]).to_vec(), "{len}");
        assert_eq!(state.0[32..], [0xa5; 96], "what is behind the words is the processor's");
    }
}

#[test]
fn random_octets_come_in_the_amounts_that_are_asked_for() {
    emulator();
    let mut octets = Aligned([0; 128]);
    let rdi = octets.at();
    for (quality, most) in [(0, 8), (1, 4), (2, 2), (3, 1)] {
        let got: Vec<u64> = (0..30)
            .map(|_| {
                let after = sys::xstore(Registers { rdi, rdx: quality, ..Registers::default() });
                assert_eq!(after.rdi - rdi, after.rax & 15);
                after.rax & 15
            })
            .collect();
        assert!(got.iter().all(|one| *one == 0 || *one == most) && got.contains(&0), "{quality}: {got:?}");
    }
    let after = sys::rep_xstore(Registers { rdi, rcx: 100, rdx: 0, ..Registers::default() });
    assert_eq!((after.rcx, after.rdi), (0, rdi + 100));
    assert!(octets.0[100..].iter().all(|octet| *octet == 0));
    assert!(octets.0[..100].iter().filter(|octet| **octet == 0).count() < 20);
}

#[test]
fn what_another_handler_was_there_for_still_reaches_it() {
    ends("chained", Ending::Code(41), || {
        sys::step_over_ud2();
        let emulator = emulator();
        let mut text = Aligned([0; 256]);
        let mut setting = Setting::new(3);
        let registers = setting.registers(text.at(), 1);
        sys::xcrypt_ecb(registers);
        // Its handler adds one to RAX.
        let after = sys::ud2(Registers { rax: 40, ..Registers::default() });
        sys::xcrypt_ecb(setting.registers(text.at(), 1));
        assert_eq!(emulator.served(Instruction::Xsha1), 0);
        std::process::exit(after.rax as i32);
    });
}

/// SIGILL.
const ILLEGAL: Ending = Ending::Signal(4);

#[test]
fn what_this_processor_does_not_have_is_illegal() {
    ends("ud2", ILLEGAL, || {
        emulator();
        sys::ud2(Registers::default());
    });
    ends("bare", ILLEGAL, || {
        emulator();
        let mut text = Aligned([0; 256]);
        sys::bare_xcrypt(Setting::new(3).registers(text.at(), 1));
    });
    ends("asleep", ILLEGAL, || {
        Emulator::install(Options { asleep: Units::ACE, ..Options::default() }).unwrap();
        let mut text = Aligned([0; 256]);
        sys::xcrypt_ecb(Setting::new(3).registers(text.at(), 1));
    });
    ends("vanished", ILLEGAL, || {
        let emulator = emulator();
        let mut text = Aligned([0; 256]);
        let mut setting = Setting::new(3);
        let registers = setting.registers(text.at(), 1);
        sys::xcrypt_ecb(registers);
        emulator.inject(Fault::Vanished, true);
        sys::xcrypt_ecb(registers);
    });
}

/// A page fault with its address, and a protection fault without one.
const PAGE: Ending = Ending::Code(42);
const PROTECTION: Ending = Ending::Code(43);

#[test]
fn reading_on_behind_the_end_of_memory_faults_at_the_next_page() {
    for (name, gap, expected) in
        [("over-0", 0, PAGE), ("over-112", 112, PAGE), ("over-128", 128, Ending::Code(0))]
    {
        ends(name, expected, || {
            sys::report_page_faults();
            emulator();
            let page = sys::page_at_the_end();
            let text = page.as_mut_ptr() as u64 + 4096 - gap - 64;
            sys::xcrypt_ecb(Setting::new(3).registers(text, 4));
            std::process::exit(0);
        });
    }
}

#[test]
fn operands_that_are_not_aligned_or_mean_nothing_are_protection_faults() {
    type Spoil = fn(&mut Setting, &mut Registers);
    let spoils: [(&str, Spoil); 8] = [
        ("key", |_, registers| registers.rbx += 8),
        ("control", |_, registers| registers.rdx += 4),
        ("iv", |_, registers| registers.rax += 1),
        ("source", |_, registers| registers.rsi += 8),
        ("destination", |_, registers| registers.rdi += 2),
        ("rounds", |setting, _| setting.control.0[0] = 12),
        ("algorithm", |setting, _| setting.control.0[0] |= 0x10),
        ("size", |setting, _| setting.control.0[1] |= 0x08),
    ];
    for (name, spoil) in spoils {
        ends(name, PROTECTION, move || {
            sys::report_page_faults();
            emulator();
            let mut setting = Setting::new(3);
            let mut text = Aligned([0; 512]);
            let mut registers = setting.registers(text.at(), 2);
            spoil(&mut setting, &mut registers);
            sys::xcrypt_cbc(registers);
        });
    }
    for (name, bits) in [("few", 128), ("odd", 300), ("many", 32_768 + 128)] {
        ends(name, PROTECTION, move || {
            sys::report_page_faults();
            emulator();
            let mut block = Aligned([0; 64]);
            sys::montmul(Registers { rcx: bits, rsi: block.at(), ..Registers::default() });
        });
    }
}

#[test]
fn the_gap_between_two_pages_is_where_it_is_and_the_text_before_it_is_done() {
    ends("progress", PAGE, || {
        sys::report_page_faults();
        emulator();
        let page = sys::page_at_the_end();
        let text = page.as_mut_ptr() as u64 + 4096 - 64;
        // More blocks than there are.
        sys::xcrypt_ecb(Setting::new(3).registers(text, 8));
    });
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Code(i32),
    Signal(i32),
}

/// Does something in a process of its own, by running the test that calls this again there, and looks how that ends.
fn ends(name: &str, expected: Ending, does: impl FnOnce()) {
    const WHO: &str = "PADLOCK_TEST_PROCESS";
    match std::env::var(WHO) {
        Ok(who) if who == name => {
            does();
            // It should not have come so far.
            std::process::exit(99);
        }
        // The process of another one, on its way there.
        Ok(_) => return,
        Err(_) => {}
    }
    let test = std::thread::current().name().unwrap().to_owned();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&test, "--exact", "--test-threads=1", "--nocapture"]).env(WHO, name);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let status = command.status().unwrap();
    let ending = status.code().map(Ending::Code).or(status.signal().map(Ending::Signal));
    assert_eq!(ending, Some(expected), "{name}");
}
