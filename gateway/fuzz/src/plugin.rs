//! The loader of plug-ins: the octets are what a plug-in says, of itself, of its devices, and of every job. It never crashes us, and no
//! job comes back twice, undecided, or with a result outside its buffer.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};

use cabi::raw::{self, Library};
use spi::{
    Closed, CryptoDone, CryptoJob, CryptoOp, Direction, Driver, EspBurst, EspOp, Group, Outcome, Pool,
    QueueConfig, SaParams, Secret, Token,
};

/// What the plug-in does, as far as it is written; honest afterwards.
#[derive(Default)]
struct Script {
    octets: VecDeque<u8>,
    driver: Option<Box<raw::Driver>>,
    transforms: Vec<raw::Transform>,
    groups: Vec<u16>,
    handles: u32,
    /// What is out; and what was given back already, of which nothing may be written any more.
    bursts: Vec<(raw::Burst, bool)>,
    ops: Vec<raw::Op>,
    sas: Vec<(u32, u32)>,
}

impl Script {
    /// The next octet; 0, which is honest, when there is none.
    fn next(&mut self) -> u8 {
        self.octets.pop_front().unwrap_or(0)
    }

    fn word(&mut self) -> u32 {
        u32::from_le_bytes(std::array::from_fn(|_| self.next()))
    }
}

thread_local! {
    static SCRIPT: RefCell<Script> = RefCell::default();
}

fn script<T>(run: impl FnOnce(&mut Script) -> T) -> T {
    SCRIPT.with_borrow_mut(run)
}

const SOMETHING: raw::Opaque = std::ptr::without_provenance_mut(8);

unsafe extern "C" fn entry(abi: u32) -> *const raw::Driver {
    script(|script| {
        if script.next() == 1 {
            return std::ptr::null();
        }
        let odd = script.next();
        let missing = if odd & 1 != 0 { script.next() } else { 0 };
        let there = |bit: u8| missing & 1 << bit == 0;
        let driver = raw::Driver {
            size: if odd & 2 != 0 { script.word() % 512 } else { size_of::<raw::Driver>() as u32 },
            abi: if odd & 4 != 0 { script.word() } else { abi },
            name: if odd & 8 != 0 { std::ptr::null() } else { c"fuzz".as_ptr() },
            version: c"1".as_ptr(),
            probe: there(0).then_some(probe),
            device_open: Some(device_open),
            device_close: Some(device_close),
            device_health: there(1).then_some(device_health),
            memory_add: None,
            sa_install: there(2).then_some(sa_install),
            sa_remove: Some(sa_remove),
            queue_open: there(3).then_some(queue_open),
            queue_room: Some(queue_room),
            burst_submit: there(4).then_some(burst_submit),
            burst_poll: Some(burst_poll),
            op_submit: there(5).then_some(op_submit),
            op_poll: there(6).then_some(op_poll),
            queue_stop: Some(queue_stop),
            queue_close: there(7).then_some(queue_close),
        };
        &raw const **script.driver.insert(Box::new(driver))
    })
}

unsafe extern "C" fn probe(index: u32, info: *mut raw::Info) -> u32 {
    script(|script| {
        // Two devices at most, unless the script goes on and on.
        if index > 0 && script.next() != 7 {
            return 0;
        }
        let odd = script.next();
        script.transforms = vec![raw::Transform { encr: 28, key_bits: 0, integ: 0, esn: 1 }; 1024];
        script.groups = vec![31; 1024];
        if odd & 1 != 0 {
            let place = usize::from(script.next()) % 3;
            script.transforms[place] = raw::Transform {
                encr: script.word() as u16 % 40,
                key_bits: script.word() as u16 % 300,
                integ: script.word() as u16 % 20,
                esn: script.next().into(),
            };
            script.groups[place] = script.word() as u16 % 50;
        }
        let count = |script: &mut Script| if odd & 2 != 0 { script.word() } else { 1 };
        let (transform_count, group_count) = (count(script), count(script));
        let mut name = [0; 32];
        name[..5].copy_from_slice(b"fuzz\0");
        name[4] = b'0' + index as u8 % 10;
        if odd & 4 != 0 {
            name.fill_with(|| script.next());
        }
        let number = |script: &mut Script, honest: u32| if odd & 8 != 0 { script.word() } else { honest };
        let said = raw::Info {
            size: size_of::<raw::Info>() as u32,
            traits: number(script, 1),
            name,
            numa_node: number(script, 0) as i32,
            ring: number(script, 8),
            max_sas: number(script, 8),
            max_len: number(script, 2000),
            transform_count,
            group_count,
            has_random: number(script, 1),
            transforms: if odd & 16 != 0 { std::ptr::null() } else { script.transforms.as_ptr() },
            groups: if odd & 32 != 0 { std::ptr::null() } else { script.groups.as_ptr() },
        };
        // SAFETY: the host's structure. Its lists are as long as the host reads at most.
        unsafe { info.write(said) };
        1
    })
}

unsafe extern "C" fn device_open(_: u32, _: *const raw::Host) -> raw::Opaque {
    script(|script| if script.next() == 1 { std::ptr::null_mut() } else { SOMETHING })
}

unsafe extern "C" fn device_close(_: raw::Opaque) {}

unsafe extern "C" fn device_health(_: raw::Opaque) -> u32 {
    raw::READY
}

unsafe extern "C" fn sa_install(_: raw::Opaque, sa: *const raw::Sa, handle: *mut u32) -> u32 {
    script(|script| {
        let odd = script.next();
        script.handles += 1;
        let given = if odd & 1 != 0 { script.handles % 3 } else { 1000 + script.handles };
        // SAFETY: the host's structure and place.
        let spi = unsafe {
            handle.write(given);
            (*sa).spi
        };
        script.sas.push((given, spi));
        if odd & 2 != 0 { script.word() } else { raw::DONE }
    })
}

unsafe extern "C" fn sa_remove(_: raw::Opaque, _: u32) {}

unsafe extern "C" fn queue_open(_: raw::Opaque, _: u32, _: u32, _: u64) -> raw::Opaque {
    script(|script| if script.next() == 1 { std::ptr::null_mut() } else { SOMETHING })
}

unsafe extern "C" fn queue_room(_: raw::Opaque) -> u32 {
    8
}

unsafe extern "C" fn burst_submit(_: raw::Opaque, bursts: *const raw::Burst, count: u32) -> u32 {
    script(|script| {
        let took = if script.next() & 1 != 0 { script.next().into() } else { count };
        for n in 0..took.min(count) as usize {
            // SAFETY: so many were given.
            script.bursts.push((unsafe { bursts.add(n).read() }, true));
        }
        took
    })
}

unsafe extern "C" fn burst_poll(_: raw::Opaque, done: *mut raw::BurstDone, room: u32) -> u32 {
    script(|script| {
        let mut gave = 0;
        while gave < room && !script.bursts.is_empty() {
            let (burst, is_out) = script.bursts.swap_remove(0);
            let odd = script.next();
            if odd & 0x80 != 0 {
                // Later, perhaps.
                script.bursts.push((burst, is_out));
                break;
            }
            if is_out {
                // SAFETY: the burst is out, so its packets and its buffer are this plug-in's to write.
                unsafe { answer(script, &burst, odd) };
            }
            let mut said = raw::BurstDone { token: burst.token, sa: burst.sa, count: burst.count };
            match odd >> 4 & 7 {
                1 => said.token ^= 1 << (script.next() % 64),
                2 => said.sa = said.sa.wrapping_add(script.next().into()),
                3 => said.count = said.count.wrapping_add(script.next().into()),
                4 => script.bursts.push((burst, false)),
                _ => {}
            }
            // SAFETY: there is room for so many.
            unsafe { done.add(gave as usize).write(said) };
            gave += 1;
        }
        // Fewer than were given would be jobs that never come, and five seconds of waiting for them.
        if script.next() == 0xee { room + 1 + u32::from(script.next()) } else { gave }
    })
}

/// Answers the packets of a burst, honestly but for what `odd` says.
///
/// # Safety
/// The burst is out.
unsafe fn answer(script: &mut Script, burst: &raw::Burst, odd: u8) {
    let spi = script.sas.iter().rev().find(|(handle, _)| *handle == burst.sa).map_or(0, |(_, spi)| *spi);
    for n in 0..burst.count as usize {
        // SAFETY: the caller's.
        let packet = unsafe { &mut *burst.packets.add(n) };
        packet.status = raw::DONE as u16;
        if burst.dir == u32::from(raw::SEAL) {
            let header =
                [&spi.to_be_bytes()[..], &(packet.seq as u32).to_be_bytes(), &packet.seq.to_be_bytes()]
                    .concat();
            // SAFETY: the host has seen to it that the packet fits the buffer.
            unsafe { burst.buf.add(packet.at as usize).copy_from(header.as_ptr(), header.len()) };
            packet.len += 32;
        } else {
            packet.len -= 32;
        }
        match odd & 15 {
            1 => packet.status = script.word() as u16 % 12,
            2 => packet.len = script.word() as u16,
            3 => packet.at = script.word(),
            // SAFETY: as above.
            4 => unsafe { *burst.buf.add(packet.at as usize + usize::from(script.next() % 16)) ^= 1 },
            _ => {}
        }
    }
}

unsafe extern "C" fn op_submit(_: raw::Opaque, ops: *const raw::Op, count: u32) -> u32 {
    script(|script| {
        let took = if script.next() & 1 != 0 { script.next().into() } else { count };
        for n in 0..took.min(count) as usize {
            // SAFETY: so many were given.
            script.ops.push(unsafe { ops.add(n).read() });
        }
        took
    })
}

unsafe extern "C" fn op_poll(_: raw::Opaque, done: *mut raw::OpDone, room: u32) -> u32 {
    script(|script| {
        let mut gave = 0;
        while gave < room && !script.ops.is_empty() {
            let op = script.ops.remove(0);
            let mut said = raw::OpDone {
                token: op.token,
                status: raw::DONE,
                secret_len: 32,
                out_len: op.out_len,
                zero: 0,
            };
            match script.next() & 7 {
                1 => said.token = script.word().into(),
                2 => said.status = script.word() % 12,
                3 => said.secret_len = script.word(),
                4 => said.out_len = script.word(),
                _ => {}
            }
            // SAFETY: there is room for so many.
            unsafe { done.add(gave as usize).write(said) };
            gave += 1;
        }
        gave
    })
}

unsafe extern "C" fn queue_stop(_: raw::Opaque) {}

unsafe extern "C" fn queue_close(_: raw::Opaque) {}

/// The target.
pub fn plugin(data: &[u8]) {
    let (steps, says) = data.split_at(data.len().min(24));
    SCRIPT.set(Script { octets: says.iter().copied().collect(), ..Script::default() });
    // SAFETY: every function here keeps to the types of accel.h.
    let library = unsafe { Library::of(entry) };
    let Ok(plugin) = cabi::Plugin::of(library) else { return };
    for desc in plugin.probe().into_iter().take(2) {
        if let Ok(device) = plugin.open(&desc) {
            drive(&*device, steps);
        }
        // The script goes on being honest, so whatever was left out came back.
        script(|script| (script.bursts.clear(), script.ops.clear(), script.octets.clear()));
    }
}

fn drive(device: &dyn spi::Device, steps: &[u8]) {
    let config = QueueConfig { depth: 8, cpu: None };
    let Ok(pool) = Pool::new(512, 16) else { return };
    let mut packets = device.esp_queue(config);
    let mut operations = device.crypto_queue(config);
    let mut sas = Vec::new();
    let (mut next, mut back) = (1, HashSet::new());
    let (mut bursts, mut ops): (VecDeque<EspBurst>, VecDeque<CryptoJob>) = Default::default();
    for step in steps {
        let dir = if step & 16 == 0 { Direction::Seal } else { Direction::Open };
        match step % 8 {
            0 => sas.extend(device.desc().caps.esp.first().and_then(|cap| {
                let (encr, integ) = (cap.encr.info()?, cap.integ.info()?);
                let sa = SaParams {
                    spi: 0x1000 + next as u32,
                    dir,
                    encr: cap.encr,
                    integ: cap.integ,
                    encr_key: Secret::new(vec![1; encr.key_len + encr.salt_len]),
                    integ_key: Secret::new(vec![2; integ.key_len]),
                    esn: false,
                };
                device.install_sa(&sa).ok()
            })),
            1 | 2 => {
                if let (Some(sa), Some(mut buf)) = (sas.last(), pool.take()) {
                    for place in 0..u32::from(step >> 5) {
                        let _ = buf.push_op(EspOp::new(place * 64, u16::from(step & 31) * 4, next));
                    }
                    bursts.push_back(EspBurst { token: Token(next), sa: *sa, dir, buf });
                    next += 1;
                }
            }
            3 => {
                let op = match step & 16 {
                    0 => CryptoOp::DhGenerate { group: Group::X25519 },
                    _ => CryptoOp::Random { len: 40 },
                };
                ops.push_back(CryptoJob { token: Token(next), op });
                next += 1;
            }
            4 => device.begin_reset(),
            5 => sas.pop().into_iter().for_each(|sa| device.remove_sa(sa)),
            6 => packets = device.esp_queue(config),
            _ => {}
        }
        let failed = device.health() == spi::Health::Failed;
        if let Some(queue) = &mut packets {
            let submitted = queue.submit(&mut bursts);
            assert!(!failed || submitted == Err(Closed), "a plug-in that was shut out is given work");
            queue.poll(3, &mut |done: EspBurst| {
                assert!(back.insert(done.token), "a burst came back twice");
                for op in done.buf.ops() {
                    assert_ne!(op.outcome, Outcome::Pending, "an operation came back undecided");
                    let end = op.at as usize + usize::from(op.len);
                    assert!(
                        op.outcome != Outcome::Done || end <= done.buf.capacity(),
                        "a result outside its buffer"
                    );
                }
            });
        }
        if let Some(queue) = &mut operations {
            let _ = queue.submit(&mut ops);
            queue.poll(3, &mut |done: CryptoDone| {
                assert!(back.insert(done.token), "an operation came back twice");
                assert_ne!(done.outcome, Outcome::Pending);
            });
        }
    }
}
