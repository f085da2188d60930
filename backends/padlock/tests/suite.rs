//! The driver keeps the contract. Its instructions are executed, and trapped, one by one.
#![allow(clippy::unwrap_used)]

mod support;

mod as_configured {
    hwtest::suite!(super::support::driver_without_montmul());
}

/// An exchange is some thousand traps, so the checks that want rings full of them are left to the above, where an operation is some
/// random octets.
mod with_montmul {
    #[test]
    fn both_ends_of_every_declared_group_agree() {
        hwtest::operation::both_ends_of_every_declared_group_agree(&super::support::driver());
    }

    #[test]
    fn unusable_public_values_are_refused() {
        hwtest::operation::unusable_public_values_are_refused(&super::support::driver());
    }

    #[test]
    fn a_dropped_queue_gives_its_buffers_back() {
        hwtest::contract::a_dropped_queue_gives_its_buffers_back(&super::support::driver());
    }
}

#[test]
fn the_instructions_were_executed() {
    use emu_padlock::Instruction;
    let emulator = support::emulator();
    let before = [Instruction::Xstore, Instruction::Xsha1, Instruction::Xsha256, Instruction::Montmul]
        .map(|kind| emulator.served(kind));
    let device = support::device();
    assert_eq!(device.desc().caps.esp.len(), 12);
    drop(device);
    let after = [Instruction::Xstore, Instruction::Xsha1, Instruction::Xsha256, Instruction::Montmul]
        .map(|kind| emulator.served(kind));
    assert!(before.iter().zip(&after).skip(1).all(|(before, after)| after > before), "{before:?} {after:?}");
}
