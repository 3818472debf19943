//! Audit events of changes on record, at least once each. The event of a change stands in `outbox` from the same commit as the
//! change, and goes when it has been recorded; what a killed process left there is recorded at the next start.
//!
//! What has been recorded is only remembered, and cleared now and then in one write: a commit a change would be twice the
//! synchronisations of the disk. A kill before that repeats events; operation and serial say that they are the same.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use casemate_audit::{Auditor, Event};
use casemate_store::{
    Store,
    sqlx::{self, SqliteConnection},
};
use serde::{Deserialize, Serialize};

use super::{RecordsError, strange};

/// Entries that one write clears, and that are read at a time: such a write must stay short.
const AT_A_TIME: usize = 1024;

/// An audit event that is due, as `outbox` holds it (JSON). Released fields stay; a new one needs a default.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Notice {
    /// [`Event::DeviceAdded`].
    Added { device: String, mode: String, key: String, uid: u32 },
    /// [`Event::DeviceLocked`].
    Locked { device: String, failures: u32, peer: SocketAddr },
    /// [`Event::OperationExpired`].
    Expired { device: String, operation: i64 },
    /// [`Event::CertificateIssued`].
    Issued {
        device: String,
        serial: String,
        operation: i64,
        mode: String,
        key: String,
        key_digest: String,
        request_digest: String,
        peer: SocketAddr,
    },
    /// [`Event::CertificateDelivered`].
    Delivered { device: String, serial: String, operation: i64, peer: SocketAddr },
}

impl Notice {
    /// As `outbox` holds it.
    pub(super) fn text(&self) -> Result<String, RecordsError> {
        // Numbers and texts alone: such JSON can always be written.
        serde_json::to_string(self).map_err(|_| strange("audit event", "this release"))
    }
}

impl From<Notice> for Event {
    fn from(notice: Notice) -> Self {
        match notice {
            Notice::Added { device, mode, key, uid } => Self::DeviceAdded { device, mode, key, uid },
            Notice::Locked { device, failures, peer } => {
                Self::DeviceLocked { device, failures, peer: peer.to_string() }
            }
            Notice::Expired { device, operation } => Self::OperationExpired { device, operation },
            Notice::Issued { device, serial, operation, mode, key, key_digest, request_digest, peer } => {
                let peer = peer.to_string();
                Self::CertificateIssued { device, serial, operation, mode, key, key_digest, request_digest, peer }
            }
            Notice::Delivered { device, serial, operation, peer } => {
                Self::CertificateDelivered { device, serial, operation, peer: peer.to_string() }
            }
        }
    }
}

/// A notice that stands in `outbox`; to be recorded once the write that put it there is acknowledged.
#[derive(Debug)]
pub(super) struct Due {
    id: i64,
    notice: Notice,
}

impl Due {
    /// `notice`, which stands in `outbox` under the number `id`.
    pub(super) const fn of(id: i64, notice: Notice) -> Self {
        Self { id, notice }
    }

    /// Puts `notice` into `outbox`, in the transaction of the change that it tells of.
    pub(super) async fn put(connection: &mut SqliteConnection, notice: Notice) -> Result<Self, RecordsError> {
        let id = sqlx::query_scalar("INSERT INTO outbox (notice) VALUES (?) RETURNING id")
            .bind(notice.text()?)
            .fetch_one(connection)
            .await?;
        Ok(Self { id, notice })
    }
}

/// The way from `outbox` to the audit trail. Cheap to clone.
#[derive(Clone)]
pub(super) struct Outbox {
    store: Store,
    auditor: Arc<Auditor>,
    /// Entries that were recorded and still stand in `outbox`.
    recorded: Arc<Mutex<Vec<i64>>>,
}

impl Outbox {
    pub(super) fn new(store: Store, auditor: Arc<Auditor>) -> Self {
        Self { store, auditor, recorded: Arc::default() }
    }

    /// Records what is due, and remembers to clear it.
    pub(super) fn record(&self, due: impl IntoIterator<Item = Due>) {
        for Due { id, notice } in due {
            self.auditor.record(&notice.into());
            self.remember([id]);
        }
    }

    /// Records what an earlier process left, in the order of its commits.
    pub(super) async fn record_left(&self) -> Result<(), RecordsError> {
        loop {
            let left: Vec<(i64, String)> = sqlx::query_as("SELECT id, notice FROM outbox ORDER BY id LIMIT ?")
                .bind(i64::try_from(AT_A_TIME).unwrap_or(i64::MAX))
                .fetch_all(self.store.readers())
                .await?;
            if left.is_empty() {
                return Ok(());
            }
            for (id, text) in left {
                let notice = serde_json::from_str(&text).map_err(|_| strange("audit event", id))?;
                self.record([Due { id, notice }]);
            }
            self.clear().await?;
        }
    }

    /// Clears what has been recorded, in one write for up to [`AT_A_TIME`] entries and none for none.
    pub(super) async fn clear(&self) -> Result<(), RecordsError> {
        loop {
            let some = self.take_some();
            if some.is_empty() {
                return Ok(());
            }
            let ids = serde_json::to_string(&some).map_err(|_| strange("audit event", "this release"))?;
            let cleared: Result<(), RecordsError> = self
                .store
                .write(move |connection| {
                    Box::pin(async move {
                        sqlx::query("DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(?))")
                            .bind(ids)
                            .execute(connection)
                            .await?;
                        Ok(())
                    })
                })
                .await;
            if let Err(error) = cleared {
                self.remember(some);
                return Err(error);
            }
        }
    }

    fn remember(&self, ids: impl IntoIterator<Item = i64>) {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
    }

    fn take_some(&self) -> Vec<i64> {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        let from = recorded.len().saturating_sub(AT_A_TIME);
        recorded.split_off(from)
    }
}

#[cfg(test)]
mod tests {
    use casemate_audit::AuditSettings;
    use casemate_hsm_api::KeyAlgorithm;
    use casemate_store::StoreSettings;
    use time::OffsetDateTime;

    use super::super::{NewOperation, Records};
    use super::*;

    #[tokio::test]
    async fn an_audited_change_is_one_commit_and_clearing_many_is_one_more() {
        let dir = tempfile::tempdir().unwrap();
        let trail = AuditSettings { journal_socket: dir.path().join("absent"), file: dir.path().join("journal.jsonl") };
        let auditor = Arc::new(Auditor::open("casemate-capf", &trail).unwrap());
        let records = Records::open(&dir.path().join("capf.db"), StoreSettings::default(), auditor).await.unwrap();
        let before = records.store.commits();
        for number in 0..20 {
            let device = format!("SEP{number:012}").parse().unwrap();
            let new = NewOperation { device, string: None, key: KeyAlgorithm::P256, lifetime: None };
            records.add(new, 0, OffsetDateTime::UNIX_EPOCH).await.unwrap();
        }
        let unrecorded = Notice::Expired { device: "SEP000000000000".into(), operation: 1 };
        let put = records.store.write(|connection| Box::pin(Due::put(connection, unrecorded)));
        put.await.unwrap();
        assert_eq!(records.store.commits() - before, 21);
        for _ in 0..3 {
            records.forget_recorded_events().await.unwrap();
            assert_eq!(records.store.commits() - before, 22);
        }
        let left: i64 =
            sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(records.store.readers()).await.unwrap();
        assert_eq!(left, 1, "what is not in the trail is not forgotten");
    }
}
