use std::net::SocketAddr;

use casemate_store::sqlx;
use time::OffsetDateTime;

use super::{
    Records, RecordsError,
    operations::{Operation, State, end},
    outbox::{Due, Notice},
    touch,
};

/// A certificate that was signed and is not on record yet.
#[derive(Clone, Debug)]
pub struct NewCertificate {
    /// Hexadecimal.
    pub serial: String,
    /// SHA-256 of the `SubjectPublicKeyInfo`.
    pub key_digest: [u8; 32],
    /// SHA-256 of the message that asked.
    pub request_digest: [u8; 32],
    /// End of validity.
    pub not_after: OffsetDateTime,
    /// The certificate.
    pub der: Vec<u8>,
}

/// What became of a certificate that was to be recorded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Admission {
    /// It is on record now, and may be sent.
    Recorded,
    /// The operation had one for this key already: that one is to be sent.
    Known {
        /// Its serial, hexadecimal.
        serial: String,
        /// The certificate.
        der: Vec<u8>,
    },
    /// The operation is no longer pending: nothing may be sent.
    NotPending,
    /// The operation has had certificates for too many keys: nothing may be sent.
    TooMany,
}

impl Records {
    /// The certificate that `operation` has had for the key of this digest, as (serial, DER).
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn certificate(
        &self,
        operation: i64,
        key_digest: &[u8; 32],
    ) -> Result<Option<(String, Vec<u8>)>, RecordsError> {
        Ok(sqlx::query_as("SELECT serial, der FROM certificates WHERE operation = ? AND key_digest = ?")
            .bind(operation)
            .bind(key_digest.as_slice())
            .fetch_optional(self.store.readers())
            .await?)
    }

    /// How many certificates `operation` has had.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn certificates_of(&self, operation: i64) -> Result<u32, RecordsError> {
        Ok(sqlx::query_scalar("SELECT count(*) FROM certificates WHERE operation = ?")
            .bind(operation)
            .fetch_one(self.store.readers())
            .await?)
    }

    /// Records a signed certificate for the phone at `peer`, unless the operation ended meanwhile, has one for the same key, or
    /// has had `limit`.
    ///
    /// # Errors
    /// It is not on record and must not be sent.
    pub async fn admit(
        &self,
        operation: &Operation,
        new: NewCertificate,
        limit: u32,
        peer: SocketAddr,
        now: OffsetDateTime,
    ) -> Result<Admission, RecordsError> {
        let (id, device, mode, key) =
            (operation.id, operation.device.clone(), operation.mode.name(), operation.key.to_string());
        let (admission, due) = self
            .store
            .write::<_, RecordsError, _>(move |connection| {
                Box::pin(async move {
                    let digest = new.key_digest.as_slice();
                    let known: Option<(String, Vec<u8>)> =
                        sqlx::query_as("SELECT serial, der FROM certificates WHERE operation = ? AND key_digest = ?")
                            .bind(id)
                            .bind(digest)
                            .fetch_optional(&mut *connection)
                            .await?;
                    let (pending, had): (bool, u32) = sqlx::query_as(
                        "SELECT EXISTS (SELECT 1 FROM operations WHERE id = ?1 AND state = 'pending'),
                         (SELECT count(*) FROM certificates WHERE operation = ?1)",
                    )
                    .bind(id)
                    .fetch_one(&mut *connection)
                    .await?;
                    match (pending, known) {
                        (false, _) => return Ok((Admission::NotPending, None)),
                        (true, Some((serial, der))) => return Ok((Admission::Known { serial, der }, None)),
                        (true, None) if had >= limit => return Ok((Admission::TooMany, None)),
                        (true, None) => {}
                    }
                    sqlx::query(
                        "INSERT INTO certificates
                         (serial, operation, device, mode, key, key_digest, request_digest, not_after, der, issued)
                         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    )
                    .bind(&new.serial)
                    .bind(id)
                    .bind(device.as_str())
                    .bind(mode)
                    .bind(&key)
                    .bind(digest)
                    .bind(new.request_digest.as_slice())
                    .bind(new.not_after.unix_timestamp())
                    .bind(new.der)
                    .bind(now.unix_timestamp())
                    .execute(&mut *connection)
                    .await?;
                    let notice = Notice::Issued {
                        device: device.to_string(),
                        serial: new.serial,
                        operation: id,
                        mode: mode.to_owned(),
                        key,
                        key_digest: hex::encode(new.key_digest),
                        request_digest: hex::encode(new.request_digest),
                        peer,
                    };
                    Ok((Admission::Recorded, Some(Due::put(connection, notice).await?)))
                })
            })
            .await?;
        self.outbox.record(due);
        Ok(admission)
    }

    /// Records that the device, at `peer`, confirmed the certificate of `serial`, ends its operation and erases what was kept of the string.
    /// An operation that an operator replaced meanwhile stays replaced.
    ///
    /// # Errors
    /// Nothing was recorded; the operation is still pending.
    pub async fn deliver(
        &self,
        operation: &Operation,
        serial: String,
        peer: SocketAddr,
        now: OffsetDateTime,
    ) -> Result<(), RecordsError> {
        let (id, device, now) = (operation.id, operation.device.clone(), now.unix_timestamp());
        let due = self
            .store
            .write::<_, RecordsError, _>(move |connection| {
                Box::pin(async move {
                    sqlx::query("UPDATE certificates SET delivered = ? WHERE serial = ? AND delivered IS NULL")
                        .bind(now)
                        .bind(&serial)
                        .execute(&mut *connection)
                        .await?;
                    let is_pending: bool = sqlx::query_scalar(
                        "SELECT EXISTS (SELECT 1 FROM operations WHERE id = ? AND state = 'pending')",
                    )
                    .bind(id)
                    .fetch_one(&mut *connection)
                    .await?;
                    if is_pending {
                        end(connection, device.as_str(), State::Delivered, now).await?;
                        touch(connection, device.as_str()).await?;
                    }
                    let notice = Notice::Delivered { device: device.to_string(), serial, operation: id, peer };
                    Due::put(connection, notice).await
                })
            })
            .await?;
        self.outbox.record([due]);
        Ok(())
    }
}
