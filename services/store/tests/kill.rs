//! A killed process has lost nothing that it acknowledged. The test runs itself again as the process that is killed.
#![allow(clippy::unwrap_used, clippy::panic)] // a helper that fails fails its test

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use casemate_store::{Migration, Store, StoreError, StoreSettings, sqlx};

const VICTIM: &str = "CASEMATE_STORE_VICTIM";
const SCHEMA: &[Migration] =
    &[Migration { number: 1, name: "rows", sql: "CREATE TABLE rows (id INTEGER PRIMARY KEY) STRICT" }];

async fn write_until_killed(path: &Path) {
    let store = Store::open(path, SCHEMA, StoreSettings::default()).await.unwrap();
    let first: i64 =
        sqlx::query_scalar("SELECT coalesce(max(id), 0) FROM rows").fetch_one(store.readers()).await.unwrap();
    for lane in 1..=8 {
        let store = store.clone();
        tokio::spawn(async move {
            for id in (0..).map(|round| first + lane + round * 8) {
                let written: Result<(), StoreError> = store
                    .write(move |connection| {
                        Box::pin(async move {
                            sqlx::query("INSERT INTO rows (id) VALUES (?)").bind(id).execute(connection).await?;
                            Ok(())
                        })
                    })
                    .await;
                written.unwrap();
                // One write call a line: a pipe takes short ones whole.
                std::io::stderr().write_all(format!("{id}\n").as_bytes()).unwrap();
            }
        });
    }
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_sigkill() {
    if let Some(path) = env::var_os(VICTIM) {
        return write_until_killed(Path::new(&path)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let mut acknowledged: Vec<i64> = Vec::new();
    for round in 1..=5 {
        let mut victim = Command::new(env::current_exe().unwrap())
            .args(["--exact", "what_was_acknowledged_survives_sigkill", "--nocapture"])
            .env(VICTIM, &path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let heard = BufReader::new(victim.stderr.take().unwrap());
        let kill = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100 + 37 * round));
            victim.kill().unwrap();
            victim.wait().unwrap();
        });
        // A kill cannot cut a line: it was one write.
        acknowledged.extend(heard.lines().map_while(Result::ok).filter_map(|line| line.parse::<i64>().ok()));
        kill.join().unwrap();
    }
    let store = Store::open(&path, SCHEMA, StoreSettings::default()).await.unwrap();
    let kept: std::collections::BTreeSet<i64> =
        sqlx::query_scalar("SELECT id FROM rows").fetch_all(store.readers()).await.unwrap().into_iter().collect();
    assert!(acknowledged.len() > 50, "only {} rows were acknowledged", acknowledged.len());
    let lost: Vec<_> = acknowledged.iter().filter(|id| !kept.contains(id)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}
