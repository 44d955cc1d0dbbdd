//! Which classes of faults have met which phases of the protocol, as a table and as a gate.

use crate::coverage::{Phase, Reached, excuse};

/// The matrix of a world.
pub(super) struct Matrix {
    classes: Vec<&'static str>,
    phases: &'static [Phase],
    reached: Reached,
}

impl Matrix {
    pub(super) fn new(classes: Vec<&'static str>, phases: &'static [Phase]) -> Self {
        Self { classes, phases, reached: Reached::default() }
    }

    pub(super) fn add(&mut self, reached: &Reached) {
        self.reached.add(reached);
    }

    /// Prints how much of it was met; where it is to be whole, all of it, and what is missing.
    /// Gives of how much that is to be met nothing was.
    pub(super) fn measure(&self, is_whole: bool) -> usize {
        let missing = self.missing();
        if is_whole {
            self.print();
            for (class, phase) in &missing {
                println!("never: {class} in {}", phase.name());
            }
        }
        println!("{}", self.line());
        if is_whole { missing.len() } else { 0 }
    }

    /// The pairs of which none was met.
    fn unmet(&self) -> impl Iterator<Item = (&'static str, Phase)> {
        let all = self
            .classes
            .iter()
            .flat_map(|class| self.phases.iter().map(move |phase| (*class, *phase)));
        all.filter(|&(class, phase)| self.reached.met(class, phase) == 0)
    }

    /// Those of them that nothing excuses.
    fn missing(&self) -> Vec<(&'static str, Phase)> {
        self.unmet().filter(|&(class, phase)| excuse(class, phase).is_none()).collect()
    }

    /// How much of it was met, in a line.
    fn line(&self) -> String {
        let all = self.classes.len() * self.phases.len();
        let (met, missing) = (all - self.unmet().count(), self.missing().len());
        let excused = all - met - missing;
        format!("a fault met a phase: {met} of {all} pairs; excused {excused}, missing {missing}")
    }

    /// The table: how many faults of a class, its rows, met a phase, its columns.
    fn print(&self) {
        let columns: Vec<_> = self.phases.iter().map(|phase| phase.name()).collect();
        println!("\n| | {} |", columns.join(" | "));
        println!("|---|{}", "---|".repeat(columns.len()));
        for class in &self.classes {
            let cell = |phase: &Phase| match self.reached.met(class, *phase) {
                0 if excuse(class, *phase).is_some() => "–".to_owned(),
                0 => "**0**".to_owned(),
                count => count.to_string(),
            };
            let cells: Vec<_> = self.phases.iter().map(cell).collect();
            println!("| {class} | {} |", cells.join(" | "));
        }
        let shown = |phase: &Phase| self.reached.phases[*phase as usize].to_string();
        let shown: Vec<_> = self.phases.iter().map(shown).collect();
        println!("| *how often* | {} |\n", shown.join(" | "));
    }
}
