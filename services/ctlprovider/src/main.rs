//! The trust list provider: builds and signs the trust list and the phones' configuration files.
//!
//! Nobody talks to it. It looks at the certificates that certmgr publishes and asks capf which devices changed; keyd signs for
//! it: it alone may have lists and files signed. It writes `<state>/ctlprovider/public/`, from where tftp serves, and has no
//! network. While certmgr, capf or keyd are away, what is published stays, and it looks again.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use casemate_ctlprovider::{CtlproviderSettings, Provider};
use casemate_keyring::Client;
use casemate_runtime::{
    daemon::{self, Daemon, Failure},
    publish::ensure_folder,
};
use tokio::task::spawn_blocking;

fn main() -> ExitCode {
    daemon::main("ctlprovider", |daemon| daemon::block_on(2, serve(daemon)))
}

async fn serve(daemon: Daemon<CtlproviderSettings>) -> Result<(), Failure> {
    let Daemon { config, settings, auditor, passed, .. } = daemon;
    ensure_folder(&config.paths.state_of("ctlprovider"), 0o711)?;
    ensure_folder(&config.paths.public_of("ctlprovider"), 0o755)?;
    let client = Client::new(&passed, config.server("keyd")?, settings.keyring);
    let mut provider = Provider::new(&config, settings, client, auditor)?;
    daemon::ready();
    loop {
        let (looked, wait) = spawn_blocking(move || {
            let wait = provider.look();
            (provider, wait)
        })
        .await?;
        provider = looked;
        tokio::time::sleep(wait).await;
    }
}
