use std::{
    io,
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use casemate_runtime::{
    daemon::{self, Daemon, Failure},
    publish::ensure_folder,
};
use tokio::task::spawn_blocking;

use crate::{
    Broker, KeyPolicy, KeydError, Keys, Parts, RecordFile, RoleTokens, Server, Settings, SignatureRecord, harden, open,
    tokens::News,
};

/// The broker as a daemon: opens its records, has each token looked for and tested, and listens once one serves.
///
/// # Errors
/// Records, policies or a token cannot be used at all; or every token gave a wrong answer to its first test.
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
    let roles = RoleTokens::load(&config.paths.etc.join("role-tokens.toml"))?;
    let path = state.join("record.jsonl");
    let record = SignatureRecord::start(RecordFile::open(&path, settings.record)?, path, settings.record.queue)?;
    let tokens = open::tokens(&settings, &roles, &config.paths, &keys, &auditor)?;
    let socket = config.paths.socket("keyd");
    let (limits, measure) = (settings.limits, Duration::from_millis(settings.measure_ms));
    let (audited_refusals, caller_day_bytes) = (settings.audited_refusals, settings.record.caller_day_bytes);
    let parts = Parts {
        config,
        policy,
        keys,
        tokens,
        roles,
        measure,
        record,
        caller_day_bytes,
        auditor,
        audited_refusals,
        limits,
    };
    let broker = Arc::new(Broker::new(&passed, parts));
    until_one_serves(&broker)?;
    let server = Server::bind(&passed, broker, &socket, settings.connections)?;
    daemon::ready();
    server.run();
    Ok(())
}

/// Has each token kept by a thread of its own. Returns when each had its first attempt and one at least serves.
///
/// # Errors
/// Every token gave a wrong answer.
fn until_one_serves(broker: &Arc<Broker>) -> Result<(), KeydError> {
    let (tell, news) = mpsc::channel();
    let keepers = broker.keepers();
    let (mut untried, mut left, mut serves) = (keepers.len(), keepers.len(), false);
    for keeper in keepers {
        let tell = tell.clone();
        let started = thread::Builder::new().name("token".to_owned()).spawn(move || keeper.keep(&tell));
        started.map_err(KeydError::Thread)?;
    }
    drop(tell);
    while untried > 0 || !serves {
        match news.recv() {
            Ok(News::Tried) => untried -= 1,
            Ok(News::Serves) => serves = true,
            Ok(News::Ended(error)) => {
                left -= 1;
                if left == 0 {
                    return Err(KeydError::Token(error));
                }
            }
            // Without a keeper nobody looks for a token any more.
            Err(gone) => return Err(KeydError::Thread(io::Error::other(gone))),
        }
    }
    Ok(())
}
