//! The certificate manager: owns the identity certificates of this node.
//!
//! Root and the operator's user ask it over `certmgr.sock`; it asks keyd to make keys and to sign each identity's own
//! certificate. It writes its records (`<state>/certmgr/certmgr.db`) and what it publishes (`<state>/certmgr/public/`), and
//! has no network. It reads what ctlprovider publishes, to know what phones were told before it re-keys. Without keyd a provisioning request fails and says so; what is published stays.
#![forbid(unsafe_code)]

use std::{pin::pin, process::ExitCode, sync::Arc};

use casemate_certmgr::{CertmgrSettings, Folders, Manager, Records, Request};
use casemate_keyring::Client;
use casemate_runtime::{
    control::{self, Callers},
    daemon::{self, Daemon, Failure},
    peer::Peer,
    publish::ensure_folder,
};

fn main() -> ExitCode {
    daemon::main("certmgr", |daemon| daemon::block_on(16, serve(daemon)))
}

async fn serve(daemon: Daemon<CertmgrSettings>) -> Result<(), Failure> {
    let Daemon { config, settings, auditor, passed, .. } = daemon;
    let (state, public) = (config.paths.state_of("certmgr"), config.paths.public_of("certmgr"));
    // Others pass through to what is published; the records are the owner's alone by their own mode.
    ensure_folder(&state, 0o711)?;
    ensure_folder(&public, 0o755)?;
    let records = Records::open(&state.join("certmgr.db"), settings.store).await?;
    let client = Client::new(&passed, config.server("keyd")?, settings.keyring);
    let callers = Callers::root_and(&config, &["admin"]);
    let folders = Folders { certificates: public, lists: config.paths.public_of("ctlprovider") };
    let manager =
        Arc::new(Manager::new(client, records, config.node.clone(), folders, settings.rekey, Arc::clone(&auditor)));
    manager.republish().await?;
    let answer = move |request: Request, peer: Peer| {
        let manager = Arc::clone(&manager);
        async move { manager.answer(request, peer.uid).await }
    };
    let socket = config.paths.socket("certmgr");
    let mut service = pin!(control::serve(&passed, &socket, callers, settings.control, auditor, answer));
    // The first poll binds the socket: only then may anybody be told that we serve.
    tokio::select! {
        biased;
        ended = &mut service => return Ok(ended?),
        () = async { daemon::ready() } => {}
    }
    Ok(service.await?)
}
