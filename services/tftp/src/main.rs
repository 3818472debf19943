//! `casemate-tftp`: gives phones their trust list and configuration.
//!
//! Phones talk to it over TFTP (UDP 69), HTTP (6970) and HTTPS (6971). It reads what ctlprovider publishes and certmgr's
//! public certificates, and may ask the key broker for nothing but signatures of TLS handshakes. While the broker is away,
//! new HTTPS connections fail and everything else is served; while ctlprovider is away, what it published last is served.
#![forbid(unsafe_code)]

use std::{process::ExitCode, sync::Arc, time::Duration};

use casemate_hsm_api::KeyRole;
use casemate_keyring::{Certificates, Client};
use casemate_policy::TlsProfile;
use casemate_runtime::{
    daemon::{self, Daemon, Failure},
    listener::{self, Gate},
    refusals::{self, Refusals},
};
use casemate_tftp::{
    files::{CacheLimits, Files, interval},
    http,
    name::Transport,
    settings::Settings,
    udp,
};

/// Threads that read files, beside those that wait for handshakes.
const FILE_THREADS: usize = 4;

fn main() -> ExitCode {
    daemon::main("tftp", |daemon: Daemon<Settings>| {
        let threads = daemon.settings.connections.handshakes + FILE_THREADS;
        daemon::block_on(threads, serve(daemon))
    })
}

async fn serve(daemon: Daemon<Settings>) -> Result<(), Failure> {
    let Daemon { config, settings, auditor, passed, .. } = daemon;
    let address = config.node.address;
    let poll = interval(settings.poll_ms);
    let files = Arc::new(Files::new(
        &config.paths.public_of("ctlprovider"),
        CacheLimits { bytes: settings.cache_bytes, file_bytes: settings.file_bytes, poll },
    ));
    let refusals = |transport: Transport| {
        Refusals::new(transport.name(), settings.audited_refusals, refusals::WINDOW, Arc::clone(&auditor))
    };

    let broker = Client::new(&passed, config.server("keyd")?, settings.keyring);
    // Guide 3010: 6971 presents either CallManager certificate. Phones take the elliptic-curve one.
    let roles = [KeyRole::CallManagerEcdsa, KeyRole::CallManager];
    let certificates = Certificates::new(broker, &config.paths.public_of("certmgr"), &roles);
    let tls =
        TlsProfile::new(&passed, config.mode).server(Arc::clone(&certificates) as _, settings.connections.sessions)?;

    let udp = udp::Server::new(Arc::clone(&files), refusals(Transport::Tftp), settings.udp, &auditor);
    let web = |transport| {
        let (files, refusals) = (Arc::clone(&files), refusals(transport));
        Arc::new(http::Server { files, transport, refusals, settings: settings.http })
    };
    let (plain, secure) = (web(Transport::Http), web(Transport::Https));

    let socket = listener::bind_udp(&passed, (address, settings.tftp_port).into()).await?;
    let http = listener::bind(&passed, (address, settings.http_port).into()).await?;
    let https = listener::bind(&passed, (address, settings.https_port).into()).await?;
    daemon::ready();

    let http_gate = Gate::new("http", settings.connections, Arc::clone(&auditor));
    let https_gate = Gate::new("https", settings.connections, Arc::clone(&auditor));
    tokio::select! {
        ended = udp::serve(socket, Arc::new(udp)) => ended?,
        () = listener::serve(http, http_gate, move |stream, peer| {
            let plain = Arc::clone(&plain);
            async move { plain.connection(stream, peer.to_string()).await }
        }) => {}
        () = listener::serve_tls(https, https_gate, tls, move |stream, peer| {
            let secure = Arc::clone(&secure);
            async move { secure.connection(stream, peer.to_string()).await }
        }) => {}
        () = refresh(certificates, poll) => {}
    }
    Ok(())
}

/// Looks for new certificates for ever; the first look may wait for the broker and holds nobody up.
async fn refresh(certificates: Arc<Certificates>, poll: Duration) {
    loop {
        let looked = Arc::clone(&certificates);
        if let Err(error) = tokio::task::spawn_blocking(move || looked.refresh()).await {
            tracing::error!(%error, "certificates not looked at");
        }
        tokio::time::sleep(poll).await;
    }
}
