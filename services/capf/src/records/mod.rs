//! What CAPF remembers: devices, their certificate operations, and every certificate. All of it is on disk before it is
//! acted upon (`services/store`).

mod certificates;
mod operations;
mod outbox;
mod schema;
mod views;

use std::{path::Path, sync::Arc, time::Duration};

use aws_lc_rs::rand;
use casemate_audit::Auditor;
use casemate_store::{
    Store, StoreError, StoreSettings,
    sqlx::{self, SqliteConnection},
};
use time::OffsetDateTime;

use self::outbox::Outbox;
pub use self::{
    certificates::{Admission, NewCertificate},
    operations::{Failures, NewOperation, Operation, State},
};
use crate::{
    authentication::{AuthenticationString, NoRandom, Verifier, VerifierKey},
    protocol::Password,
};

/// A record could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RecordsError {
    /// The store failed.
    #[error("CAPF records: {0}")]
    Store(#[from] StoreError),
    /// The module gives no random bytes.
    #[error(transparent)]
    Random(#[from] NoRandom),
    /// A record holds what no release wrote: somebody changed the file.
    #[error("CAPF records: {what} of {of} is none; the file was changed by hand, restore a backup")]
    Strange {
        /// Which field.
        what: &'static str,
        /// Of which device or operation.
        of: String,
    },
}

impl From<sqlx::Error> for RecordsError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// The records of CAPF. What is changed here is audited here, for the event belongs to the commit. Cheap to clone.
#[derive(Clone)]
pub struct Records {
    store: Store,
    key: VerifierKey,
    outbox: Outbox,
}

impl Records {
    /// Opens or makes the file at `path`. Changes go to `auditor`, first those that an earlier process was stopped before
    /// recording.
    ///
    /// # Errors
    /// It cannot be used.
    pub async fn open(path: &Path, settings: StoreSettings, auditor: Arc<Auditor>) -> Result<Self, RecordsError> {
        let store = Store::open(path, schema::MIGRATIONS, settings).await?;
        let mut fresh = zeroize::Zeroizing::new([0; 32]);
        rand::fill(fresh.as_mut()).map_err(|_| NoRandom)?;
        let key: Vec<u8> = store
            .write::<_, RecordsError, _>(move |connection| {
                Box::pin(async move {
                    sqlx::query("INSERT OR IGNORE INTO verifier_key (one, key) VALUES (1, ?)")
                        .bind(fresh.to_vec())
                        .execute(&mut *connection)
                        .await?;
                    Ok(sqlx::query_scalar("SELECT key FROM verifier_key").fetch_one(connection).await?)
                })
            })
            .await?;
        let key = zeroize::Zeroizing::new(key);
        let key = key.as_slice().try_into().map_err(|_| strange("key of verifiers", "this store"))?;
        let outbox = Outbox::new(store.clone(), auditor);
        outbox.record_left().await?;
        Ok(Self { store, key: VerifierKey::new(key), outbox })
    }

    /// Forgets audit events that are in the trail. Without this they would be recorded again at the next start; often, it
    /// costs one write for all of them, and none when there are none.
    ///
    /// # Errors
    /// They are still kept, and forgotten by the next call.
    pub async fn forget_recorded_events(&self) -> Result<(), RecordsError> {
        self.outbox.clear().await
    }

    /// Whether `presented` is the string of `operation`. A null-string operation has none, so nothing is.
    #[must_use]
    pub fn is_string_of(&self, operation: &Operation, presented: &Password) -> bool {
        operation.verifier.as_ref().is_some_and(|verifier| self.key.matches(verifier, presented))
    }

    fn verifier(&self, string: &AuthenticationString) -> Result<Verifier, NoRandom> {
        self.key.verifier(string)
    }
}

fn strange(what: &'static str, of: impl ToString) -> RecordsError {
    RecordsError::Strange { what, of: of.to_string() }
}

/// Gives `device` the next number of change.
async fn touch(connection: &mut SqliteConnection, device: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE sequence SET last = last + 1").execute(&mut *connection).await?;
    sqlx::query("UPDATE devices SET sequence = (SELECT last FROM sequence) WHERE name = ?")
        .bind(device)
        .execute(connection)
        .await?;
    Ok(())
}

/// `now` and `later` after it, in whole seconds since 1970.
fn after(now: OffsetDateTime, later: Duration) -> i64 {
    now.unix_timestamp().saturating_add_unsigned(later.as_secs())
}
