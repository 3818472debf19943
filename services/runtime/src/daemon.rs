//! How a daemon starts: `--self-test` answers its parent; otherwise settings, audit trail, self-tests, then service. Only what
//! comes through here has a [`Passed`].

use std::{error::Error, path::PathBuf, process::ExitCode, sync::Arc, thread, time::Duration};

use casemate_audit::{Auditor, Event};
use casemate_post::Passed;
use clap::Parser;
use sd_notify::NotifyState;
use serde::de::DeserializeOwned;
use tokio::{
    runtime::Handle,
    signal::unix::{SignalKind, signal},
};

use crate::{config::Config, log};

/// What ends a daemon before or in service.
pub type Failure = Box<dyn Error + Send + Sync>;

/// The command line that every daemon understands.
#[derive(Debug, Parser)]
struct Arguments {
    /// Settings file.
    #[arg(long, default_value = "/etc/casemate/casemate.toml")]
    config: PathBuf,
    /// Run the cryptographic module's tests in this process, print one line, and exit.
    #[arg(long)]
    self_test: bool,
}

/// A daemon that may serve: its module is healthy and this boot's power-on self-test passed.
pub struct Daemon<S> {
    /// The short name: `capf`.
    pub name: &'static str,
    /// The whole settings file.
    pub config: Config,
    /// The daemon's own section.
    pub settings: S,
    /// The audit trail, under the daemon's name.
    pub auditor: Arc<Auditor>,
    /// The proof.
    pub passed: Passed,
}

/// The `main` of every daemon: starts as the module says and runs `serve` until it returns. The exit code is 0 only if
/// `serve` succeeded.
pub fn main<S, F>(name: &'static str, serve: F) -> ExitCode
where
    S: DeserializeOwned + Default,
    F: FnOnce(Daemon<S>) -> Result<(), Failure>,
{
    let arguments = Arguments::parse();
    if arguments.self_test {
        return casemate_post::self_test();
    }
    log::init();
    match run(name, &arguments.config, serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("casemate-{name}: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run<S, F>(name: &'static str, config: &std::path::Path, serve: F) -> Result<(), Failure>
where
    S: DeserializeOwned + Default,
    F: FnOnce(Daemon<S>) -> Result<(), Failure>,
{
    let config = Config::load(config)?;
    let auditor = Arc::new(Auditor::open(&format!("casemate-{name}"), &config.audit)?);
    let outcome = start(name, config, &auditor).and_then(serve);
    auditor.record(&match &outcome {
        Ok(()) => Event::ServiceStopped { reason: "told to stop".into() },
        Err(error) => Event::ServiceRefused { reason: chain(error.as_ref()) },
    });
    outcome
}

fn start<S: DeserializeOwned + Default>(
    name: &'static str,
    config: Config,
    auditor: &Arc<Auditor>,
) -> Result<Daemon<S>, Failure> {
    let settings = config.section(name)?;
    let passed = Passed::for_this_process(&config.paths.post_report())?;
    allow_all_descriptors()?;
    auditor.record(&Event::ServiceStarted { mode: config.mode.to_string(), module: casemate_post::module_version() });
    Ok(Daemon { name, config, settings, auditor: Arc::clone(auditor), passed })
}

/// Raises the soft limit of open files to the hard one: a connection is a descriptor, and listeners have limits of their own.
fn allow_all_descriptors() -> nix::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
}

/// An error with its causes, each once.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Tells the service manager (and the lab, which speaks the same protocol) that the daemon serves, and keeps its watchdog
/// quiet if it has one: from a task of the runtime where there is one, so that a runtime that stands still is restarted.
pub fn ready() {
    // Failing to notify leaves the unit in "activating" until its start timeout: the service manager acts, not we.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    let pause = period.max(Duration::from_millis(2)) / 2;
    match Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn(async move {
            loop {
                let _ = sd_notify::notify(&[NotifyState::Watchdog]);
                tokio::time::sleep(pause).await;
            }
        })),
        Err(_) => drop(thread::spawn(move || {
            loop {
                let _ = sd_notify::notify(&[NotifyState::Watchdog]);
                thread::sleep(pause);
            }
        })),
    }
}

/// Runs `service` on a tokio runtime whose blocking pool has at most `blocking` threads, until it ends or this process is told
/// to stop (SIGTERM or SIGINT).
///
/// # Errors
/// What `service` returned, or the runtime could not be made.
pub fn block_on<F>(blocking: usize, service: F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    block_on_workers(2, blocking, service)
}

/// As [`block_on`], with so many threads for tasks. One is best where every task soon waits for something else: then no task
/// wakes a second thread only for it to find that the first has done the work.
///
/// # Errors
/// As [`block_on`].
pub fn block_on_workers<F>(workers: usize, blocking: usize, service: F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(workers)
        .max_blocking_threads(blocking)
        .build()?;
    let outcome = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            outcome = service => outcome,
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    });
    // A blocked token call must not hold up the stop: what was acknowledged is on disk already.
    runtime.shutdown_background();
    outcome
}
