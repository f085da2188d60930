//! The machine, and how much of it others took: a figure from a noisy machine must be seen to be one.

use std::collections::HashMap;
use std::fs;
use std::thread::available_parallelism;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Ticks a second: what the kernel counts in towards user space on every Linux architecture we build for.
const TICKS: f64 = 100.0;

/// What figures depend on.
pub struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    watch: Watch,
}

impl Machine {
    /// This one, watched from now on.
    pub fn watch() -> Result<Machine> {
        let info = fs::read_to_string("/proc/cpuinfo")?;
        let field = |name: &str| {
            let line = info.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let model = field("model name").unwrap_or_else(|| "unknown processor".to_owned());
        let family = field("cpu family").zip(field("model\t"));
        let cpu = match family {
            Some((family, number)) => format!("{model} (family {family}, model {number})"),
            None => model,
        };
        let cores = available_parallelism().map_or(1, usize::from);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
        Ok(Machine { cpu, cores, kernel, watch: Watch::start()? })
    }

    /// One line, with the load since the start.
    pub fn line(&self) -> String {
        format!(
            "{}, {} cores, Linux {}; others took {:.0} % of the CPU time",
            self.cpu,
            self.cores,
            self.kernel,
            100.0 * self.others()
        )
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        json!({ "cpu": self.cpu, "cores": self.cores, "kernel": self.kernel, "others": self.others() })
    }

    fn others(&self) -> f64 {
        self.watch.others(self.cores).unwrap_or(f64::NAN)
    }
}

/// CPU time of the machine and of ours since a moment.
struct Watch {
    began: Instant,
    busy: f64,
    ours: f64,
}

impl Watch {
    fn start() -> Result<Watch> {
        Ok(Watch { began: Instant::now(), busy: busy()?, ours: ours()? })
    }

    /// The share that neither we nor the kernel's own threads took, of what there was.
    fn others(&self, cores: usize) -> Result<f64> {
        let (busy, ours) = (busy()? - self.busy, ours()? - self.ours);
        let there_was = self.began.elapsed().as_secs_f64() * cores as f64;
        Ok(((busy - ours) / there_was.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0))
    }
}

/// Seconds all cores have not been idle, those included in which another virtual machine had them.
fn busy() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("an empty /proc/stat")?;
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let used = [0, 1, 2, 5, 6, 7].iter().filter_map(|index| ticks.get(*index));
    Ok(used.sum::<f64>() / TICKS)
}

/// Seconds that this process, what descends from it, and the kernel's threads have used. Who has ended and was waited for
/// is in the count of its parent.
fn ours() -> Result<f64> {
    const KTHREADD: u32 = 2;
    let mut all: HashMap<u32, (u32, f64)> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that ends while we look.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((_, after)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<&str> = after.split_whitespace().collect();
        let parent = fields.get(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        // utime, stime, cutime, cstime
        let ticks = fields.iter().skip(11).take(4).filter_map(|word| word.parse::<f64>().ok());
        all.insert(pid, (parent, ticks.sum::<f64>() / TICKS));
    }
    let roots = [std::process::id(), KTHREADD];
    let is_ours = |mut pid: u32| {
        // A chain of parents is not longer than there are processes.
        for _ in 0..all.len() {
            if roots.contains(&pid) {
                return true;
            }
            match all.get(&pid) {
                Some((parent, _)) => pid = *parent,
                None => return false,
            }
        }
        false
    };
    Ok(all.iter().filter(|(pid, _)| is_ours(**pid)).map(|(_, (_, seconds))| seconds).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_use_ourselves_is_not_the_others() {
        let watch = Watch { began: Instant::now(), busy: busy().unwrap(), ours: ours().unwrap() };
        let own = std::process::id();
        let before = crate::meter::cpu(own).unwrap();
        while crate::meter::cpu(own).unwrap() < before + 0.2 {}
        assert!(ours().unwrap() - watch.ours >= 0.1);
        let share = watch.others(1).unwrap();
        assert!((0.0..=1.0).contains(&share));
    }
}
