//! How long it takes until keyd signs again after its token was away for ten seconds.

use std::{
    io::{BufRead, BufReader, Lines},
    process::{ChildStdout, Stdio},
    thread,
    time::{Duration, Instant},
};

use casemate_faults::Faulty;
use casemate_harness::{Lab, LabError, Tokens};

use super::{
    child,
    measured::Measured,
    requests::{self, Seen},
};
use crate::BenchError;

/// How long the token is away.
const AWAY: Duration = Duration::from_secs(10);

/// Seconds from the token's return to the first signature, in a lab whose keyd does not run and which is of no use afterwards. A
/// TPM's plug is pulled; before another token a module is put that says that it is not there.
pub(crate) fn recovery(lab: &Lab, tokens: Tokens, key: &Measured) -> Result<f64, BenchError> {
    let faulty = (tokens != Tokens::Tpm).then(|| Faulty::before_the_token_of(lab)).transpose()?;
    lab.start_daemon("keyd")?;
    let mut watcher = requests::watch(lab, key.role, key.scheme)?;
    let failed = BenchError::file("/proc/self/exe");
    let mut watcher = watcher.stdout(Stdio::piped()).spawn().map_err(failed)?;
    let seen = watch(lab, faulty.as_ref(), watcher.stdout.take().map(|out| BufReader::new(out).lines()));
    // It has ended, or nobody needs it any more.
    let _ = watcher.kill();
    let _ = watcher.wait();
    seen
}

fn watch(
    lab: &Lab,
    faulty: Option<&Faulty<'_>>,
    seen: Option<Lines<BufReader<ChildStdout>>>,
) -> Result<f64, BenchError> {
    let mut seen = seen.into_iter().flatten();
    let mut wait_for = |expected: Seen| match seen.next() {
        Some(Ok(line)) if child::told::<Seen>(&line)? == expected => Ok(()),
        other => Err(BenchError::WrongAnswer(format!("{other:?} in the place of {expected:?}"))),
    };
    wait_for(Seen::Signs)?;
    hand(faulty, Faulty::pull, || lab.pull_tpm())?;
    let pulled = Instant::now();
    wait_for(Seen::Away)?;
    thread::sleep(AWAY.saturating_sub(pulled.elapsed()));
    hand(faulty, Faulty::put_back, || lab.put_tpm_back())?;
    let back = Instant::now();
    wait_for(Seen::Signs)?;
    Ok(back.elapsed().as_secs_f64())
}

/// Does something to the token by the module before it, or else to the TPM.
fn hand<'a>(
    faulty: Option<&Faulty<'a>>,
    module: fn(&Faulty<'a>) -> Result<(), LabError>,
    tpm: impl FnOnce() -> Result<(), LabError>,
) -> Result<(), LabError> {
    faulty.map_or_else(tpm, module)
}
