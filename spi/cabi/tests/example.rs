//! The example keeps the contract, whichever compiler has built it.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;
use std::sync::LazyLock;

use cabi::Plugin;

static BY_CC: LazyLock<PathBuf> = LazyLock::new(|| support::example("cc").expect("tests need a C compiler"));

fn by_cc() -> Plugin {
    Plugin::load("example", &BY_CC).unwrap()
}

mod contract {
    hwtest::suite!(super::by_cc(), soft::Soft::default());
}

#[test]
fn built_by_clang_it_keeps_the_contract_too() {
    let Some(library) = support::example("clang") else { return };
    for (name, check) in hwtest::CHECKS {
        eprintln!("{name}");
        check(&Plugin::load("example", &library).unwrap());
    }
}
