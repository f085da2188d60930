//! `driver = "padlock"`: the PadLock instructions of the processor this runs on.

use super::kind::Wrong;
use super::{Accel, Form, Kind};

pub(crate) const KIND: Kind = Kind {
    driver: "padlock",
    built: cfg!(feature = "padlock"),
    // `montmul`: whether key exchange by REP MONTMUL is offered; `emulated`: whether the emulator does it all, not the processor.
    keys: &[("montmul", Form::Flag), ("emulated", Form::Flag)],
    check,
};

fn check(section: &Accel) -> Result<String, Wrong> {
    let emulated = section.flag("emulated").unwrap_or(false);
    if emulated && !cfg!(feature = "padlock-emulated") {
        let what = "emulated = true is for tests: this build is without the feature `padlock-emulated`";
        return Err((Some("emulated"), what.into()));
    }
    Ok(if emulated { "the emulator in this process" } else { "this processor" }.into())
}

/// The driver of the section that is for it; there is one processor, so there are not two.
#[cfg(feature = "padlock")]
pub(crate) fn driver(sections: &[Accel]) -> Option<padlock::Padlock> {
    let section = sections.iter().find(|section| section.driver == KIND.driver)?;
    let mut config = padlock::Config::new(&section.name);
    config.montmul = section.flag("montmul").unwrap_or(config.montmul);
    #[cfg(feature = "padlock-emulated")]
    if section.flag("emulated") == Some(true) {
        config = config.on_emulator();
    }
    Some(padlock::Padlock::new(config))
}

#[cfg(test)]
#[cfg(feature = "padlock")]
mod tests {
    use super::super::{Value, check};
    use super::*;

    fn section() -> Accel {
        Accel::new("via").of("padlock")
    }

    #[test]
    fn a_section_needs_nothing_and_there_is_one_processor() {
        assert_eq!(check(&[section()]), Ok(()));
        assert_eq!(section().place(), "this processor");
        let twice = check(&[section(), Accel { name: "via2".into(), ..section() }]).unwrap_err();
        assert_eq!(twice.to_string(), "accel.via2: another section has the same device");
        assert!(driver(&[]).is_none() && driver(&[Accel::new("a")]).is_none());
    }

    #[cfg(not(feature = "padlock-emulated"))]
    #[test]
    fn a_build_for_production_takes_no_emulator() {
        let error = check(&[section().with("emulated", Value::Flag(true))]).unwrap_err();
        assert_eq!(error.key, Some("emulated"));
        assert!(error.to_string().contains("without the feature `padlock-emulated`"), "{error}");
    }

    #[cfg(feature = "padlock-emulated")]
    #[test]
    fn without_an_emulator_in_the_process_that_is_what_is_said() {
        let sections = [section().with("emulated", Value::Flag(true))];
        assert_eq!(check(&sections), Ok(()));
        let driver = driver(&sections).unwrap();
        let desc = spi::Driver::probe(&driver).remove(0);
        assert!(spi::Driver::open(&driver, &desc).is_err());
        let why = spi::Driver::unusable(&driver).remove(0).why;
        assert!(why.contains("no emulator"), "{why}");
    }

    /// What is to be seen on most machines.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_processor_without_padlock_says_which_leaf_is_missing() {
        let driver = driver(&[section()]).unwrap();
        let desc = spi::Driver::probe(&driver).remove(0);
        if !desc.caps.esp.is_empty() {
            eprintln!("SKIPPED: this processor has PadLock");
            return;
        }
        assert!(spi::Driver::open(&driver, &desc).is_err());
        let unusable = spi::Driver::unusable(&driver).remove(0);
        assert_eq!(unusable.id, "via");
        assert!(unusable.why.contains("has no PadLock: CPUID leaf"), "{}", unusable.why);
    }
}
