//! Devices by file: what the gateway's user is given to open them with. A card's file belongs to root when the kernel or an
//! emulator makes it, and it is made anew whenever the card comes back; so it is looked at now and then, as long as the gateway
//! runs. Nothing is lent that the configuration does not name.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Gid, Uid, chownat};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::users::User;
use crate::config::Settings;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// When to look.
pub(super) fn looks() -> Interval {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}

/// What is lent to whom.
pub(super) struct Lender {
    files: Vec<PathBuf>,
    user: Option<User>,
}

impl Lender {
    /// Of the cards in these settings.
    pub(super) fn new(settings: &Settings, user: Option<User>) -> Lender {
        let cards = settings.accel.iter().filter(|accel| accel.driver == "qat");
        let files = cards.filter_map(|card| match (card.path("socket"), card.text("device")) {
            (Some(socket), _) => Some(socket.to_owned()),
            (None, Some(address)) => group_file(Path::new("/sys/bus/pci/devices"), address),
            (None, None) => None,
        });
        Lender { files: files.collect(), user }
    }

    /// Whether there is nothing to look at.
    pub(super) fn is_idle(&self) -> bool {
        self.user.is_none() || self.files.is_empty()
    }

    /// Lends what is there and is not lent yet.
    pub(super) fn lend(&self) {
        let Some(user) = &self.user else { return };
        for file in &self.files {
            // A link is not followed: what it leads to is not what the configuration names.
            let Ok(there) = file.symlink_metadata() else { continue };
            let kind = there.file_type();
            if there.uid() == user.uid || !(kind.is_socket() || kind.is_char_device()) {
                continue;
            }
            let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
            match chownat(CWD, file, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(()) => tracing::info!(file = %file.display(), "a card's file was lent to tussock-gateway"),
                Err(error) => tracing::warn!(file = %file.display(), %error, "a card's file cannot be lent"),
            }
        }
    }
}

/// VFIO's file of the group that a PCI function is in.
fn group_file(devices: &Path, address: &str) -> Option<PathBuf> {
    let group = std::fs::read_link(devices.join(address).join("iommu_group")).ok()?;
    Some(Path::new("/dev/vfio").join(group.file_name()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_reached_by_its_groups_file() {
        let dir = std::env::temp_dir().join(format!("tussock-lend-{}", std::process::id()));
        let function = dir.join("0000:6b:00.1");
        std::fs::create_dir_all(&function).unwrap();
        assert_eq!(group_file(&dir, "0000:6b:00.1"), None);
        std::os::unix::fs::symlink("../../../kernel/iommu_groups/17", function.join("iommu_group")).unwrap();
        assert_eq!(group_file(&dir, "0000:6b:00.1"), Some("/dev/vfio/17".into()));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn nothing_but_sockets_and_devices_is_lent() {
        let dir = std::env::temp_dir().join(format!("tussock-lend-file-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (file, link) = (dir.join("file"), dir.join("link"));
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        let owners = || [&file, &link].map(|path| path.symlink_metadata().unwrap().uid());
        let before = owners();
        let user = User { uid: 0x7473_6701, gid: 0x7473_6701, groups: Vec::new() };
        Lender { files: vec![file.clone(), link.clone(), dir.join("none")], user: Some(user) }.lend();
        assert_eq!(owners(), before);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
