//! Memory that stays out of the swap. Where there is no limit all of a process is locked. Where there is one, memory would run out at it
//! if all that comes were locked: then the heap is, in which secrets are, as far as the limit goes.

use std::ops::Range;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, getrlimit};

use super::sys;

/// Longest piece of the heap that is locked, octets.
const MOST: u64 = 32 << 20;

/// Variables for a process that is to lock its heap: glibc gives it one heap, whole from the start, that is cut for every purpose.
/// Other libraries know nothing of them.
pub(crate) fn one_heap() -> Vec<(&'static str, String)> {
    let Some(share) = share() else { return Vec::new() };
    let large = MOST.to_string();
    vec![
        ("MALLOC_ARENA_MAX", "1".to_owned()),
        ("MALLOC_TOP_PAD_", share.to_string()),
        ("MALLOC_MMAP_THRESHOLD_", large.clone()),
        ("MALLOC_TRIM_THRESHOLD_", large),
    ]
}

/// Has memory stay out of the swap, whatever is in it. Returns what could not be had.
pub(crate) fn keep_in_memory() -> Option<String> {
    let Some(share) = share() else {
        let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
        let all = mlockall(flags);
        return all
            .err()
            .map(|error| format!("secrets may be swapped out: memory cannot be locked: {error}"));
    };
    let advice = "LimitMEMLOCK=infinity locks all of it";
    let locked = heap().map(|heap| heap.start..heap.end.min(heap.start + share as usize));
    Some(match locked.and_then(|range| sys::lock(&range).map(|()| range)) {
        Ok(range) => format!("of the memory only {} kB of heap are locked; {advice}", range.len() >> 10),
        Err(error) => format!("secrets may be swapped out: memory cannot be locked: {error}; {advice}"),
    })
}

/// How much of the heap to lock; `None` where there is no limit. Libraries of others lock pages, too.
fn share() -> Option<u64> {
    getrlimit(Resource::Memlock).current.map(|limit| (limit / 4 * 3).min(MOST))
}

/// Where this process has its heap.
fn heap() -> std::io::Result<Range<usize>> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    heap_in(&maps).ok_or_else(|| std::io::Error::other("there is no heap"))
}

fn heap_in(maps: &str) -> Option<Range<usize>> {
    let line = maps.lines().find(|line| line.ends_with("[heap]"))?;
    let (from, to) = line.split_whitespace().next()?.split_once('-')?;
    Some(usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heap_is_found_among_others() {
        let maps = "55d0c000-55d0e000 rw-p 00000000 00:00 0 \n\
                    565c1000-565e2000 rw-p 00000000 00:00 0                          [heap]\n\
                    7ffe0000-7ffe2000 rw-p 00000000 00:00 0                          [stack]\n";
        assert_eq!(heap_in(maps), Some(0x565c_1000..0x565e_2000));
        assert_eq!(heap_in("7ffe0000-7ffe2000 rw-p 00000000 00:00 0 [stack]\n"), None);
    }
}
