//! The software backend keeps the contract.
hwtest::suite!(soft::Soft::default());
