use std::{
    ops::Range,
    time::{Duration, Instant},
};

use casemate_harness::Lab;

use crate::{BenchError, operator};

/// How long all files may take.
const LIMIT: Duration = Duration::from_secs(600);

/// Starts ctlprovider and waits until the signed configuration of every device of `numbers` is published. Returns the time from
/// the moment when it is ready, before it has asked for a device, to the last file.
pub(crate) fn publish(lab: &Lab, numbers: Range<usize>) -> Result<Duration, BenchError> {
    lab.start_daemon("ctlprovider")?;
    let started = Instant::now();
    let mut missing = numbers.map(|number| lab.published("ctlprovider", &signed(number))).peekable();
    lab.wait_for("a signed configuration for every phone", LIMIT, || {
        while missing.next_if(|path| path.exists()).is_some() {}
        missing.peek().is_none()
    })?;
    Ok(started.elapsed())
}

fn signed(number: usize) -> String {
    format!("{}.cnf.xml.sgn", operator::device(number))
}
