//! One gateway for each state folder: a lock that the kernel drops with the process, however it ends.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};

/// How long a process that was killed may take to be gone.
const DYING: Duration = Duration::from_millis(500);

/// Held as long as the gateway runs.
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Makes the folder if need be and takes the lock.
    ///
    /// # Errors
    /// Another gateway has it; the message says which process.
    pub fn take(dir: &Path) -> anyhow::Result<Lock> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(dir);
        made.with_context(|| format!("cannot make the state folder {}", dir.display()))?;
        let path = dir.join("lock");
        let mut open = OpenOptions::new();
        open.create(true).truncate(false).read(true).write(true).mode(0o600);
        // In a folder that others may write to, a link would have us empty another file.
        open.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
        let mut file = open.open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let until = Instant::now() + DYING;
        let mut taken = flock(&file, FlockOperation::NonBlockingLockExclusive);
        while taken == Err(rustix::io::Errno::WOULDBLOCK) && Instant::now() < until {
            std::thread::sleep(DYING / 20);
            taken = flock(&file, FlockOperation::NonBlockingLockExclusive);
        }
        match taken {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                let _ = (&mut file).take(32).read_to_string(&mut pid);
                bail!("already running with state in {}, pid {}", dir.display(), pid.trim());
            }
            Err(error) => return Err(io::Error::from(error)).context("cannot lock the state folder"),
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Lock { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_the_place_of_the_lock_is_not_followed() {
        let dir = std::env::temp_dir().join(format!("tussock-lock-link-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let other = dir.join("precious");
        fs::write(&other, "still here").unwrap();
        std::os::unix::fs::symlink(&other, dir.join("lock")).unwrap();
        assert!(Lock::take(&dir).is_err());
        assert_eq!(fs::read(&other).unwrap(), b"still here");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_second_gateway_is_told_who_has_the_folder() {
        let dir = std::env::temp_dir().join(format!("tussock-lock-{}", std::process::id()));
        let first = Lock::take(&dir).unwrap();
        let error = Lock::take(&dir).err().unwrap().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        drop(first);
        assert!(Lock::take(&dir).is_ok(), "a lock without a process is nobody's");
        fs::remove_dir_all(&dir).unwrap();
    }
}
