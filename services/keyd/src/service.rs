use std::{path::Path, sync::Arc, thread};

use casemate_hsm_api::KeyStore;
use casemate_hsm_pkcs11::Pkcs11Store;
use casemate_runtime::{
    daemon::{self, Daemon, Failure},
    publish::ensure_folder,
};
use tokio::task::spawn_blocking;

use crate::{
    Broker, KeyPolicy, KeydError, Keys, Parts, Patience, RecordFile, Server, Settings, SignatureRecord, harden,
};

/// The broker as a daemon: opens its records, waits for the token, tests it, and only then listens.
///
/// # Errors
/// Records, policy or token cannot be used; or the token gave a wrong answer to its first test.
pub fn serve(daemon: Daemon<Settings>) -> Result<(), Failure> {
    harden::forbid_dumps()?;
    daemon::block_on(4, async move {
        let state = daemon.config.paths.state_of(daemon.name);
        ensure_folder(&state, 0o700)?;
        let keys = Keys::open(&state.join("keys.db"), daemon.settings.store).await?;
        spawn_blocking(move || run(daemon, keys, &state)).await??;
        Ok(())
    })
}

fn run(daemon: Daemon<Settings>, keys: Keys, state: &Path) -> Result<(), KeydError> {
    let Daemon { config, settings, auditor, passed, .. } = daemon;
    keys.load()?;
    let policy = KeyPolicy::load(&config.paths.etc.join("key-policy.toml"))?;
    let path = state.join("record.jsonl");
    let record = SignatureRecord::start(RecordFile::open(&path, settings.record)?, path, settings.record.queue)?;
    let files = settings.token_files(&config.paths)?;
    let patience = Patience {
        backoff: settings.backoff,
        pin_poll: std::time::Duration::from_millis(settings.pin_poll_ms),
        pin_file: Some(files.pin.clone()),
    };
    let store: Arc<dyn KeyStore> = Arc::new(Pkcs11Store::prepare(settings.pkcs11, files).map_err(KeydError::Open)?);
    let socket = config.paths.socket("keyd");
    let parts = Parts { config, policy, keys, store, record, auditor, limits: settings.limits, patience };
    let broker = Arc::new(Broker::new(&passed, parts));
    broker.bring_back().map_err(KeydError::Token)?;
    let server = Server::bind(&passed, Arc::clone(&broker), &socket, settings.connections)?;
    thread::Builder::new().name("token".to_owned()).spawn(move || keep(&broker)).map_err(KeydError::Thread)?;
    daemon::ready();
    server.run();
    Ok(())
}

/// Brings the token back whenever it is lost, until it gives a wrong answer: then the broker only tells why it signs nothing.
fn keep(broker: &Broker) {
    loop {
        broker.until_lost();
        if let Err(error) = broker.bring_back() {
            tracing::error!(%error, "the token is not used any more");
            return;
        }
    }
}
