//! The driver keeps the contract. Its instructions are executed, and trapped, one by one.
#![allow(clippy::unwrap_used)]

mod support;

mod all_units {
    hwtest::suite!(super::support::driver());
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
