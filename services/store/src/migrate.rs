use std::path::Path;

use sqlx::{Connection, SqliteConnection};

use crate::StoreError;

/// One step of a schema, forward only. Once released it never changes; what must change is a new one.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// 1, 2, 3... in the order of the list.
    pub number: i64,
    /// For the operator.
    pub name: &'static str,
    /// Statements.
    pub sql: &'static str,
}

/// Brings the file at `path`, open as `connection`, to the last of `migrations`. Each step and its record are one
/// transaction: a kill leaves the file at one step or the next.
pub(crate) async fn migrate(
    connection: &mut SqliteConnection,
    path: &Path,
    migrations: &'static [Migration],
) -> Result<(), StoreError> {
    check_numbers(migrations)?;
    sqlx::raw_sql(
        "CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, name TEXT NOT NULL, sql TEXT NOT NULL) STRICT",
    )
    .execute(&mut *connection)
    .await?;
    let applied: Vec<(i64, String)> =
        sqlx::query_as("SELECT number, sql FROM migrations ORDER BY number").fetch_all(&mut *connection).await?;
    let (found, known) =
        (applied.last().map_or(0, |(number, _)| *number), migrations.len().try_into().unwrap_or(i64::MAX));
    if found > known {
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    for (migration, (number, sql)) in migrations.iter().zip(&applied) {
        if migration.number != *number || migration.sql != sql {
            return Err(StoreError::Diverged { path: path.to_owned(), number: *number });
        }
    }
    for migration in migrations.iter().skip(applied.len()) {
        apply(connection, migration).await?;
    }
    Ok(())
}

fn check_numbers(migrations: &[Migration]) -> Result<(), StoreError> {
    for (expected, migration) in (1..).zip(migrations) {
        if migration.number != expected {
            return Err(StoreError::Misnumbered { name: migration.name, number: migration.number, expected });
        }
    }
    Ok(())
}

async fn apply(connection: &mut SqliteConnection, migration: &Migration) -> Result<(), StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::raw_sql(migration.sql).execute(&mut *transaction).await?;
    sqlx::query("INSERT INTO migrations (number, name, sql) VALUES (?, ?, ?)")
        .bind(migration.number)
        .bind(migration.name)
        .bind(migration.sql)
        .execute(&mut *transaction)
        .await?;
    Ok(transaction.commit().await?)
}
