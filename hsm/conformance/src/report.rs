use std::{
    fmt,
    time::{Duration, Instant},
};

use casemate_hsm_api::KeyAlgorithm;

/// One thing that was tried.
#[derive(Clone, Debug)]
pub struct Case {
    /// What was tried.
    pub name: String,
    /// The algorithm that it concerns; nothing if it concerns every key.
    pub algorithm: Option<KeyAlgorithm>,
    /// What was wrong, if anything.
    pub failure: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// Everything that was tried.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order in which it was tried.
    pub cases: Vec<Case>,
}

impl Report {
    pub(crate) fn add(
        &mut self,
        algorithm: Option<KeyAlgorithm>,
        name: String,
        case: impl FnOnce() -> Result<(), String>,
    ) {
        let begin = Instant::now();
        let failure = case().err();
        self.cases.push(Case { name, algorithm, failure, took: begin.elapsed() });
    }

    /// Whether something was tried and nothing failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.cases.is_empty() && self.cases.iter().all(|case| case.failure.is_none())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for case in &self.cases {
            let result = case.failure.as_deref().unwrap_or("ok");
            writeln!(f, "{:>6} ms  {}: {result}", case.took.as_millis(), case.name)?;
        }
        Ok(())
    }
}
