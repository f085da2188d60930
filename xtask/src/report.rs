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

/// All checks of a run.
#[derive(Default)]
pub struct Tally {
    rows: Vec<Row>,
    /// Tests counted elsewhere (cargo's), in the order passed, failed, ignored.
    counted: [usize; 3],
}

impl Tally {
    /// Add a check and print its line.
    pub fn add(&mut self, row: Row) {
        let word = match row.outcome {
            Outcome::Passed => "ok",
            Outcome::Failed(_) => "FAIL",
            Outcome::Skipped(_) => "skip",
        };
        println!("{word:<5} {:<26} {:<26} {:6.1} s", row.name, row.roles, row.seconds);
        match &row.outcome {
            Outcome::Passed => {}
            Outcome::Failed(why) | Outcome::Skipped(why) => println!("    {why}"),
        }
        self.rows.push(row);
    }

    /// Add tests that another program ran and counted.
    pub fn count(&mut self, passed: usize, failed: usize, ignored: usize) {
        for (sum, more) in self.counted.iter_mut().zip([passed, failed, ignored]) {
            *sum += more;
        }
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
            let [passed, failed, skipped] = sums(rows);
            println!("{group:<12} {passed:>7} {failed:>7} {skipped:>8} {seconds:>9.0}");
        }
        for row in &self.rows {
            if matches!(row.outcome, Outcome::Failed(_)) {
                println!("failed: {} {}", row.name, row.roles);
            }
        }
        let own = sums(self.rows.iter());
        let [passed, failed, skipped] = [0, 1, 2].map(|kind| {
            own.get(kind).copied().unwrap_or(0) + self.counted.get(kind).copied().unwrap_or(0)
        });
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        failed == 0
    }
}

fn sums<'a>(rows: impl Iterator<Item = &'a Row>) -> [usize; 3] {
    rows.fold([0; 3], |[passed, failed, skipped], row| match row.outcome {
        Outcome::Passed => [passed + 1, failed, skipped],
        Outcome::Failed(_) => [passed, failed + 1, skipped],
        Outcome::Skipped(_) => [passed, failed, skipped + 1],
    })
}
