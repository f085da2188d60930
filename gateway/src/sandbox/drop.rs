//! Root, groups, capabilities: given up for good.

use anyhow::{Context, bail};
use rustix::process::{
    DumpableBehavior, Gid, Resource, Rlimit, Signal, Uid, getppid, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use crate::processes::User;

/// No core dumps and no looking into our memory: both would show keys. Returns what could not be had.
pub fn harden() -> Vec<String> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let dumps = setrlimit(Resource::Core, none).map_err(|error| format!("core dumps are possible: {error}"));
    let looks = set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| format!("other processes of this user may look into our memory: {error}"));
    [dumps, looks].into_iter().filter_map(Result::err).collect()
}

/// As long as that is allowed: memory may be locked without bound (for secrets, and for what devices write to).
pub(crate) fn lift_limits() {
    let all = Rlimit { current: None, maximum: None };
    // Whether it was needed shows when memory is locked.
    let _ = setrlimit(Resource::Memlock, all);
}

/// Becomes a user with these capabilities and never any other. To be called while there is one thread. The process does not
/// outlive its parent.
///
/// # Errors
/// Whatever is in the way: nothing is half-way privileged.
pub(crate) fn become_user(user: &User, keep: CapabilitySet, parent: i32) -> anyhow::Result<()> {
    set_keep_capabilities(true)?;
    for capability in CapabilitySet::all().iter() {
        // Those the kernel does not know are in no set.
        let _ = remove_capability_from_bounding_set(capability);
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    set_thread_groups(&groups).context("the groups cannot be given up")?;
    let what = || format!("cannot become user {}, group {}", user.uid, user.gid);
    set_thread_res_gid(gid, gid, gid).with_context(what)?;
    set_thread_res_uid(uid, uid, uid).with_context(what)?;
    set_no_new_privs(true)?;
    settle(keep, parent)
}

fn settle(keep: CapabilitySet, parent: i32) -> anyhow::Result<()> {
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: keep, permitted: keep, inheritable: none })
        .context("the capabilities cannot be given up")?;
    clear_ambient_capability_set()?;
    set_keep_capabilities(false)?;
    // Another user is another matter to the kernel: both were reset.
    let unhardened = harden();
    if let Some(what) = unhardened.first() {
        bail!("{what}");
    }
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid().is_none_or(|now| now.as_raw_nonzero().get() != parent) {
        bail!("the supervisor is gone");
    }
    Ok(())
}
