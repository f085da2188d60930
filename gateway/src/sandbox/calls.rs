//! seccomp: which system calls a process may still make.
//!
//! Three filters one behind the other, the strictest answer counting. What no program of ours or of a library we load has any
//! business with ends the process. What is not on the list gets "not permitted", as on a machine where it is not allowed, so that
//! a library that tries something new fails at that and not altogether. `clone3`, whose arguments no filter can see, is said not
//! to exist; libraries use `clone` then, which may make threads and nothing else.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use anyhow::Context;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter, apply_filter_all_threads,
};

use super::{Needs, Side};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Nobody of ours asks for these: whoever does is not one of ours any more.
const DEADLY: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_bpf,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_open_by_handle_at,
    libc::SYS_acct,
];

/// Memory, time, threads, and what is open already: for every thread.
const ALWAYS: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_munlock,
    libc::SYS_mincore,
    libc::SYS_msync,
    libc::SYS_brk,
    libc::SYS_membarrier,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_restart_syscall,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrandom,
    libc::SYS_getcpu,
    libc::SYS_getrusage,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    // A thread may be shut in further.
    libc::SYS_seccomp,
];

/// The older names of some of them.
#[cfg(target_arch = "x86_64")]
const ALWAYS_OLD: &[i64] = &[
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_dup2,
    libc::SYS_time,
    libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const ALWAYS_OLD: &[i64] = &[];

/// Files, sockets and what libraries look at: not for lanes.
const OUTSIDE_LANES: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_close_range,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_statfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_flock,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_mkdirat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_umask,
    libc::SYS_utimensat,
    libc::SYS_pipe2,
    libc::SYS_memfd_create,
    libc::SYS_accept4,
    libc::SYS_listen,
    libc::SYS_bind,
    libc::SYS_socketpair,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_prlimit64,
    libc::SYS_getpgid,
    libc::SYS_getsid,
    libc::SYS_getgroups,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_capget,
    libc::SYS_set_tid_address,
    libc::SYS_clone3,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_getpriority,
];
#[cfg(target_arch = "x86_64")]
const OUTSIDE_LANES_OLD: &[i64] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_getdents,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_pipe,
    libc::SYS_epoll_create,
    libc::SYS_eventfd,
    libc::SYS_getrlimit,
];
#[cfg(not(target_arch = "x86_64"))]
const OUTSIDE_LANES_OLD: &[i64] = &[];

/// What DPDK does with memory besides.
const DPDK: &[i64] = &[
    libc::SYS_mbind,
    libc::SYS_get_mempolicy,
    libc::SYS_set_mempolicy,
    libc::SYS_move_pages,
    libc::SYS_munlockall,
    libc::SYS_mlockall,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmdt,
    libc::SYS_shmctl,
    libc::SYS_sched_setscheduler,
];

/// What an emulator in this process does with its memory and its threads. Without one, nobody of ours asks for these.
const EMULATOR: &[i64] =
    &[libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_rt_tgsigqueueinfo];

/// Shuts the whole process in.
pub(super) fn shut_in(side: Side, needs: &Needs) -> anyhow::Result<()> {
    let mut rules = allow(ALWAYS.iter().chain(ALWAYS_OLD).chain(OUTSIDE_LANES).chain(OUTSIDE_LANES_OLD));
    rules.insert(libc::SYS_socket, sockets(side)?);
    rules.insert(libc::SYS_clone, vec![threads_only()?]);
    rules.insert(libc::SYS_ioctl, vec![no_typing()?]);
    rules.insert(libc::SYS_prctl, harmless_prctl()?);
    if needs.dpdk {
        rules.extend(allow(DPDK));
    }
    if side == Side::Keys {
        // What is mapped later is to stay in memory, too.
        rules.extend(allow(&[libc::SYS_mlockall]));
    }
    let mut deadly = allow(DEADLY);
    if needs.traps {
        let own = u64::from(std::process::id());
        for call in EMULATOR {
            // With this process, and no other.
            rules.insert(*call, vec![SeccompRule::new(vec![is(0, own)?])?]);
            deadly.remove(call);
        }
    }
    let absent = allow(&[libc::SYS_clone3]);
    let denied = SeccompAction::Errno(libc::EPERM as u32);
    apply(&compile(rules, denied, SeccompAction::Allow)?, true)?;
    apply(&compile(absent, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))?, true)?;
    apply(&compile(deadly, SeccompAction::Allow, SeccompAction::KillProcess)?, true)
}

/// Shuts the calling thread in further, which moves packets and does nothing else: no files, no sockets, no threads.
pub(crate) fn tighten_lane() -> anyhow::Result<()> {
    let mut rules = allow(ALWAYS.iter().chain(ALWAYS_OLD));
    rules.insert(libc::SYS_prctl, harmless_prctl()?);
    apply(&compile(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)?, false)
}

fn allow<'a>(calls: impl IntoIterator<Item = &'a i64>) -> Rules {
    calls.into_iter().map(|call| (*call, Vec::new())).collect()
}

/// Sockets of the kinds that are asked with after the start. The network side has those it talks with.
fn sockets(side: Side) -> anyhow::Result<Vec<SeccompRule>> {
    let domain = |domain: i32| is(0, domain as u64);
    let kind = |kind: i32| masked(1, 0xf, kind as u64);
    let mut rules = vec![
        SeccompRule::new(vec![domain(libc::AF_UNIX)?])?,
        // `getifaddrs`, and routing.
        SeccompRule::new(vec![domain(libc::AF_NETLINK)?, is(2, libc::NETLINK_ROUTE as u64)?])?,
    ];
    for family in [libc::AF_INET, libc::AF_INET6] {
        // To ask the routing table by.
        rules.push(SeccompRule::new(vec![domain(family)?, kind(libc::SOCK_DGRAM)?])?);
        if side == Side::Keys {
            // Revocation lists, RADIUS.
            rules.push(SeccompRule::new(vec![domain(family)?, kind(libc::SOCK_STREAM)?])?);
        }
    }
    Ok(rules)
}

fn threads_only() -> anyhow::Result<SeccompRule> {
    let thread = libc::CLONE_THREAD as u64;
    Ok(SeccompRule::new(vec![masked(0, thread, thread)?])?)
}

/// The log may go to a terminal, and whoever types into that is the one who sits there, who may be root.
fn no_typing() -> anyhow::Result<SeccompRule> {
    let unless = |request| SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, request);
    Ok(SeccompRule::new(vec![unless(libc::TIOCSTI)?, unless(libc::TIOCLINUX)?])?)
}

fn harmless_prctl() -> anyhow::Result<Vec<SeccompRule>> {
    // The last names memory, for whoever looks at maps.
    let harmless = [
        libc::PR_SET_NAME,
        libc::PR_GET_NAME,
        libc::PR_GET_DUMPABLE,
        libc::PR_SET_NO_NEW_PRIVS,
        libc::PR_GET_NO_NEW_PRIVS,
        libc::PR_SET_SECCOMP,
        libc::PR_GET_SECCOMP,
        libc::PR_CAPBSET_READ,
        libc::PR_SET_TIMERSLACK,
        libc::PR_SET_VMA,
    ];
    harmless.iter().map(|option| Ok(SeccompRule::new(vec![is(0, *option as u64)?])?)).collect()
}

fn is(argument: u8, value: u64) -> anyhow::Result<SeccompCondition> {
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?)
}

fn masked(argument: u8, mask: u64, value: u64) -> anyhow::Result<SeccompCondition> {
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value)?)
}

fn compile(rules: Rules, otherwise: SeccompAction, listed: SeccompAction) -> anyhow::Result<BpfProgram> {
    let arch: TargetArch = ARCH.try_into().context("seccomp filters are not to be had for this machine")?;
    let filter = SeccompFilter::new(rules, otherwise, listed, arch)?;
    Ok(filter.try_into()?)
}

fn apply(program: &BpfProgram, everywhere: bool) -> anyhow::Result<()> {
    let applied = if everywhere { apply_filter_all_threads(program) } else { apply_filter(program) };
    applied.context("seccomp")
}
