//! What sections for one driver may hold.

use std::path::PathBuf;

use super::Accel;
use serde::{Deserialize, Serialize};

/// What is wrong: at which key, and what.
pub type Wrong = (Option<&'static str>, String);

/// One driver, as the configuration knows it.
pub struct Kind {
    /// As in `driver = "…"`; also the name of the feature it is built with.
    pub driver: &'static str,
    /// Whether this build has it.
    pub built: bool,
    /// The keys its sections may hold, `driver` aside.
    pub keys: &'static [(&'static str, Form)],
    /// Whether a section makes sense by itself. Gives where the device is: for people, and no two sections may have the same.
    pub check: fn(&Accel) -> Result<String, Wrong>,
}

impl Kind {
    /// What a key holds, if there is such a key.
    pub fn form(&self, key: &str) -> Option<Form> {
        self.keys.iter().find(|(name, _)| *name == key).map(|(_, form)| *form)
    }
}

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A word.
    Text,
    /// A path; relative ones begin at the folder of the file.
    Path,
    /// The same, of something that should be there already.
    File,
    /// Yes or no.
    Flag,
    /// A whole number from 0.
    Number,
}

impl Form {
    /// What is expected, for messages.
    pub fn expected(self) -> &'static str {
        match self {
            Form::Text => "a string",
            Form::Path | Form::File => "a path, as a string",
            Form::Flag => "true or false",
            Form::Number => "a whole number, not negative",
        }
    }
}

/// What a key was given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// [`Form::Text`]
    Text(String),
    /// [`Form::Path`] and [`Form::File`], absolute.
    Path(PathBuf),
    /// [`Form::Flag`]
    Flag(bool),
    /// [`Form::Number`]
    Number(u64),
}
