//! The database: SQLite in a file, or PostgreSQL. What is in it is its users' business: records of changes, and jobs that have ended.
//!
//! Statements are of the SQL that both understand. Connections are made when they are needed, so that a replica starts, and
//! answers reads, while the database is away.

use std::{fs, io, os::unix::fs::DirBuilderExt as _, path::PathBuf, time::Duration};

use sqlx::{
    AnyPool, Executor as _, SqlSafeStr as _,
    any::AnyPoolOptions,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};
use tokio::{sync::OnceCell, time::timeout};

use crate::settings::DatabaseSettings;

/// For one statement, a connection and what it waits for included.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(3);
/// The file of SQLite.
pub(crate) const FILE: &str = "audit.sqlite";

/// What makes the tables, in its order. Lines are added, never changed.
const MIGRATIONS: &[(i64, &str, &str)] =
    &[(1, "audit", include_str!("audit/1-audit.sql")), (2, "jobs", include_str!("jobs/2-jobs.sql"))];

/// A database that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// The folder of its file.
    #[error("data_dir: mkdir {}: {source}", .path.display())]
    Folder {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What it said.
    #[error("database: {0}")]
    Statement(#[from] sqlx::Error),
    /// Its tables cannot be made.
    #[error("database: {0}")]
    Migration(#[from] MigrateError),
    /// It did not answer.
    #[error("database: no answer within {STATEMENT_TIMEOUT:?}")]
    Silent,
}

/// The database.
pub(crate) struct Database {
    /// For what is written.
    pub(crate) writes: AnyPool,
    /// For what is read: with SQLite, which has one writer at a time, another one, or reads would be waited for.
    pub(crate) reads: AnyPool,
    pub(crate) is_postgres: bool,
    has_tables: OnceCell<()>,
}

impl Database {
    /// Connects to nothing yet; makes the folder of SQLite's file.
    pub(crate) fn open(settings: &DatabaseSettings) -> Result<Self, DatabaseError> {
        sqlx::any::install_default_drivers();
        let is_postgres = settings.url.starts_with("postgres");
        let (writes, reads) = if settings.url.is_empty() {
            let url = file_url(&settings.data_dir)?;
            // Those that wait for each other do so in the pool, in their order.
            (pool(&url, 1)?, pool(&url, settings.connections_max)?)
        } else {
            let pool = pool(&settings.url, settings.connections_max)?;
            (pool.clone(), pool)
        };
        Ok(Self { writes, reads, is_postgres, has_tables: OnceCell::new() })
    }

    /// Makes the tables, if they are not there.
    pub(crate) async fn ready(&self) -> Result<(), DatabaseError> {
        let migrate = || async {
            let migrations = MIGRATIONS.iter().map(|(version, name, sql)| {
                Migration::new(*version, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false)
            });
            let mut migrator = Migrator::with_migrations(migrations.collect());
            // Replicas of a later version may have made more.
            migrator.set_ignore_missing(true);
            Ok(migrator.run(&self.writes).await?)
        };
        self.has_tables.get_or_try_init(migrate).await.copied()
    }
}

/// Connections, of which none is made yet.
fn pool(url: &str, connections_max: u32) -> Result<AnyPool, DatabaseError> {
    let options = AnyPoolOptions::new().max_connections(connections_max).acquire_timeout(STATEMENT_TIMEOUT);
    let options = options.after_connect(|connection, _| {
        Box::pin(async move {
            if connection.backend_name() == "SQLite" {
                // A record is on the disk before it goes from the store.
                connection.execute("PRAGMA journal_mode = WAL").await?;
                connection.execute("PRAGMA synchronous = FULL").await?;
                // A batch changes hundreds of pages of the indexes: with the usual 1000, each second one would wait for a checkpoint.
                connection.execute("PRAGMA wal_autocheckpoint = 4000").await?;
            }
            Ok(())
        })
    });
    Ok(options.connect_lazy(url)?)
}

/// Ends a statement that takes too long.
pub(crate) async fn within<T, E: From<DatabaseError>>(
    statement: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    timeout(STATEMENT_TIMEOUT, statement).await.unwrap_or_else(|_| Err(DatabaseError::Silent.into()))
}

/// The URL of SQLite's file in a folder, which is made.
fn file_url(folder: &PathBuf) -> Result<String, DatabaseError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| DatabaseError::Folder { path: folder.clone(), source })?;
    let mut url = "sqlite://".to_owned();
    for byte in folder.join(FILE).as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                url.push(char::from(*byte))
            }
            byte => url += &format!("%{byte:02X}"),
        }
    }
    Ok(url + "?mode=rwc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_error_has_a_password() {
        for url in [
            "postgres://u:f00d@h:port/d",
            "postgres://u:f00d@[h/d",
            "postgres://u:%fff00d@127.0.0.1:1/d",
            "postgres://u:f00d@127.0.0.1:1/d",
            "postgres://u@127.0.0.1:1/d?password=f00d",
            "postgres://u:f00d@127.0.0.1:1/d?sslmode=x",
        ] {
            let settings = DatabaseSettings { url: url.to_owned(), ..DatabaseSettings::default() };
            let error = match Database::open(&settings) {
                Ok(database) => within(database.ready()).await.unwrap_err(),
                Err(error) => error,
            };
            assert!(!format!("{error} {error:?}").contains("f00d"), "{url}: {error}");
        }
    }

    #[tokio::test]
    async fn one_that_an_older_or_a_newer_replica_has_made_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let settings = DatabaseSettings { data_dir: folder.path().to_owned(), ..DatabaseSettings::default() };
        let database = Database::open(&settings).unwrap();
        database.ready().await.unwrap();
        for change in [
            // As before there was a history.
            "DROP TABLE jobs",
            "DELETE FROM _sqlx_migrations WHERE version = 2",
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (99, 'later', TRUE, x'00', 0)",
        ] {
            sqlx::query(change).execute(&database.writes).await.unwrap();
        }
        let database = Database::open(&settings).unwrap();
        database.ready().await.unwrap();
        sqlx::query("SELECT id FROM jobs").fetch_all(&database.reads).await.unwrap();
    }
}
