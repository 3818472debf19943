use std::{path::Path, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use casemate_hsm_api::{Backup, KeyAlgorithm, KeyId, KeyRole, KeySpec};
use casemate_keyring::KeyRecord;
use casemate_pki::TbsFacts;
use casemate_store::{
    Migration, Store, StoreError, StoreSettings,
    sqlx::{self, Connection, SqliteConnection},
};
use tokio::runtime::Handle;

use crate::KeydError;

/// How many certificates of one key by itself are remembered; older ones are forgotten. More than one of a subject: until the
/// newest is published, or if it never is, files are signed under the one before it.
const CERTIFICATES: i64 = 8;

const MIGRATIONS: &[Migration] = &[
    Migration {
        number: 1,
        name: "keys",
        sql: "
        -- A key that is made, or (spki is null) is being made. The row is there before the token is asked for the key.
        CREATE TABLE keys (
            role      TEXT PRIMARY KEY,
            key_id    TEXT NOT NULL UNIQUE,
            token     TEXT NOT NULL,
            algorithm TEXT NOT NULL,
            backup    TEXT NOT NULL,
            spki      BLOB
        ) STRICT;
        -- TBSCertificates that a key signed for itself, the newest of each subject.
        CREATE TABLE certificates (
            number  INTEGER PRIMARY KEY,
            role    TEXT NOT NULL REFERENCES keys (role),
            subject BLOB NOT NULL,
            tbs     BLOB NOT NULL,
            UNIQUE (role, subject)
        ) STRICT;",
    },
    Migration {
        number: 2,
        name: "several certificates of one subject",
        sql: "
        CREATE TABLE newest (
            number  INTEGER PRIMARY KEY,
            role    TEXT NOT NULL REFERENCES keys (role),
            tbs     BLOB NOT NULL
        ) STRICT;
        INSERT INTO newest SELECT number, role, tbs FROM certificates;
        DROP TABLE certificates;
        ALTER TABLE newest RENAME TO certificates;",
    },
    Migration {
        number: 3,
        name: "how the token was named",
        sql: "
        -- The token's name in role-tokens.toml when the key was made; null in records of before that file.
        ALTER TABLE keys ADD COLUMN place TEXT;",
    },
    Migration {
        number: 4,
        name: "a key and the next",
        sql: "
        -- The key that is to follow a role's key, from before it is made until it does.
        CREATE TABLE next_keys (
            role      TEXT PRIMARY KEY REFERENCES keys (role),
            key_id    TEXT NOT NULL UNIQUE,
            token     TEXT NOT NULL,
            place     TEXT,
            algorithm TEXT NOT NULL,
            backup    TEXT NOT NULL,
            spki      BLOB
        ) STRICT;
        -- Keys that another one followed. They are in their tokens still, and sign nothing.
        CREATE TABLE retired_keys (
            number    INTEGER PRIMARY KEY,
            role      TEXT NOT NULL,
            key_id    TEXT NOT NULL UNIQUE,
            token     TEXT NOT NULL,
            place     TEXT,
            algorithm TEXT NOT NULL,
            backup    TEXT NOT NULL,
            spki      BLOB NOT NULL
        ) STRICT;",
    },
];

/// Which key of its role a key is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Slot {
    /// The one that serves.
    Current,
    /// The one that is to follow it.
    Next,
}

/// Everything on record.
#[derive(Default)]
pub(crate) struct All {
    pub(crate) current: Vec<Arc<Recorded>>,
    pub(crate) next: Vec<Arc<Recorded>>,
    /// Oldest first.
    pub(crate) retired: Vec<Arc<Recorded>>,
}

/// A key on record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Recorded {
    pub(crate) role: KeyRole,
    pub(crate) id: KeyId,
    /// Serial of the token that made it or is to make it.
    pub(crate) token: String,
    /// How `role-tokens.toml` named that token then; nothing in a record of before that file.
    pub(crate) place: Option<String>,
    pub(crate) spec: KeySpec,
    /// The public half; nothing while it is being made.
    pub(crate) spki: Option<Vec<u8>>,
    /// What it was certified as by itself, newest last. Only the signed parts: each was recorded before it was signed.
    pub(crate) certificates: Vec<TbsFacts>,
}

impl Recorded {
    /// As callers see it, once it is made.
    pub(crate) fn public(&self) -> Option<KeyRecord> {
        let spki = self.spki.as_ref()?;
        Some(KeyRecord {
            role: self.role,
            algorithm: self.spec.algorithm,
            backup: self.spec.backup,
            key_id: self.id.to_string(),
            token: self.token.clone(),
            fingerprint: fingerprint(spki),
            spki_der: spki.clone(),
        })
    }
}

/// SHA-256 of a `SubjectPublicKeyInfo` in hexadecimal.
pub(crate) fn fingerprint(spki: &[u8]) -> String {
    hex::encode(digest(&SHA256, spki))
}

/// The records of keys, for threads that may block.
pub(crate) struct Records {
    store: Store,
    runtime: Handle,
}

impl Records {
    /// Opens the records on the runtime that calls, which must go on running.
    pub(crate) async fn open(path: &Path, settings: StoreSettings) -> Result<Self, KeydError> {
        Ok(Self { store: Store::open(path, MIGRATIONS, settings).await?, runtime: Handle::current() })
    }

    pub(crate) fn all(&self) -> Result<All, KeydError> {
        let (current, next, retired, certificates) = self
            .runtime
            .block_on(async {
                let mut connection = self.store.readers().acquire().await?;
                // All at one moment: a key that becomes another's successor meanwhile is neither lost nor there twice.
                let mut moment = connection.begin().await?;
                let current: Vec<KeyRow> =
                    sqlx::query_as("SELECT role, key_id, token, place, algorithm, backup, spki FROM keys")
                        .fetch_all(&mut *moment)
                        .await?;
                let next: Vec<KeyRow> =
                    sqlx::query_as("SELECT role, key_id, token, place, algorithm, backup, spki FROM next_keys")
                        .fetch_all(&mut *moment)
                        .await?;
                let retired: Vec<KeyRow> = sqlx::query_as(
                    "SELECT role, key_id, token, place, algorithm, backup, spki FROM retired_keys ORDER BY number",
                )
                .fetch_all(&mut *moment)
                .await?;
                let certificates: Vec<(String, Vec<u8>)> =
                    sqlx::query_as("SELECT role, tbs FROM certificates ORDER BY number")
                        .fetch_all(&mut *moment)
                        .await?;
                Ok::<_, sqlx::Error>((current, next, retired, certificates))
            })
            .map_err(StoreError::from)?;
        let read = |rows: Vec<KeyRow>| -> Result<Vec<_>, KeydError> {
            rows.into_iter().map(|row| recorded(row, &certificates).map(Arc::new)).collect()
        };
        Ok(All { current: read(current)?, next: read(next)?, retired: read(retired)? })
    }

    /// Writes down which key is about to be made.
    pub(crate) fn intend(&self, slot: Slot, key: &Recorded) -> Result<(), KeydError> {
        let key = key.clone();
        let insert = match slot {
            Slot::Current => {
                "INSERT INTO keys (role, key_id, token, place, algorithm, backup) VALUES (?, ?, ?, ?, ?, ?)"
            }
            Slot::Next => {
                "INSERT INTO next_keys (role, key_id, token, place, algorithm, backup) VALUES (?, ?, ?, ?, ?, ?)"
            }
        };
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query(insert)
                    .bind(key.role.name())
                    .bind(key.id.to_string())
                    .bind(key.token)
                    .bind(key.place)
                    .bind(key.spec.algorithm.to_string())
                    .bind(backup(key.spec))
                    .execute(connection)
                    .await?;
                Ok(())
            })
        })
    }

    /// Writes down that it is made. Never changes a key that is recorded as made.
    pub(crate) fn made(&self, slot: Slot, role: KeyRole, id: KeyId, spki: Vec<u8>) -> Result<(), KeydError> {
        let update = match slot {
            Slot::Current => "UPDATE keys SET spki = ? WHERE role = ? AND key_id = ? AND spki IS NULL",
            Slot::Next => "UPDATE next_keys SET spki = ? WHERE role = ? AND key_id = ? AND spki IS NULL",
        };
        self.write(move |connection| {
            Box::pin(async move {
                let done =
                    sqlx::query(update).bind(spki).bind(role.name()).bind(id.to_string()).execute(connection).await?;
                if done.rows_affected() == 1 { Ok(()) } else { Err(sqlx::Error::RowNotFound.into()) }
            })
        })
    }

    /// Puts the next key of `role`, which is made, in the place of the key `id`, which is retired: both or neither.
    pub(crate) fn retire(&self, role: KeyRole, id: KeyId) -> Result<(), KeydError> {
        self.write(move |connection| {
            Box::pin(async move {
                let steps = [
                    "INSERT INTO retired_keys (role, key_id, token, place, algorithm, backup, spki)
                     SELECT keys.role, keys.key_id, keys.token, keys.place, keys.algorithm, keys.backup, keys.spki
                     FROM keys JOIN next_keys ON next_keys.role = keys.role AND next_keys.spki IS NOT NULL
                     WHERE keys.role = ?1 AND keys.key_id = ?2",
                    "UPDATE keys SET (key_id, token, place, algorithm, backup, spki) =
                     (SELECT key_id, token, place, algorithm, backup, spki FROM next_keys WHERE role = ?1)
                     WHERE role = ?1 AND key_id = ?2",
                    "DELETE FROM next_keys WHERE role = ?1 AND ?2 IS NOT NULL",
                ];
                for step in steps {
                    let step = sqlx::query(step).bind(role.name()).bind(id.to_string());
                    if step.execute(&mut *connection).await?.rows_affected() != 1 {
                        return Err(sqlx::Error::RowNotFound.into());
                    }
                }
                Ok(())
            })
        })
    }

    /// Remembers a certificate of the key of `role` by itself.
    pub(crate) fn add_certificate(&self, role: KeyRole, tbs: TbsFacts) -> Result<(), KeydError> {
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query("INSERT INTO certificates (role, tbs) VALUES (?, ?)")
                    .bind(role.name())
                    .bind(tbs.der)
                    .execute(&mut *connection)
                    .await?;
                sqlx::query(
                    "DELETE FROM certificates WHERE role = ?1 AND number NOT IN
                     (SELECT number FROM certificates WHERE role = ?1 ORDER BY number DESC LIMIT ?2)",
                )
                .bind(role.name())
                .bind(CERTIFICATES)
                .execute(connection)
                .await?;
                Ok(())
            })
        })
    }

    fn write<F>(&self, work: F) -> Result<(), KeydError>
    where
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> casemate_store::Work<'c, (), StoreError> + Send + 'static,
    {
        Ok(self.runtime.block_on(self.store.write(work))?)
    }
}

type KeyRow = (String, String, String, Option<String>, String, String, Option<Vec<u8>>);

fn recorded(
    (role, id, token, place, algorithm, backup, spki): KeyRow,
    certificates: &[(String, Vec<u8>)],
) -> Result<Recorded, KeydError> {
    let damaged = |detail| KeydError::RecordDamaged { role: role.clone(), detail };
    let algorithm = KeyAlgorithm::ALL.into_iter().find(|known| known.to_string() == algorithm);
    let backup = match &*backup {
        "none" => Backup::None,
        "wrapped" => Backup::Wrapped,
        _ => return Err(damaged("backup")),
    };
    let own = certificates.iter().filter(|(of, _)| *of == role);
    let own = own.map(|(_, tbs)| TbsFacts::parse(tbs)).collect::<Result<Vec<_>, _>>();
    let mut own = own.map_err(|_| damaged("certificate"))?;
    // Those of the other keys of its role are theirs.
    own.retain(|tbs| spki.as_ref() == Some(&tbs.spki_der));
    Ok(Recorded {
        role: role.parse().map_err(|_| damaged("role"))?,
        id: KeyId::from_hex(&id).ok_or_else(|| damaged("key id"))?,
        token,
        place,
        spec: KeySpec { algorithm: algorithm.ok_or_else(|| damaged("algorithm"))?, backup },
        spki,
        certificates: own,
    })
}

/// As recorded and audited.
pub(crate) const fn backup(spec: KeySpec) -> &'static str {
    match spec.backup {
        Backup::None => "none",
        Backup::Wrapped => "wrapped",
    }
}
