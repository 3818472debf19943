use std::{net::SocketAddr, sync::Arc, thread, time::Duration};

use casemate_hsm_api::KeyRole;
use casemate_keyring::{Certificates, Client};
use casemate_policy::TlsProfile;
use casemate_runtime::{
    control::serve as serve_control,
    daemon::{Daemon, Failure, block_on_workers, ready},
    listener::{Gate, bind, serve_tls},
    publish::ensure_folder,
    refusals::{Refusals, WINDOW},
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::TcpStream,
    time::{Interval, MissedTickBehavior, interval},
};

use crate::{
    control::{Rights, answer},
    enrolment::Enrolment,
    issuer::KeydIssuer,
    records::Records,
    settings::CapfSettings,
};

/// Serves until told to stop.
///
/// # Errors
/// The records, a socket or the TLS profile cannot be used.
pub fn serve(daemon: Daemon<CapfSettings>) -> Result<(), Failure> {
    let blocking = daemon.settings.limits.handshakes + daemon.settings.signatures + 8;
    // Handshakes and signatures have threads of their own; what is left of 1,000 enrolments a second is a third of a core.
    block_on_workers(1, blocking, run(daemon))
}

async fn run(daemon: Daemon<CapfSettings>) -> Result<(), Failure> {
    let Daemon { config, settings, auditor, passed, .. } = daemon;
    let state = config.paths.state_of("capf");
    ensure_folder(&state, 0o700)?;
    let records = Records::open(&state.join("capf.db"), settings.store, Arc::clone(&auditor)).await?;

    let published = config.paths.public_of("certmgr");
    let client = Client::new(&passed, config.server("keyd")?, settings.keyring);
    let certificates = Certificates::new(client.clone(), &published, &[KeyRole::Capf]);
    let issuer = Arc::new(KeydIssuer::new(client, &published, settings.validity_days.into()));
    watch(Arc::clone(&certificates), Arc::clone(&issuer), Duration::from_millis(settings.watch_ms))?;

    // A phone enrols once: it has no use for a ticket.
    let tls = TlsProfile::new(&passed, config.mode).server(certificates.clone(), 0)?;
    let enrolment = Arc::new(Enrolment::new(
        records,
        issuer.clone(),
        Arc::clone(&auditor),
        settings.session,
        settings.signatures,
        settings.audited_refusals,
    ));
    let listener = bind(&passed, SocketAddr::new(config.node.address, settings.port)).await?;
    let gate = Gate::new("capf", settings.limits, Arc::clone(&auditor));
    let phones = {
        let enrolment = Arc::clone(&enrolment);
        let is_ready = move || certificates.complete() && issuer.is_ready();
        async move {
            // Phones that come before the first provisioning wait in the listener's queue.
            until(is_ready, Duration::from_millis(settings.watch_ms)).await;
            serve_tls(listener, gate, tls, move |stream, peer| {
                let enrolment = Arc::clone(&enrolment);
                async move {
                    find_out_when_gone(stream.get_ref().0, settings.session.gone_after_s);
                    enrolment.converse(stream, peer).await;
                }
            })
            .await;
        }
    };
    let socket = config.paths.socket("capf");
    let refusals =
        Refusals::new(socket.display().to_string(), settings.control.audited_refusals, WINDOW, Arc::clone(&auditor));
    let rights = Rights::of(&config, refusals);
    let operators = {
        let enrolment = Arc::clone(&enrolment);
        serve_control(&passed, &socket, rights.any(), settings.control, auditor, move |request, caller| {
            let (enrolment, rights) = (Arc::clone(&enrolment), rights.clone());
            async move { answer(&enrolment, &settings, &rights, request, caller).await }
        })
    };
    tokio::select! {
        // In this order: the first poll binds the socket, and only then may anybody be told that we serve.
        biased;
        outcome = operators => Ok(outcome?),
        () = async { ready(); phones.await } => Ok(()),
        () = expire(&enrolment, Duration::from_millis(settings.expiry_ms)) => Ok(()),
        () = forget_recorded_events(&enrolment, Duration::from_millis(settings.outbox_ms)) => Ok(()),
    }
}

/// Looks for a new CAPF certificate for ever, on a thread of its own, for it waits for the disk and the key broker.
fn watch(certificates: Arc<Certificates>, issuer: Arc<KeydIssuer>, period: Duration) -> Result<(), Failure> {
    thread::Builder::new().name("capf-watch".into()).spawn(move || {
        let mut said = None;
        loop {
            certificates.refresh();
            let trouble = issuer.refresh().err().map(|error| error.to_string());
            if trouble != said {
                if let Some(trouble) = &trouble {
                    tracing::warn!(%trouble, "the CAPF certificate before is kept");
                }
                said = trouble;
            }
            thread::sleep(period);
        }
    })?;
    Ok(())
}

async fn until(condition: impl Fn() -> bool, period: Duration) {
    while !condition() {
        tokio::time::sleep(period).await;
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn forget_recorded_events(enrolment: &Enrolment, period: Duration) {
    let mut ticks = ticks(period);
    loop {
        ticks.tick().await;
        if let Err(error) = enrolment.records().forget_recorded_events().await {
            tracing::warn!(%error, "audit events may be repeated at the next start");
        }
    }
}

async fn expire(enrolment: &Enrolment, period: Duration) {
    let mut ticks = ticks(period);
    loop {
        ticks.tick().await;
        if let Err(error) = enrolment.expire().await {
            tracing::warn!(%error, "expired operations are not ended on record; they are refused all the same");
        }
    }
}

/// Lets TCP find out when the phone is gone: its device is held until then, and the key may take it half an hour.
fn find_out_when_gone(stream: &TcpStream, seconds: u64) {
    const PROBES: u32 = 2;
    let each = Duration::from_secs((seconds / u64::from(PROBES + 1)).max(1));
    let keepalive = TcpKeepalive::new().with_time(each).with_interval(each).with_retries(PROBES);
    if let Err(error) = SockRef::from(stream).set_tcp_keepalive(&keepalive) {
        tracing::debug!(%error, "no keep-alive on this connection");
    }
}
