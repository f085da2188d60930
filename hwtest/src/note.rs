//! What a check did not do, and why: nothing is skipped silently.

use std::cell::RefCell;

thread_local! {
    static SKIPPED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Says loudly that something is not checked. Whoever runs the check collects it with [`take`].
pub fn skip(why: impl Into<String>) {
    let why = why.into();
    eprintln!("SKIPPED: {why}");
    SKIPPED.with_borrow_mut(|all| {
        if !all.contains(&why) {
            all.push(why);
        }
    });
}

/// What was skipped on this thread since the last call.
pub fn take() -> Vec<String> {
    SKIPPED.take()
}
