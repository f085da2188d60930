//! What was called how often. Written to a file after each call that a test may wait for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// The counters of this process.
#[derive(Serialize)]
pub struct Counts {
    #[serde(skip)]
    file: PathBuf,
    calls: BTreeMap<&'static str, u64>,
    /// Most operations with keys under way at one time.
    pub peak: usize,
}

impl Counts {
    /// None so far.
    pub fn new(folder: &Path) -> Counts {
        Counts { file: folder.join("counts.json"), calls: BTreeMap::new(), peak: 0 }
    }

    /// One more of these; returns how many there are now.
    pub fn count(&mut self, what: &'static str) -> u64 {
        let count = self.calls.entry(what).or_default();
        *count += 1;
        *count
    }

    /// Writes them down. Whoever reads sees the old or the new file, never half of one.
    pub fn save(&self) {
        let fresh = self.file.with_extension("new");
        let text = serde_json::to_vec(self).unwrap_or_default();
        // A folder that is gone is the end of a test.
        let _ = std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, &self.file));
    }
}
