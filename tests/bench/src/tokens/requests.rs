//! Through keyd: its real socket, its real judgment and records, asked by a process under the user of the daemon that asks for these
//! signatures, which [`super::measured`] names.

use std::{
    os::unix::net::UnixStream,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use casemate_harness::Lab;
use casemate_hsm_api::{KeyRole, SignatureScheme, TimedCalls};
use casemate_keyring::{FRAMING, Purpose, Request, Response, SignRequest};
use casemate_runtime::config::Config;
use serde::{Deserialize, Serialize};

use super::{
    calls::{Calls, Series},
    child,
    measured::CALLER,
};
use crate::BenchError;

/// First argument of the asking process; the second is a [`Job`] as JSON.
pub(crate) const ARGUMENT: &str = "key-requests";

/// How long keyd may take over one answer, and the token over coming back.
const LIMIT: Duration = Duration::from_secs(60);

/// Between two requests while the token is waited for.
const PAUSE: Duration = Duration::from_millis(10);

/// What stands before the transcript's hash in what a TLS 1.3 server signs (RFC 8446, 4.4.3).
const CONTEXT: &[u8] = b"TLS 1.3, server CertificateVerify\0";

/// What an asking process is told.
#[derive(Deserialize, Serialize)]
pub(crate) struct Job {
    config: PathBuf,
    role: KeyRole,
    scheme: SignatureScheme,
    /// For how long it asks; nothing if it is to watch the token go and come back.
    duration: Option<Duration>,
}

/// What a watching process tells, a line each.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Seen {
    /// keyd signs.
    Signs,
    /// It refuses, for its token is away.
    Away,
}

/// What keyd does with so many callers as [`super::IN_FLIGHT`] says.
pub(crate) fn measure(
    lab: &Lab,
    role: KeyRole,
    scheme: SignatureScheme,
    duration: Duration,
) -> Result<Series, BenchError> {
    let job = Job { config: lab.layout.config(), role, scheme, duration: Some(duration) };
    child::run(lab, CALLER, ARGUMENT, &job)
}

/// A command that asks until it was told that the token is away, and then until keyd signs again; it tells what it sees.
pub(crate) fn watch(lab: &Lab, role: KeyRole, scheme: SignatureScheme) -> Result<std::process::Command, BenchError> {
    let job = Job { config: lab.layout.config(), role, scheme, duration: None };
    child::command(lab, CALLER, ARGUMENT, &job)
}

/// The asking process.
pub(crate) fn run(job: &str) -> Result<(), BenchError> {
    let job: Job = child::told(job)?;
    let Some(duration) = job.duration else { return see(&job) };
    let config = Config::load(&job.config)?;
    child::tell(&Series::of(|callers| {
        Calls::of(callers, duration, || {
            let mut asker = Asker::connect(&config, &job)?;
            Ok::<_, BenchError>(move |duration| TimedCalls::make(duration, || asker.ask()))
        })
    })?)
}

/// Tells that keyd signs, that it does not, and that it does again.
fn see(job: &Job) -> Result<(), BenchError> {
    let mut asker = Asker::connect(&Config::load(&job.config)?, job)?;
    for expected in [Seen::Signs, Seen::Away, Seen::Signs] {
        let begin = Instant::now();
        loop {
            let seen = match asker.ask() {
                Ok(()) => Seen::Signs,
                Err(BenchError::Refused(refusal)) if refusal.is_temporary() => Seen::Away,
                // The one request that the token was in the middle of.
                Err(BenchError::Refused(_)) if expected == Seen::Away => Seen::Away,
                Err(error) => return Err(error),
            };
            if seen == expected {
                break;
            }
            if begin.elapsed() > LIMIT {
                return Err(BenchError::NotSeen { limit: LIMIT });
            }
            thread::sleep(PAUSE);
        }
        child::tell(&expected)?;
    }
    Ok(())
}

/// A connection to keyd, which asks for one signature after the other.
struct Asker {
    socket: UnixStream,
    request: Request,
    asked: u64,
}

impl Asker {
    fn connect(config: &Config, job: &Job) -> Result<Self, BenchError> {
        let path = config.paths.socket("keyd");
        let socket = config.server("keyd")?.connect().map_err(BenchError::file(&path))?;
        socket.set_read_timeout(Some(LIMIT)).map_err(BenchError::file(path))?;
        let request = Request::Sign(SignRequest {
            role: job.role,
            key: None,
            scheme: job.scheme,
            purpose: Purpose::TlsHandshake,
            message: Vec::new(),
        });
        Ok(Self { socket, request, asked: 0 })
    }

    /// Asks for the signature of one more handshake.
    fn ask(&mut self) -> Result<(), BenchError> {
        self.asked += 1;
        if let Request::Sign(request) = &mut self.request {
            request.message = handshake(self.asked);
        }
        FRAMING.write(&mut self.socket, &self.request)?;
        match FRAMING.read(&mut self.socket)? {
            Some(Response::Signature(_)) => Ok(()),
            Some(Response::Refused(refusal)) => Err(BenchError::Refused(refusal)),
            Some(other) => Err(BenchError::WrongAnswer(format!("{other:?}"))),
            None => Err(BenchError::WrongAnswer("none".to_owned())),
        }
    }
}

/// What a TLS 1.3 server signs, with a number in the place of the transcript's hash, as long as one of SHA-256.
fn handshake(number: u64) -> Vec<u8> {
    [&[0x20; 64], CONTEXT, &[0; 24], &number.to_be_bytes()].concat()
}
