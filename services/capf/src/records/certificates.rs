use std::net::SocketAddr;

use casemate_store::sqlx::{self, SqliteConnection, SqliteExecutor};
use time::OffsetDateTime;

use super::{
    Records, RecordsError,
    operations::{Operation, State},
    outbox::{Due, Notice},
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
        Ok(known(self.store.readers(), operation, key_digest).await?)
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
            (operation.id, operation.device.to_string(), operation.mode.name(), operation.key.to_string());
        let (admission, due) = self
            .store
            .write::<_, RecordsError, _>(move |connection| {
                Box::pin(async move {
                    let notice = Notice::Issued {
                        device: device.clone(),
                        serial: new.serial.clone(),
                        operation: id,
                        mode: mode.to_owned(),
                        key: key.clone(),
                        key_digest: hex::encode(new.key_digest),
                        request_digest: hex::encode(new.request_digest),
                        peer,
                    };
                    // One command, for each is a round trip to the thread of the connection. In several statements sqlx counts
                    // `?1`, `?2` anew, and `$1`, `$2` not.
                    let noticed: Option<i64> = sqlx::query_scalar(
                        "INSERT INTO certificates
                         (serial, operation, device, mode, key, key_digest, request_digest, not_after, der, issued)
                         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10
                         WHERE EXISTS (SELECT 1 FROM operations WHERE id = $2 AND state = 'pending')
                         AND NOT EXISTS (SELECT 1 FROM certificates WHERE operation = $2 AND key_digest = $6)
                         AND (SELECT count(*) FROM certificates WHERE operation = $2) < $11;
                         INSERT INTO outbox (notice) SELECT $12 WHERE changes() > 0 RETURNING id",
                    )
                    .bind(&new.serial)
                    .bind(id)
                    .bind(&device)
                    .bind(mode)
                    .bind(&key)
                    .bind(new.key_digest.as_slice())
                    .bind(new.request_digest.as_slice())
                    .bind(new.not_after.unix_timestamp())
                    .bind(new.der)
                    .bind(now.unix_timestamp())
                    .bind(limit)
                    .bind(notice.text()?)
                    .fetch_optional(&mut *connection)
                    .await?;
                    match noticed {
                        Some(noticed) => Ok((Admission::Recorded, Some(Due::of(noticed, notice)))),
                        None => Ok((why_not(connection, id, &new.key_digest).await?, None)),
                    }
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
        let (id, device, now) = (operation.id, operation.device.to_string(), now.unix_timestamp());
        let due = self
            .store
            .write::<_, RecordsError, _>(move |connection| {
                Box::pin(async move {
                    let notice =
                        Notice::Delivered { device: device.clone(), serial: serial.clone(), operation: id, peer };
                    // One command, as above. The device has changed only if the operation was still pending.
                    let noticed = sqlx::query_scalar(
                        "UPDATE certificates SET delivered = $1 WHERE serial = $2 AND delivered IS NULL;
                         UPDATE operations SET state = $3, ended = $1, salt = NULL, tag = NULL
                         WHERE id = $4 AND state = 'pending';
                         UPDATE sequence SET last = last + 1 WHERE changes() > 0;
                         UPDATE devices SET sequence = (SELECT last FROM sequence) WHERE name = $5 AND changes() > 0;
                         INSERT INTO outbox (notice) VALUES ($6) RETURNING id",
                    )
                    .bind(now)
                    .bind(&serial)
                    .bind(State::Delivered.name())
                    .bind(id)
                    .bind(&device)
                    .bind(notice.text()?)
                    .fetch_one(connection)
                    .await?;
                    Ok(Due::of(noticed, notice))
                })
            })
            .await?;
        self.outbox.record([due]);
        Ok(())
    }
}

/// Why the certificate for the key of this digest was not recorded.
async fn why_not(
    connection: &mut SqliteConnection,
    operation: i64,
    key_digest: &[u8; 32],
) -> Result<Admission, RecordsError> {
    let is_pending: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM operations WHERE id = ? AND state = 'pending')")
            .bind(operation)
            .fetch_one(&mut *connection)
            .await?;
    if !is_pending {
        return Ok(Admission::NotPending);
    }
    let known = known(connection, operation, key_digest).await?;
    Ok(known.map_or(Admission::TooMany, |(serial, der)| Admission::Known { serial, der }))
}

/// The certificate of `operation` for the key of this digest, as (serial, DER).
async fn known(
    from: impl SqliteExecutor<'_>,
    operation: i64,
    key_digest: &[u8; 32],
) -> Result<Option<(String, Vec<u8>)>, sqlx::Error> {
    sqlx::query_as("SELECT serial, der FROM certificates WHERE operation = ? AND key_digest = ?")
        .bind(operation)
        .bind(key_digest.as_slice())
        .fetch_optional(from)
        .await
}
