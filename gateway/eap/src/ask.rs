//! Where a peer's method gets the password from.

use spi::Secret;

use crate::config::{Answer, Password, PeerConfig};

/// A password, perhaps.
pub(crate) enum Given {
    /// Here.
    Now(Secret),
    /// When somebody has typed it.
    Later,
    /// Why there is none.
    Never(String),
}

/// The password for our identity. `question` is the server's own.
pub(crate) fn given(config: &PeerConfig, question: Option<&str>) -> Given {
    match &config.password {
        Password::None => Given::Never("there is no password to give".into()),
        Password::Known(password) => Given::Now(password.duplicate()),
        Password::Ask(prompt) => match prompt.ask(&config.identity, question) {
            Answer::Pending => Given::Later,
            Answer::Given(password) => Given::Now(password),
            Answer::Refused => Given::Never("nobody gave the password".into()),
        },
    }
}
