//! What takes privilege to open: sockets with reserved ports, raw ones, marks; the files of the key log. A process opens them
//! first and gives its privilege up then.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::config::Settings;
use crate::io::clear::Clear;
use crate::io::outside::{OpenError, Outside};
use crate::io::system;
use crate::keylog::KeyLog;

/// How long a port may still be in use: a gateway that was killed takes a moment to be gone with all its processes.
const PATIENCE: Duration = Duration::from_secs(2);

/// All of it, open.
pub struct Doors {
    pub(super) outside: Outside,
    /// For each lane.
    pub(super) clear: Vec<Clear>,
    pub(super) keylog: Option<KeyLog>,
}

impl Doors {
    /// Opens what these settings ask for, and says what could not be had and is not needed.
    ///
    /// # Errors
    /// What is needed and could not be had.
    pub fn open(settings: &Settings) -> anyhow::Result<(Doors, Vec<String>)> {
        let (outside, mut warnings) = outside(settings)?;
        if outside.ike.all().is_empty() {
            bail!("there is no address to listen on");
        }
        let keylog = match &settings.keylog {
            Some(dir) => {
                warnings.push(format!("KEY LOG IS ON: whoever reads {} reads all traffic", dir.display()));
                Some(
                    KeyLog::open(dir)
                        .with_context(|| format!("cannot write the key log in {}", dir.display()))?,
                )
            }
            None => None,
        };
        let lanes = usize::from(settings.workers.max(1));
        let clear = (0..lanes).map(|_| Clear::open(settings.mark)).collect();
        // The worker, each lane, and one more for whoever comes to ask.
        system::prepare_to_ask(settings.mark, lanes + 2);
        Ok((Doors { outside, clear, keylog }, warnings))
    }
}

fn outside(settings: &Settings) -> Result<(Outside, Vec<String>), OpenError> {
    let begin = Instant::now();
    loop {
        match Outside::open(&settings.listen, settings.mark, settings.listen_given, settings.workers) {
            Err(OpenError::InUse(_)) if begin.elapsed() < PATIENCE => sleep(Duration::from_millis(50)),
            result => return result,
        }
    }
}
