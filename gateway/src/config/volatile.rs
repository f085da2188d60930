//! Whether a folder is still there after the next boot.

use std::path::Path;

/// Numbers of file systems in memory, as statfs(2) has them.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// Whether what is written there is gone after the next boot: it is under `/run`, or its file system is in memory. Of a folder that is
/// not there yet, the next one above it tells.
pub(crate) fn is_volatile(folder: &Path) -> bool {
    if ["/run", "/var/run"].iter().any(|run| folder.starts_with(run)) {
        return true;
    }
    let there = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    let kind = there.ancestors().find_map(|folder| rustix::fs::statfs(folder).ok());
    kind.is_some_and(|kind| IN_MEMORY.contains(&(kind.f_type as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_in_memory_are_told_from_those_on_a_disk() {
        for (folder, volatile) in [
            ("/run/tussock", true),
            ("/var/run/tussock/deeper", true),
            ("/proc/self", false),
            ("/runner/of/the/lab", false),
            (env!("CARGO_MANIFEST_DIR"), false),
        ] {
            assert_eq!(is_volatile(Path::new(folder)), volatile, "{folder}");
        }
        let memory = Path::new("/dev/shm");
        let is = rustix::fs::statfs(memory).is_ok_and(|kind| kind.f_type as u64 == IN_MEMORY[0]);
        assert_eq!(is_volatile(&memory.join("tussock/not/yet/there")), is);
    }
}
