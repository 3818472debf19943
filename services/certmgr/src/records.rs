use std::path::Path;

use casemate_hsm_api::KeyRole;
use casemate_store::{Migration, Store, StoreError, StoreSettings, sqlx};

use crate::CertmgrError;

/// Every certificate ever issued stays: what a phone once trusted can be looked up.
const MIGRATIONS: &[Migration] = &[Migration {
    number: 1,
    name: "identities",
    sql: "CREATE TABLE identities (
            id INTEGER PRIMARY KEY,
            role TEXT NOT NULL,
            serial TEXT NOT NULL,
            fingerprint TEXT NOT NULL UNIQUE,
            key_fingerprint TEXT NOT NULL,
            token TEXT NOT NULL,
            der BLOB NOT NULL,
            issued_at INTEGER NOT NULL
          ) STRICT;
          CREATE INDEX identities_of_role ON identities (role, id);",
}];

/// A certificate on record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Recorded {
    /// What it is for.
    pub(crate) role: KeyRole,
    /// Serial number, hexadecimal.
    pub(crate) serial: String,
    /// SHA-256 of the certificate, hexadecimal.
    pub(crate) fingerprint: String,
    /// SHA-256 of the `SubjectPublicKeyInfo`, hexadecimal.
    pub(crate) key_fingerprint: String,
    /// Serial of the token.
    pub(crate) token: String,
    /// The certificate.
    pub(crate) der: Vec<u8>,
    /// Unix seconds.
    pub(crate) issued_at: i64,
}

type Row = (String, String, String, String, String, Vec<u8>, i64);

impl TryFrom<Row> for Recorded {
    type Error = CertmgrError;

    fn try_from(row: Row) -> Result<Self, CertmgrError> {
        let (role, serial, fingerprint, key_fingerprint, token, der, issued_at) = row;
        let role = role.parse().map_err(|_| CertmgrError::UnknownRole(role))?;
        Ok(Self { role, serial, fingerprint, key_fingerprint, token, der, issued_at })
    }
}

/// `certmgr.db`: the identity certificates, past and current. Cheap to clone.
#[derive(Clone)]
pub struct Records(Store);

impl Records {
    /// Opens the file at `path`, or makes it.
    ///
    /// # Errors
    /// It is damaged, or of a newer release.
    pub async fn open(path: &Path, settings: StoreSettings) -> Result<Self, StoreError> {
        Store::open(path, MIGRATIONS, settings).await.map(Self)
    }

    /// The newest certificate of `role`.
    pub(crate) async fn current(&self, role: KeyRole) -> Result<Option<Recorded>, CertmgrError> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT role, serial, fingerprint, key_fingerprint, token, der, issued_at FROM identities
             WHERE role = ? ORDER BY id DESC LIMIT 1",
        )
        .bind(role.name())
        .fetch_optional(self.0.readers())
        .await?;
        row.map(Recorded::try_from).transpose()
    }

    /// The newest certificate of each role that has one.
    pub(crate) async fn all_current(&self) -> Result<Vec<Recorded>, CertmgrError> {
        let mut all = Vec::with_capacity(KeyRole::ALL.len());
        for role in KeyRole::ALL {
            all.extend(self.current(role).await?);
        }
        Ok(all)
    }

    /// Records a new certificate; it is on disk when this returns.
    pub(crate) async fn add(&self, new: Recorded) -> Result<(), CertmgrError> {
        self.0
            .write(move |connection| {
                Box::pin(async move {
                    sqlx::query(
                        "INSERT INTO identities (role, serial, fingerprint, key_fingerprint, token, der, issued_at)
                         VALUES (?, ?, ?, ?, ?, ?, ?)",
                    )
                    .bind(new.role.name())
                    .bind(new.serial)
                    .bind(new.fingerprint)
                    .bind(new.key_fingerprint)
                    .bind(new.token)
                    .bind(new.der)
                    .bind(new.issued_at)
                    .execute(connection)
                    .await?;
                    Ok(())
                })
            })
            .await
    }
}
