//! `casemate-tvs`: answers phones that ask whether a certificate is to be trusted.
//!
//! Phones talk to it over TLS on port 2445. It reads the certificates that certmgr publishes, and may ask the key broker for
//! nothing but signatures of its own TLS handshakes. While the broker is away, new connections fail and those that stand are
//! served; while certmgr is away, what it published last is what is trusted.
#![forbid(unsafe_code)]

use std::{process::ExitCode, sync::Arc, time::Duration};

use casemate_hsm_api::KeyRole;
use casemate_keyring::{Certificates, Client};
use casemate_policy::TlsProfile;
use casemate_runtime::{
    daemon::{self, Daemon, Failure},
    listener::{self, Gate},
    refusals::{Refusals, WINDOW},
};
use casemate_tvs::{
    answers::Answers, connection::Service, identities::Identities, settings::Settings, trust::TrustStore,
};
use tokio::sync::watch;

/// Threads that look at files, beside those that wait for handshakes.
const FILE_THREADS: usize = 2;

fn main() -> ExitCode {
    daemon::main("tvs", |daemon: Daemon<Settings>| {
        let threads = daemon.settings.connections.handshakes + FILE_THREADS;
        daemon::block_on(threads, serve(daemon))
    })
}

async fn serve(daemon: Daemon<Settings>) -> Result<(), Failure> {
    let Daemon { config, settings, auditor, passed, .. } = daemon;
    let poll = Duration::from_millis(settings.poll_ms.get());
    let folder = config.paths.public_of("certmgr");

    let broker = Client::new(&passed, config.server("keyd")?, settings.keyring);
    let certificates = Certificates::new(broker, &folder, &[KeyRole::Tvs]);
    let tls =
        TlsProfile::new(&passed, config.mode).server(Arc::clone(&certificates) as _, settings.connections.sessions)?;

    let mut identities = Identities::new(&folder);
    let (publish, trust) = watch::channel(Arc::new(identities.refresh().unwrap_or_default()));
    let refusals = Refusals::new("tvs", settings.audited_refusals, WINDOW, Arc::clone(&auditor));
    let answers = Answers::new(settings.audited_answers, WINDOW, &auditor);
    let service = Arc::new(Service { trust, answers, refusals, settings });

    let listener = listener::bind(&passed, (config.node.address, settings.port).into()).await?;
    daemon::ready();

    let gate = Gate::new("tvs", settings.connections, auditor);
    tokio::select! {
        () = listener::serve_tls(listener, gate, tls, move |stream, peer| {
            let service = Arc::clone(&service);
            async move { service.connection(stream, peer.to_string()).await }
        }) => {}
        ended = follow(identities, publish, poll) => ended?,
        () = present(certificates, poll) => {}
    }
    Ok(())
}

/// Publishes the trust store of the moment to the connections, for ever.
async fn follow(
    mut identities: Identities,
    publish: watch::Sender<Arc<TrustStore>>,
    poll: Duration,
) -> Result<(), Failure> {
    loop {
        tokio::time::sleep(poll).await;
        let (looked, changed) = tokio::task::spawn_blocking(move || {
            let changed = identities.refresh();
            (identities, changed)
        })
        .await?;
        identities = looked;
        if let Some(store) = changed {
            tracing::info!(certificates = store.len(), "trust store changed");
            publish.send_replace(Arc::new(store));
        }
    }
}

/// Looks for a new certificate of TVS itself, for ever; the first look may wait for the broker and holds nobody up.
async fn present(certificates: Arc<Certificates>, poll: Duration) {
    loop {
        let looked = Arc::clone(&certificates);
        if let Err(error) = tokio::task::spawn_blocking(move || looked.refresh()).await {
            tracing::error!(%error, "certificates not looked at");
        }
        tokio::time::sleep(poll).await;
    }
}
