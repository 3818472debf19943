//! What the store promises its callers.
#![allow(clippy::unwrap_used, clippy::panic)] // a helper that fails fails its test

use std::{os::unix::fs::PermissionsExt, path::Path, time::Duration};

use casemate_store::{Migration, Store, StoreError, StoreSettings, sqlx};

const FIRST: Migration =
    Migration { number: 1, name: "rows", sql: "CREATE TABLE rows (id INTEGER PRIMARY KEY) STRICT" };
const ONE: &[Migration] = &[FIRST];
const TWO: &[Migration] = &[FIRST, Migration { number: 2, name: "note", sql: "ALTER TABLE rows ADD COLUMN note TEXT" }];
const OTHER: &[Migration] = &[Migration { number: 1, name: "rows", sql: "CREATE TABLE rows (id TEXT)" }];
const GAP: &[Migration] = &[Migration { number: 2, name: "rows", sql: "SELECT 1" }];

async fn open(path: &Path, migrations: &'static [Migration]) -> Result<Store, StoreError> {
    Store::open(path, migrations, StoreSettings::default()).await
}

async fn insert(store: &Store, id: i64) -> Result<(), StoreError> {
    store
        .write(move |connection| {
            Box::pin(async move {
                sqlx::query("INSERT INTO rows (id) VALUES (?)").bind(id).execute(connection).await?;
                Ok(())
            })
        })
        .await
}

async fn ids(store: &Store) -> Vec<i64> {
    sqlx::query_scalar("SELECT id FROM rows ORDER BY id").fetch_all(store.readers()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writes_share_few_commits_and_are_seen_once_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("a.db"), ONE).await.unwrap();
    let writes: Vec<_> = (0..500)
        .map(|id| {
            let store = store.clone();
            tokio::spawn(async move { insert(&store, id).await })
        })
        .collect();
    for write in writes {
        write.await.unwrap().unwrap();
    }
    assert_eq!(ids(&store).await.len(), 500);
    assert!(store.commits() < 250, "{} commits for 500 writes", store.commits());
}

#[tokio::test]
async fn a_failing_write_undoes_itself_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("a.db"), ONE).await.unwrap();
    insert(&store, 1).await.unwrap();
    let half = store.write::<(), StoreError, _>(|connection| {
        Box::pin(async move {
            sqlx::query("INSERT INTO rows (id) VALUES (3)").execute(&mut *connection).await?;
            sqlx::query("INSERT INTO rows (id) VALUES (1)").execute(connection).await?;
            Ok(())
        })
    });
    // One queue, one batch: the good ones before and after share the failing one's transaction.
    let (before, failed, after) = tokio::join!(insert(&store, 2), half, insert(&store, 4));
    before.unwrap();
    after.unwrap();
    assert!(matches!(failed, Err(StoreError::Statement(_))));
    assert_eq!(ids(&store).await, [1, 2, 4]);
    assert_eq!(store.commits(), 2);
}

#[tokio::test]
async fn a_newer_another_and_a_misnumbered_schema_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    drop(open(&path, ONE).await.unwrap());
    assert!(matches!(open(&path, OTHER).await, Err(StoreError::Diverged { number: 1, .. })));
    insert(&open(&path, TWO).await.unwrap(), 1).await.unwrap();
    assert_eq!(ids(&open(&path, TWO).await.unwrap()).await, [1]);
    assert!(matches!(open(&path, ONE).await, Err(StoreError::Newer { found: 2, known: 1, .. })));
    assert!(matches!(open(&dir.path().join("b.db"), GAP).await, Err(StoreError::Misnumbered { expected: 1, .. })));
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    std::fs::write(&path, [b'x'; 5000]).unwrap();
    assert!(matches!(open(&path, ONE).await, Err(StoreError::Corrupt(_))));
    assert_eq!(std::fs::read(&path).unwrap(), [b'x'; 5000]);
}

#[tokio::test]
async fn the_queue_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let settings = StoreSettings { queue: 2, ..StoreSettings::default() };
    let store = Store::open(&dir.path().join("a.db"), ONE, settings).await.unwrap();
    let slow = store.write::<(), StoreError, _>(|_| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            Ok(())
        })
    });
    let flood = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        tokio::join!(insert(&store, 1), insert(&store, 2), insert(&store, 3))
    };
    let (slow, (first, second, third)) = tokio::join!(slow, flood);
    slow.unwrap();
    first.unwrap();
    second.unwrap();
    assert!(matches!(third, Err(StoreError::Full { queue: 2 })));
    insert(&store, 3).await.unwrap();
}

#[tokio::test]
async fn the_files_are_the_owners_alone_and_readers_cannot_write() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    std::fs::write(&path, []).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let store = open(&path, ONE).await.unwrap();
    insert(&store, 1).await.unwrap();
    for file in std::fs::read_dir(dir.path()).unwrap() {
        assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert!(sqlx::query("DELETE FROM rows").execute(store.readers()).await.is_err());
    let level: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(store.readers()).await.unwrap();
    assert_eq!(level, 2);
}

#[tokio::test]
async fn a_full_disk_fails_the_write_and_keeps_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("a.db"), TWO).await.unwrap();
    insert(&store, 1).await.unwrap();
    let full = store
        .write::<(), StoreError, _>(|connection| {
            Box::pin(async move {
                // SQLite reports its own page limit exactly as it reports a disk without room.
                sqlx::raw_sql("PRAGMA max_page_count = 1").execute(&mut *connection).await?;
                sqlx::query("INSERT INTO rows (id, note) VALUES (2, ?)")
                    .bind("x".repeat(1 << 20))
                    .execute(&mut *connection)
                    .await?;
                Ok(())
            })
        })
        .await;
    assert!(matches!(full, Err(StoreError::DiskFull(_))), "{full:?}");
    assert_eq!(ids(&store).await, [1]);
}
