//! What a session asks for, done: records looked up, wrong strings counted, certificates signed and recorded.

mod claims;
mod conversation;

use std::{
    collections::HashSet,
    net::SocketAddr,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use aws_lc_rs::digest::{SHA256, digest};
use casemate_audit::Auditor;
use casemate_runtime::refusals::{Refusals, WINDOW};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
    task::spawn_blocking,
};

use self::{
    claims::{Claim, Claims},
    conversation::Conversation,
};
use crate::{
    DeviceName,
    authentication::Mode,
    issuer::{Issued, Issuer, Leaf},
    protocol::Password,
    records::{Admission, NewCertificate, Operation, Records, State},
    session::Refusal,
    settings::SessionLimits,
};

/// What audit events call this service.
const SERVICE: &str = "capf";

/// The enrolment service: everything that its sessions share.
pub struct Enrolment {
    records: Records,
    issuer: Arc<dyn Issuer>,
    auditor: Arc<Auditor>,
    /// Of peers that named no known device: anybody can cause them.
    strangers: Arc<Refusals>,
    /// Of peers that named a known device and proved nothing. Apart, for whoever knows no name must not hide them.
    unproven: Arc<Refusals>,
    limits: SessionLimits,
    signatures: Semaphore,
    claims: Claims,
    /// Operations with a wrong string that could not be counted. It is counted before the next one is looked at, or on a
    /// full disk strings could be tried without end.
    uncounted: Mutex<HashSet<i64>>,
    sessions: AtomicU32,
}

/// The device and operation that a session proved it may have.
struct Held {
    operation: Operation,
    _claim: Claim,
}

impl Enrolment {
    /// A service on these records that signs at most `signatures` certificates at a time, and audits at most `audited_refusals`
    /// refusals of strangers, and of unproven devices, in ten seconds.
    #[must_use]
    pub fn new(
        records: Records,
        issuer: Arc<dyn Issuer>,
        auditor: Arc<Auditor>,
        limits: SessionLimits,
        signatures: usize,
        audited_refusals: NonZeroU32,
    ) -> Self {
        let refusals = || Refusals::new(SERVICE, audited_refusals, WINDOW, Arc::clone(&auditor));
        Self {
            records,
            issuer,
            strangers: refusals(),
            unproven: refusals(),
            auditor,
            limits,
            signatures: Semaphore::new(signatures.max(1)),
            claims: Claims::default(),
            uncounted: Mutex::default(),
            sessions: AtomicU32::new(1),
        }
    }

    /// Its records.
    #[must_use]
    pub const fn records(&self) -> &Records {
        &self.records
    }

    /// Has a session with the phone at `peer` over `stream`, until it ends. TLS is the caller's.
    pub async fn converse(&self, stream: impl AsyncRead + AsyncWrite + Unpin, peer: SocketAddr) {
        let id = self.sessions.fetch_add(1, Ordering::Relaxed);
        Conversation::new(self, stream, peer, id).run().await;
    }

    /// Ends operations that have run out.
    ///
    /// # Errors
    /// The records cannot be written; the operations are refused as expired all the same.
    pub async fn expire(&self) -> Result<(), crate::records::RecordsError> {
        self.records.expire(OffsetDateTime::now_utc(), 256).await.map(drop)
    }

    /// The operation that `device` may have, if what it presented proves that.
    async fn look_up(
        &self,
        device: &DeviceName,
        presented: Option<Password>,
        peer: SocketAddr,
    ) -> Result<Held, Refusal> {
        // Held before the string is looked at: attempts at the same time must not escape the count.
        let claim = self.claims.claim(device).ok_or(Refusal::Busy)?;
        let operation = self.records.latest(device).await.map_err(unavailable)?.ok_or(Refusal::UnknownDevice)?;
        match operation.state {
            State::Delivered | State::Replaced => return Err(Refusal::NothingToDo),
            State::Locked => return Err(Refusal::Locked),
            State::Pending | State::Expired if operation.has_expired(OffsetDateTime::now_utc()) => {
                return Err(Refusal::Expired);
            }
            State::Pending | State::Expired => {}
        }
        if operation.mode == Mode::AuthenticationString {
            if self.uncounted().contains(&operation.id) {
                self.count_failure(&operation, peer).await?;
            }
            let presented = presented.ok_or(Refusal::StringMissing)?;
            if !self.records.is_string_of(&operation, &presented) {
                let left = self.count_failure(&operation, peer).await?;
                return Err(Refusal::WrongString { left });
            }
        }
        Ok(Held { operation, _claim: claim })
    }

    fn uncounted(&self) -> MutexGuard<'_, HashSet<i64>> {
        self.uncounted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a wrong string and says how many more are allowed; a refusal when that was the last.
    async fn count_failure(&self, operation: &Operation, peer: SocketAddr) -> Result<u32, Refusal> {
        self.uncounted().insert(operation.id);
        let failures = self
            .records
            .count_failure(operation, self.limits.failures, peer, OffsetDateTime::now_utc())
            .await
            .map_err(unavailable)?;
        self.uncounted().remove(&operation.id);
        let failures = failures.ok_or(Refusal::Changed)?;
        match self.limits.failures.saturating_sub(failures.count) {
            0 => Err(Refusal::Locked),
            left => Ok(left),
        }
    }

    /// The certificate of `operation` for this key, as (serial, DER): the one on record if there is one, else a new one that is
    /// on record when this returns. A crash between signature and record leaves a signature that nobody ever saw, and the next
    /// attempt makes another; so an operation never has two certificates for one key.
    async fn issue(
        &self,
        operation: &Operation,
        spki_der: Vec<u8>,
        request: &[u8],
        peer: SocketAddr,
    ) -> Result<(String, Vec<u8>), Refusal> {
        let key_digest = sha256(&spki_der);
        let limit = self.limits.certificates;
        // Nobody else certified a key of it since it was looked up: this session holds the device.
        if operation.certificates > 0
            && let Some(known) = self.records.certificate(operation.id, &key_digest).await.map_err(unavailable)?
        {
            return Ok(known);
        }
        if operation.certificates >= limit {
            return Err(Refusal::TooManyKeys { limit });
        }
        let leaf = Leaf { device: operation.device.clone(), operation: operation.id, spki_der };
        let Issued { serial, not_after, der } = self.sign(leaf).await?;
        let serial = hex::encode(serial);
        let new = NewCertificate {
            serial: serial.clone(),
            key_digest,
            request_digest: sha256(request),
            not_after,
            der: der.clone(),
        };
        let admission = self.records.admit(operation, new, limit, peer, OffsetDateTime::now_utc()).await;
        match admission.map_err(unavailable)? {
            Admission::Recorded => Ok((serial, der)),
            Admission::Known { serial, der } => Ok((serial, der)),
            Admission::NotPending => Err(Refusal::NothingToDo),
            Admission::TooMany => Err(Refusal::TooManyKeys { limit }),
        }
    }

    async fn sign(&self, leaf: Leaf) -> Result<Issued, Refusal> {
        let _place = self.signatures.acquire().await.map_err(unavailable)?;
        let issuer = Arc::clone(&self.issuer);
        spawn_blocking(move || issuer.issue(&leaf)).await.map_err(unavailable)?.map_err(unavailable)
    }

    /// Records that the phone has its certificate; the string is consumed when this returns.
    async fn deliver(&self, operation: &Operation, serial: String, peer: SocketAddr) -> Result<(), Refusal> {
        self.records.deliver(operation, serial, peer, OffsetDateTime::now_utc()).await.map_err(unavailable)
    }
}

fn unavailable(error: impl std::error::Error + 'static) -> Refusal {
    Refusal::Unavailable(casemate_runtime::daemon::chain(&error))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut array = [0; 32];
    array.copy_from_slice(digest(&SHA256, bytes).as_ref());
    array
}
