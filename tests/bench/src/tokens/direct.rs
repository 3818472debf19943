//! Straight into a token's C interface, in a process of its own under keyd's user, while keyd does not run: the same key in the same
//! token, with the same PIN. For a PKCS#11 module the calls are `C_SignInit` and `C_Sign`, in a session for each caller; for a TPM they
//! are tpm2-tss's `Esys_Sign`, by one caller, for it does one thing at a time and lets nobody else in.

use std::{path::PathBuf, time::Duration};

use casemate_harness::{Lab, TOKEN_LABEL, Tokens};
use casemate_hsm_api::{KeyId, SignatureScheme};
use casemate_hsm_pkcs11::{Pkcs11Error, Pkcs11Files, Pkcs11Settings, Pkcs11Store, TokenName};
use casemate_hsm_tpm::{TpmError, TpmStore};
use casemate_keyd::Settings;
use casemate_runtime::config::Config;
use serde::{Deserialize, Serialize};

use super::{
    IN_FLIGHT,
    calls::{Calls, Series},
    child,
};
use crate::BenchError;

/// First argument of the measuring process; the second is a [`Job`] as JSON.
pub(crate) const ARGUMENT: &str = "direct-calls";

/// What a measuring process is told.
#[derive(Deserialize, Serialize)]
struct Job {
    config: PathBuf,
    is_tpm: bool,
    key: KeyId,
    scheme: SignatureScheme,
    duration: Duration,
}

/// What the C interface does with so many callers as [`IN_FLIGHT`] says.
pub(crate) fn measure(
    lab: &Lab,
    tokens: Tokens,
    key: KeyId,
    scheme: SignatureScheme,
    duration: Duration,
) -> Result<Series, BenchError> {
    let job = Job { config: lab.layout.config(), is_tpm: tokens == Tokens::Tpm, key, scheme, duration };
    child::run(lab, "keyd", ARGUMENT, &job)
}

/// The measuring process.
pub(crate) fn run(job: &str) -> Result<(), BenchError> {
    let job: Job = child::told(job)?;
    let config = Config::load(&job.config)?;
    let settings: Settings = config.section("keyd")?;
    child::tell(&if job.is_tpm { tpm(&job, &config, &settings)? } else { pkcs11(&job, &config, &settings)? })
}

fn pkcs11(job: &Job, config: &Config, settings: &Settings) -> Result<Series, BenchError> {
    let files =
        Pkcs11Files { pin: settings.pin_file(TOKEN_LABEL).map_err(Box::new)?, state: config.paths.state_of("keyd") };
    let [.., most] = IN_FLIGHT;
    let token = TokenName::Label(TOKEN_LABEL.to_owned());
    let store = Pkcs11Store::open(Pkcs11Settings { token, sessions: most, ..settings.pkcs11.clone() }, files)?;
    Series::of(|callers| {
        let caller = || Ok(|duration| store.raw_rate(job.key, job.scheme, duration));
        Ok(Calls::of(callers, job.duration, caller).map_err(Pkcs11Error::from)?)
    })
}

fn tpm(job: &Job, config: &Config, settings: &Settings) -> Result<Series, BenchError> {
    let store = TpmStore::open(settings.tpm(&config.paths).map_err(Box::new)?)?;
    let mut alone = None;
    Series::of(|_| match alone {
        Some(alone) => Ok(Calls { made: 0, ..alone }),
        None => {
            let caller = || Ok(|duration| store.raw_rate(job.key, job.scheme, duration));
            Ok(*alone.insert(Calls::of(1, job.duration, caller).map_err(TpmError::from)?))
        }
    })
}

/// The key whose identifier reads so.
pub(crate) fn key(hexadecimal: &str) -> Result<KeyId, BenchError> {
    let unread = || BenchError::Program { program: "casemate hsm list".to_owned(), output: hexadecimal.to_owned() };
    u128::from_str_radix(hexadecimal, 16).map(|number| KeyId(number.to_be_bytes())).map_err(|_| unread())
}
