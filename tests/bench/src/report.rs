use std::fmt;

use serde::Serialize;

use crate::machine::Machine;

/// What a number is to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Goal {
    /// This much or more.
    AtLeast(f64),
    /// Less than this.
    Under(f64),
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::Under(most) => value < most,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&match self {
            Self::AtLeast(least) => format!(">= {least}"),
            Self::Under(most) => format!("< {most}"),
        })
    }
}

/// One number.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    goal: Option<Goal>,
    met: Option<bool>,
}

/// Every number of one run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Report {
    machine: Machine,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn on(machine: Machine) -> Self {
        Self { machine, rows: Vec::new() }
    }

    /// A number without a goal.
    pub(crate) fn note(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.rows.push(Row { name: name.into(), value, unit, goal: None, met: None });
    }

    /// A number with a goal.
    pub(crate) fn hold(&mut self, name: impl Into<String>, value: f64, unit: &'static str, goal: Goal) {
        self.rows.push(Row { name: name.into(), value, unit, goal: Some(goal), met: Some(goal.is_met(value)) });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpu, cores, memory_mib, kernel, release_build } = &self.machine;
        writeln!(f, "{cpu}, {cores} cores, {memory_mib} MiB, {kernel}; load and service share the cores")?;
        if !release_build {
            writeln!(f, "NOT A RELEASE BUILD: these numbers are of no use; `make bench` builds one")?;
        }
        let width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or_default();
        for Row { name, value, unit, goal, met } in &self.rows {
            let number = format!("{value:.digits$}", digits = if *value < 10.0 { 3 } else { 1 });
            write!(f, "{name:<width$}  {number:>9} {unit}")?;
            if let (Some(goal), Some(met)) = (goal, met) {
                let space = 16_usize.saturating_sub(unit.chars().count());
                write!(f, "{:space$}goal {goal:<9} {}", "", if *met { "met" } else { "MISSED" })?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_goal_is_said_in_both_forms() {
        let mut report = Report::on(Machine::here());
        report.hold("a", 0.9, "ratio", Goal::AtLeast(0.9));
        report.hold("b", 150.0, "ms", Goal::Under(150.0));
        report.note("c", 7.0, "MiB");
        let text = report.to_string();
        assert!(text.contains("goal >= 0.9    met") && text.contains("goal < 150     MISSED"), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["rows"][1]["met"], false);
        assert_eq!(json["rows"][1]["goal"]["under"], 150.0);
        assert_eq!(json["rows"][2]["met"], serde_json::Value::Null);
    }
}
