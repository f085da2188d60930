//! One line a check, a table at the end.

/// What became of a check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// As it should be.
    Passed,
    /// Not so, and why.
    Failed(String),
    /// Could not be tried here, and why.
    Skipped(String),
    /// Another program ran a number of tests, all is said by these.
    Counted(Counts),
}

/// Numbers of tests.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    /// As they should be.
    pub passed: usize,
    /// Not so.
    pub failed: usize,
    /// Not tried.
    pub skipped: usize,
}

impl std::ops::Add for Counts {
    type Output = Counts;

    fn add(self, other: Counts) -> Counts {
        Counts {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

/// One check.
pub struct Row {
    /// Which part of the test it belongs to.
    pub group: &'static str,
    /// Its name.
    pub name: String,
    /// Who played whom, if that says anything.
    pub roles: String,
    /// What it shows.
    pub shows: String,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What became of it.
    pub outcome: Outcome,
}

impl Row {
    fn counts(&self) -> Counts {
        match self.outcome {
            Outcome::Passed => Counts { passed: 1, ..Counts::default() },
            Outcome::Failed(_) => Counts { failed: 1, ..Counts::default() },
            Outcome::Skipped(_) => Counts { skipped: 1, ..Counts::default() },
            Outcome::Counted(counts) => counts,
        }
    }

    fn word(&self) -> &'static str {
        match self.counts() {
            Counts { failed: 0, passed: 0, .. } => "skip",
            Counts { failed: 0, .. } => "ok",
            _ => "FAIL",
        }
    }
}

/// All checks of a run.
#[derive(Default)]
pub struct Tally {
    rows: Vec<Row>,
}

impl Tally {
    /// Add a check and print its line.
    pub fn add(&mut self, row: Row) {
        println!("{:<5} {:<26} {:<26} {:6.1} s", row.word(), row.name, row.roles, row.seconds);
        match &row.outcome {
            Outcome::Passed => {}
            Outcome::Failed(why) | Outcome::Skipped(why) => println!("    {why}"),
            Outcome::Counted(n) => {
                println!("      {} passed, {} failed, {} ignored", n.passed, n.failed, n.skipped);
            }
        }
        self.rows.push(row);
    }

    /// The checks so far.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Print the table and the closing line; true if nothing failed.
    pub fn close(&self) -> bool {
        let mut groups: Vec<&str> = self.rows.iter().map(|row| row.group).collect();
        groups.dedup();
        println!("\n{:<12} {:>7} {:>7} {:>8} {:>9}", "", "passed", "failed", "skipped", "seconds");
        for group in groups {
            let rows = self.rows.iter().filter(|row| row.group == group);
            let seconds: f64 = rows.clone().map(|row| row.seconds).sum();
            let Counts { passed, failed, skipped } = sum(rows);
            println!("{group:<12} {passed:>7} {failed:>7} {skipped:>8} {seconds:>9.0}");
        }
        for row in self.rows.iter().filter(|row| row.word() == "FAIL") {
            println!("failed: {} {}", row.name, row.roles);
        }
        let Counts { passed, failed, skipped } = sum(self.rows.iter());
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        failed == 0
    }
}

fn sum<'a>(rows: impl Iterator<Item = &'a Row>) -> Counts {
    rows.map(Row::counts).fold(Counts::default(), |all, one| all + one)
}
