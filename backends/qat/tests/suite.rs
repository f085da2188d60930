//! The driver keeps the contract, over emulated cards of both generations.
#![allow(clippy::unwrap_used)]

mod support;

mod generation_4 {
    hwtest::suite!(super::support::Emulated::new(emu_qat::Personality::Vf4941));
}

mod generation_2 {
    hwtest::suite!(super::support::Emulated::new(emu_qat::Personality::Vf37c9));
}

mod generation_4_over_a_socket {
    hwtest::suite_at_once!(super::support::Emulated::over_socket(emu_qat::Personality::Vf4941));
}

mod polled {
    fn driver() -> super::support::Emulated {
        let mut driver = super::support::Emulated::new(emu_qat::Personality::Vf4941);
        driver.config.interrupts = false;
        driver
    }

    hwtest::suite_at_once!(driver());
}

#[test]
fn relatives_of_generation_4_are_driven_by_the_same_table() {
    use emu_qat::Personality::{Vf4943, Vf4945, Vf4947};
    for personality in [Vf4943, Vf4945, Vf4947] {
        let driver = support::Emulated::new(personality);
        hwtest::contract::every_job_comes_back_exactly_once(&driver);
    }
}
