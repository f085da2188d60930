use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::{pread, pwrite};

use super::*;

const BOTH: Access = Access { read: true, write: true };

fn memory(len: u64, flags: MemfdFlags) -> OwnedFd {
    let fd = memfd_create("test", flags | MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&fd, len).unwrap();
    fd
}

fn window(iova: u64, len: u64, offset: u64) -> Window {
    Window { iova, len, offset, access: BOTH }
}

fn with(space: &Space, fd: &OwnedFd, w: Window) -> Result<(), MapError> {
    space.map(w, Some(fd.as_fd().try_clone_to_owned().unwrap()))
}

#[test]
fn an_access_may_span_windows_but_not_leave_them() {
    for flags in [MemfdFlags::ALLOW_SEALING, MemfdFlags::empty()] {
        let (space, fd) = (Space::new(), memory(0x4000, flags));
        // Two neighbours on the bus, the other way around in the file.
        with(&space, &fd, window(0x10000, 0x1000, 0x2000)).unwrap();
        with(&space, &fd, window(0x11000, 0x1000, 0x0000)).unwrap();
        space.write(0x10ffe, &[1, 2, 3, 4]).unwrap();
        let mut seen = [0; 2];
        pread(&fd, &mut seen, 0x2ffe).unwrap();
        assert_eq!(seen, [1, 2]);
        pwrite(&fd, &[9], 0).unwrap();
        let mut back = [0; 4];
        space.read(0x10ffe, &mut back).unwrap();
        assert_eq!(back, [1, 2, 9, 4]);
        assert_eq!(space.read(0x11ffe, &mut back), Err(DmaFault::Unmapped(0x12000)));
        assert_eq!(space.read(0xfffe, &mut back), Err(DmaFault::Unmapped(0xfffe)));
        assert_eq!(space.write(u64::MAX, &[0, 0]), Err(DmaFault::OutOfRange));
    }
}

#[test]
fn a_write_that_cannot_be_whole_does_not_begin() {
    let (space, fd) = (Space::new(), memory(0x1000, MemfdFlags::ALLOW_SEALING));
    with(&space, &fd, window(0, 0x1000, 0)).unwrap();
    assert_eq!(space.write(0xffc, &[1; 8]), Err(DmaFault::Unmapped(0x1000)));
    let mut seen = [7; 4];
    space.read(0xffc, &mut seen).unwrap();
    assert_eq!(seen, [0; 4]);
    assert!(space.publish(0xffc, &[1; 8]).is_err());
    space.publish(0xff8, &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    space.read(0xff8, &mut seen).unwrap();
    assert_eq!(seen, [1, 2, 3, 4]);
}

#[test]
fn access_rights_hold() {
    let (space, fd) = (Space::new(), memory(0x2000, MemfdFlags::ALLOW_SEALING));
    let only = |read, write| Access { read, write };
    with(&space, &fd, Window { access: only(true, false), ..window(0, 0x1000, 0) }).unwrap();
    with(&space, &fd, Window { access: only(false, true), ..window(0x1000, 0x1000, 0x1000) }).unwrap();
    assert_eq!(space.write(0, &[1]), Err(DmaFault::Forbidden(0)));
    assert_eq!(space.read(0x1000, &mut [0]), Err(DmaFault::Forbidden(0x1000)));
    space.read(0, &mut [0]).unwrap();
    space.write(0x1000, &[1]).unwrap();
}

#[test]
fn windows_do_not_overlap_and_stay_in_their_file() {
    let (space, fd) = (Space::new(), memory(0x2000, MemfdFlags::ALLOW_SEALING));
    with(&space, &fd, window(0x1000, 0x1000, 0)).unwrap();
    for wrong in [window(0x1fff, 1, 0), window(0, 0x1001, 0), window(0x1000, 0x1000, 0x1000)] {
        assert_eq!(with(&space, &fd, wrong), Err(MapError::Exists));
    }
    for wrong in [
        window(0x8000, 0, 0),
        window(0x8000, 0x2001, 0),
        window(0x8000, 1, 0x2000),
        window(0x8000, 2, u64::MAX),
        window(u64::MAX, 2, 0),
    ] {
        assert_eq!(with(&space, &fd, wrong), Err(MapError::OutOfRange), "{wrong:?}");
    }
    // The last octet of the address space is an address like any other.
    with(&space, &fd, window(u64::MAX - 0xfff, 0x1000, 0)).unwrap();
    space.write(u64::MAX, &[5]).unwrap();
    assert_eq!(space.windows(), 2);
}

#[test]
fn unmapping_takes_whole_windows_in_any_range_up_to_the_end() {
    let (space, fd) = (Space::new(), memory(0x3000, MemfdFlags::ALLOW_SEALING));
    for at in 0..3 {
        with(&space, &fd, window(at * 0x1000, 0x1000, at * 0x1000)).unwrap();
    }
    assert_eq!(space.unmap(0x1800, 0x800), Err(MapError::Cuts));
    assert_eq!(space.unmap(0x800, 0x1800), Err(MapError::Cuts));
    assert_eq!(space.unmap(0x100, 0x10), Err(MapError::Cuts));
    assert_eq!(space.unmap(0, 0), Err(MapError::OutOfRange));
    assert_eq!(space.unmap(0xfef0_0000, 0xffff_ffff_0110_0000), Ok(0), "ends at 2^64");
    assert_eq!(space.unmap(0xfef0_0000, 0xffff_ffff_0110_0001), Err(MapError::OutOfRange));
    assert_eq!(space.unmap(0x1000, 0x1000), Ok(1));
    assert_eq!(space.read(0x1000, &mut [0]), Err(DmaFault::Unmapped(0x1000)));
    assert_eq!(space.unmap(0, u64::MAX), Ok(2));
}

#[test]
fn a_window_without_a_file_is_taken_and_refuses() {
    let space = Space::new();
    space.map(window(0xfffc_0000, 0x40000, 0), None).unwrap();
    assert_eq!(space.read(0xfffc_0000, &mut [0]), Err(DmaFault::Unmapped(0xfffc_0000)));
    assert_eq!(space.map(window(0xfffc_0000, 1, 0), None), Err(MapError::Exists));
}

#[test]
fn a_file_that_becomes_shorter_is_a_fault_and_not_the_end() {
    let (space, fd) = (Space::new(), memory(0x2000, MemfdFlags::empty()));
    with(&space, &fd, window(0, 0x2000, 0)).unwrap();
    space.write(0x1800, &[1]).unwrap();
    ftruncate(&fd, 0x1000).unwrap();
    assert_eq!(space.read(0x1800, &mut [0]), Err(DmaFault::Lost(0x1800)));
    assert_eq!(space.write(0x1800, &[1]), Err(DmaFault::Lost(0x1800)));
    // One that can be sealed is.
    let fd = memory(0x2000, MemfdFlags::ALLOW_SEALING);
    with(&space, &fd, window(0x10000, 0x2000, 0)).unwrap();
    assert!(ftruncate(&fd, 0x1000).is_err());
}

#[test]
fn thousands_of_windows_are_one_mapping() {
    let (space, fd) = (Space::new(), memory(0x1000 * 4096, MemfdFlags::ALLOW_SEALING));
    let mappings = || std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    let before = mappings();
    for page in 0..4096 {
        with(&space, &fd, window(page << 13, 0x1000, page << 12)).unwrap();
    }
    assert!(mappings() < before + 64);
    assert_eq!(space.0.read().unwrap().files.len(), 1);
    space.unmap(0, u64::MAX).unwrap();
    assert!(space.0.read().unwrap().files.is_empty());
}
