use std::{net::SocketAddr, time::Duration};

use casemate_hsm_api::KeyAlgorithm;
use casemate_store::sqlx::{self, SqliteConnection};
use time::OffsetDateTime;

use super::{
    Records, RecordsError, after,
    outbox::{Due, Notice},
    strange, touch,
};
use crate::{
    authentication::{AuthenticationString, Mode, Verifier},
    device::DeviceName,
    key,
};

/// How far an operation is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// The device may have a certificate.
    Pending,
    /// The device confirmed its certificate.
    Delivered,
    /// Too many wrong strings.
    Locked,
    /// It ran out.
    Expired,
    /// An operator set another one.
    Replaced,
}

impl State {
    const ALL: [Self; 5] = [Self::Pending, Self::Delivered, Self::Locked, Self::Expired, Self::Replaced];

    /// The word in records and for operators.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Locked => "locked",
            Self::Expired => "expired",
            Self::Replaced => "replaced",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// An install operation that an operator sets.
#[derive(Clone, Debug)]
pub struct NewOperation {
    /// For which device; it is added if it is new.
    pub device: DeviceName,
    /// The string, or nothing for the null string.
    pub string: Option<AuthenticationString>,
    /// The key that the device is to make.
    pub key: KeyAlgorithm,
    /// How long it may wait; nothing for ever.
    pub lifetime: Option<Duration>,
}

/// An operation on record.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Its number.
    pub id: i64,
    /// Whose.
    pub device: DeviceName,
    /// How the device proves itself.
    pub mode: Mode,
    /// The key that the device is to make.
    pub key: KeyAlgorithm,
    /// Where it stands.
    pub state: State,
    /// Wrong strings so far.
    pub failures: u32,
    /// When it runs out, in seconds since 1970.
    pub expires: Option<i64>,
    /// How many certificates it has had.
    pub certificates: u32,
    pub(super) verifier: Option<Verifier>,
}

impl Operation {
    /// Whether it has run out at `now`, recorded as such or not yet.
    #[must_use]
    pub fn has_expired(&self, now: OffsetDateTime) -> bool {
        self.state == State::Expired || self.expires.is_some_and(|end| end <= now.unix_timestamp())
    }
}

/// What a wrong string did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Failures {
    /// Wrong strings so far.
    pub count: u32,
    /// Whether this one locked the operation.
    pub locked: bool,
}

type Row = (i64, String, String, String, String, i64, Option<i64>, u32, Option<Vec<u8>>, Option<Vec<u8>>);

fn operation(
    (id, device, mode, key, state, failures, expires, certificates, salt, tag): Row,
) -> Result<Operation, RecordsError> {
    let verifier = match (salt, tag) {
        (Some(salt), Some(tag)) => Some(Verifier { salt: salt.try_into().map_err(|_| strange("salt", id))?, tag }),
        _ => None,
    };
    Ok(Operation {
        id,
        device: DeviceName::try_from(device).map_err(|_| strange("device", id))?,
        mode: Mode::from_name(&mode).ok_or_else(|| strange("mode", id))?,
        key: key::from_name(&key).ok_or_else(|| strange("key", id))?,
        state: State::from_name(&state).ok_or_else(|| strange("state", id))?,
        failures: u32::try_from(failures).map_err(|_| strange("failures", id))?,
        expires,
        certificates,
        verifier,
    })
}

impl Records {
    /// Sets `new` as the pending operation of its device for the user `uid`, in place of one that may be pending. Returns its
    /// number.
    ///
    /// # Errors
    /// Nothing was changed.
    pub async fn add(&self, new: NewOperation, uid: u32, now: OffsetDateTime) -> Result<i64, RecordsError> {
        let verifier = new.string.as_ref().map(|string| self.verifier(string)).transpose()?;
        let mode = if verifier.is_some() { Mode::AuthenticationString } else { Mode::NullString };
        let expires = new.lifetime.map(|lifetime| after(now, lifetime));
        let (salt, tag) = verifier.map(|verifier| (verifier.salt.to_vec(), verifier.tag)).unzip();
        let (id, due) = self
            .store
            .write::<_, RecordsError, _>(move |connection| {
                Box::pin(async move {
                    let (device, now) = (new.device.as_str(), now.unix_timestamp());
                    // Negative until `touch`, so that it is unique and no reader asks for it.
                    sqlx::query(
                        "INSERT INTO devices (name, sequence, added) SELECT ?1, -1, ?2
                         WHERE NOT EXISTS (SELECT 1 FROM devices WHERE name = ?1)",
                    )
                    .bind(device)
                    .bind(now)
                    .execute(&mut *connection)
                    .await?;
                    end(connection, device, State::Replaced, now).await?;
                    let id = sqlx::query_scalar(
                        "INSERT INTO operations (device, mode, key, salt, tag, state, created, expires)
                         VALUES (?, ?, ?, ?, ?, 'pending', ?, ?) RETURNING id",
                    )
                    .bind(device)
                    .bind(mode.name())
                    .bind(new.key.to_string())
                    .bind(salt)
                    .bind(tag)
                    .bind(now)
                    .bind(expires)
                    .fetch_one(&mut *connection)
                    .await?;
                    touch(connection, device).await?;
                    let (device, mode, key) = (device.to_owned(), mode.name().to_owned(), new.key.to_string());
                    Ok((id, Due::put(connection, Notice::Added { device, mode, key, uid }).await?))
                })
            })
            .await?;
        self.outbox.record([due]);
        Ok(id)
    }

    /// The latest operation of `device`; nothing for a device that nobody added.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn latest(&self, device: &DeviceName) -> Result<Option<Operation>, RecordsError> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT id, device, mode, key, state, failures, expires,
             (SELECT count(*) FROM certificates WHERE operation = operations.id), salt, tag FROM operations
             WHERE device = ? ORDER BY id DESC LIMIT 1",
        )
        .bind(device.as_str())
        .fetch_optional(self.store.readers())
        .await?;
        row.map(operation).transpose()
    }

    /// Counts a wrong string from `peer` against a pending operation and locks it at `limit`. What a locked operation kept of
    /// its string is erased. Nothing when the operation is no longer pending: there is nothing to count against.
    ///
    /// # Errors
    /// Nothing was counted; the attempt must then be treated as if the records were out of reach.
    pub async fn count_failure(
        &self,
        operation: &Operation,
        limit: u32,
        peer: SocketAddr,
        now: OffsetDateTime,
    ) -> Result<Option<Failures>, RecordsError> {
        let (id, device, now) = (operation.id, operation.device.clone(), now.unix_timestamp());
        let (failures, due) = self
            .store
            .write::<_, RecordsError, _>(move |connection| {
                Box::pin(async move {
                    let count: Option<i64> = sqlx::query_scalar(
                        "UPDATE operations SET failures = failures + 1 WHERE id = ? AND state = 'pending' RETURNING failures",
                    )
                    .bind(id)
                    .fetch_optional(&mut *connection)
                    .await?;
                    let Some(count) = count else { return Ok((None, None)) };
                    let count = u32::try_from(count).map_err(|_| strange("failures", id))?;
                    let locked = count >= limit && end(connection, device.as_str(), State::Locked, now).await?;
                    let mut due = None;
                    if locked {
                        touch(connection, device.as_str()).await?;
                        let notice = Notice::Locked { device: device.to_string(), failures: count, peer };
                        due = Some(Due::put(connection, notice).await?);
                    }
                    Ok((Some(Failures { count, locked }), due))
                })
            })
            .await?;
        self.outbox.record(due);
        Ok(failures)
    }

    /// Ends every pending operation that has run out at `now`, at most `limit` of them, and says which.
    ///
    /// # Errors
    /// Nothing was ended.
    pub async fn expire(&self, now: OffsetDateTime, limit: u32) -> Result<Vec<(DeviceName, i64)>, RecordsError> {
        let now = now.unix_timestamp();
        const FIND: &str = "SELECT device, id FROM operations WHERE state = 'pending' AND expires <= ? LIMIT ?";
        let found: Vec<(String, i64)> =
            sqlx::query_as(FIND).bind(now).bind(limit).fetch_all(self.store.readers()).await?;
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let (ended, due) = self
            .store
            .write::<_, RecordsError, _>(move |connection| {
                Box::pin(async move {
                    // Again, for a delivery may have been quicker.
                    let found: Vec<(String, i64)> =
                        sqlx::query_as(FIND).bind(now).bind(limit).fetch_all(&mut *connection).await?;
                    let (mut ended, mut due) = (Vec::with_capacity(found.len()), Vec::with_capacity(found.len()));
                    for (device, id) in found {
                        end(connection, &device, State::Expired, now).await?;
                        touch(connection, &device).await?;
                        let notice = Notice::Expired { device: device.clone(), operation: id };
                        due.push(Due::put(connection, notice).await?);
                        ended.push((DeviceName::try_from(device).map_err(|_| strange("device", id))?, id));
                    }
                    Ok((ended, due))
                })
            })
            .await?;
        self.outbox.record(due);
        Ok(ended)
    }
}

/// Ends the pending operation of `device`, if it has one, and erases what was kept of its string.
pub(super) async fn end(
    connection: &mut SqliteConnection,
    device: &str,
    state: State,
    now: i64,
) -> Result<bool, sqlx::Error> {
    let ended = sqlx::query(
        "UPDATE operations SET state = ?, ended = ?, salt = NULL, tag = NULL WHERE device = ? AND state = 'pending'",
    )
    .bind(state.name())
    .bind(now)
    .bind(device)
    .execute(connection)
    .await?;
    Ok(ended.rows_affected() > 0)
}
