//! A file of SQLite. One process has it at a time, by a lock that the system drops with the process; what a write has returned from
//! survives the end of the process, however it comes, and all but the last moments survive the end of the machine.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteLockingMode, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Executor, Row};

use crate::{Change, Lease, Store, StoreError};

/// Formats of the file, each from the one before; their number stands in its header (`user_version`).
const MIGRATIONS: [&str; 1] = ["CREATE TABLE lease (
    realm TEXT NOT NULL,
    address TEXT NOT NULL,
    id_type INTEGER NOT NULL,
    id BLOB NOT NULL,
    who TEXT NOT NULL,
    held INTEGER NOT NULL,
    since INTEGER NOT NULL,
    PRIMARY KEY (realm, address)
) STRICT, WITHOUT ROWID"];

/// How long a process that was killed may take to be gone.
const DYING: Duration = Duration::from_millis(500);

/// Rows that are read at most: somebody may have filled the file.
const MAX_ROWS: i64 = 1 << 20;

const SQLITE_BUSY: i32 = 5;
const SQLITE_LOCKED: i32 = 6;
const SQLITE_CORRUPT: i32 = 11;
const SQLITE_NOTADB: i32 = 26;

/// See the module.
pub struct Sqlite {
    connection: SqliteConnection,
}

/// An open store, and where a damaged file is that was in its place.
pub struct Opened {
    /// The store.
    pub store: Sqlite,
    /// The damaged file.
    pub aside: Option<(PathBuf, StoreError)>,
}

impl Sqlite {
    /// Opens the file, or makes it. One that is damaged is moved aside, and a new one takes its place.
    ///
    /// # Errors
    /// [`StoreError`]; of a damaged file only when it cannot be moved.
    pub async fn open(path: &Path) -> Result<Opened, StoreError> {
        match Sqlite::open_as_is(path).await {
            Ok(store) => Ok(Opened { store, aside: None }),
            Err(damaged @ StoreError::Damaged(_)) => {
                let aside = move_aside(path).map_err(|error| {
                    StoreError::Failed(format!("{damaged}, and cannot be moved: {error}"))
                })?;
                let store = Sqlite::open_as_is(path).await?;
                Ok(Opened { store, aside: Some((aside, damaged)) })
            }
            Err(error) => Err(error),
        }
    }

    /// Closes it in order; without, the file is as after a crash, which does it no harm.
    pub async fn close(self) {
        // There is nobody who could do anything about an error.
        let _ = self.connection.close().await;
    }

    async fn open_as_is(path: &Path) -> Result<Sqlite, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            // Before anything else is done: with it, WAL needs no shared memory, and nobody else gets in.
            .locking_mode(SqliteLockingMode::Exclusive)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(DYING)
            .disable_statement_logging();
        let connection = SqliteConnection::connect_with(&options).await.map_err(|error| judge(&error))?;
        let mut store = Sqlite { connection };
        store.check().await?;
        store.migrate().await?;
        Ok(store)
    }

    async fn check(&mut self) -> Result<(), StoreError> {
        let row = self.one("PRAGMA quick_check(1)").await?;
        let verdict: String = row.try_get(0).map_err(|error| judge(&error))?;
        if verdict == "ok" { Ok(()) } else { Err(StoreError::Damaged(verdict)) }
    }

    async fn migrate(&mut self) -> Result<(), StoreError> {
        // Takes the lock, also where there is nothing to be changed.
        self.execute("BEGIN EXCLUSIVE").await?;
        let result = self.migrate_inside().await;
        let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = self.execute(end).await;
        result.and(ended)
    }

    async fn migrate_inside(&mut self) -> Result<(), StoreError> {
        let version: i64 =
            self.one("PRAGMA user_version").await?.try_get(0).map_err(|error| judge(&error))?;
        let known = MIGRATIONS.len() as i64;
        let done = usize::try_from(version).ok().filter(|done| *done <= MIGRATIONS.len());
        let done = done.ok_or(StoreError::Later(version))?;
        for step in MIGRATIONS.get(done..).unwrap_or_default() {
            self.execute(*step).await?;
        }
        if version < known {
            self.execute(format!("PRAGMA user_version = {known}")).await?;
        }
        Ok(())
    }

    async fn execute(&mut self, sql: impl Into<String>) -> Result<(), StoreError> {
        let sql = sqlx::AssertSqlSafe(sql.into());
        self.connection.execute(sqlx::raw_sql(sql)).await.map(|_| ()).map_err(|error| judge(&error))
    }

    async fn one(&mut self, sql: &'static str) -> Result<SqliteRow, StoreError> {
        sqlx::query(sql).fetch_one(&mut self.connection).await.map_err(|error| judge(&error))
    }

    async fn write_inside(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        for change in changes {
            let query = match change {
                Change::Put(lease) => sqlx::query(
                    "INSERT OR REPLACE INTO lease (realm, address, id_type, id, who, held, since)
                     VALUES (?, ?, ?, ?, ?, ?, ?)",
                )
                .bind(&lease.realm)
                .bind(lease.address.to_string())
                .bind(i64::from(lease.identity.0))
                .bind(&lease.identity.1)
                .bind(&lease.who)
                .bind(lease.held)
                .bind(lease.since),
                Change::Remove { realm, address } => {
                    sqlx::query("DELETE FROM lease WHERE realm = ? AND address = ?")
                        .bind(realm)
                        .bind(address.to_string())
                }
            };
            query.execute(&mut self.connection).await.map_err(|error| judge(&error))?;
        }
        Ok(())
    }
}

impl Store for Sqlite {
    async fn load(&mut self) -> Result<Vec<Lease>, StoreError> {
        let query = sqlx::query("SELECT realm, address, id_type, id, who, held, since FROM lease LIMIT ?");
        let rows =
            query.bind(MAX_ROWS).fetch_all(&mut self.connection).await.map_err(|error| judge(&error))?;
        Ok(rows.iter().filter_map(read).collect())
    }

    async fn write(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.execute("BEGIN IMMEDIATE").await?;
        let written = self.write_inside(changes).await;
        let ended = self.execute(if written.is_ok() { "COMMIT" } else { "ROLLBACK" }).await;
        if written.is_ok() && ended.is_err() {
            // Nothing of it may stay open: the next write begins anew.
            let _ = self.execute("ROLLBACK").await;
        }
        written.and(ended)
    }
}

fn read(row: &SqliteRow) -> Option<Lease> {
    let address: IpAddr = row.try_get::<String, _>("address").ok()?.parse().ok()?;
    let kind = u8::try_from(row.try_get::<i64, _>("id_type").ok()?).ok()?;
    Some(Lease {
        realm: row.try_get("realm").ok()?,
        address,
        identity: (kind, row.try_get("id").ok()?),
        who: row.try_get("who").ok()?,
        held: row.try_get("held").ok()?,
        since: row.try_get("since").ok()?,
    })
}

/// The file and what SQLite keeps beside it, under other names.
fn move_aside(path: &Path) -> std::io::Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let named = |ending: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let aside = named(&format!(".damaged-{now}"));
    std::fs::rename(path, &aside)?;
    for ending in ["-wal", "-shm", "-journal"] {
        let (from, to) = (named(ending), named(&format!(".damaged-{now}{ending}")));
        match std::fs::rename(from, to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

fn judge(error: &sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok());
    // The lowest octet is the kind; the rest says more of it.
    match code.map(|code| code & 0xff) {
        Some(SQLITE_BUSY | SQLITE_LOCKED) => StoreError::Taken,
        Some(SQLITE_CORRUPT | SQLITE_NOTADB) => StoreError::Damaged(error.to_string()),
        _ => StoreError::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let dir = std::env::temp_dir().join(format!("tussock-store-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            Folder(dir)
        }

        fn file(&self) -> PathBuf {
            self.0.join("leases.db")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn lease(address: &str, who: &str) -> Lease {
        Lease {
            realm: "roadwarriors".to_owned(),
            address: address.parse().unwrap(),
            identity: (2, who.as_bytes().to_vec()),
            who: who.to_owned(),
            held: true,
            since: 1_700_000_000,
        }
    }

    async fn open(path: &Path) -> Sqlite {
        let opened = Sqlite::open(path).await.unwrap();
        assert!(opened.aside.is_none());
        opened.store
    }

    #[tokio::test]
    async fn what_was_written_is_there_after_the_store_was_dropped() {
        let folder = Folder::new("kept");
        let mut store = open(&folder.file()).await;
        let (a, b) = (lease("10.3.0.2", "carol"), lease("fec3::7", "dave"));
        store.write(&[Change::Put(a.clone()), Change::Put(b.clone())]).await.unwrap();
        let idle = Lease { held: false, since: 1_700_000_100, ..a };
        let gone = Change::Remove { realm: b.realm, address: b.address };
        store.write(&[Change::Put(idle.clone()), gone]).await.unwrap();
        store.close().await;
        assert_eq!(open(&folder.file()).await.load().await.unwrap(), [idle]);
    }

    #[tokio::test]
    async fn one_gateway_has_the_file_at_a_time() {
        let folder = Folder::new("taken");
        let first = open(&folder.file()).await;
        assert!(matches!(Sqlite::open(&folder.file()).await, Err(StoreError::Taken)));
        first.close().await;
        open(&folder.file()).await;
    }

    #[tokio::test]
    async fn a_damaged_file_is_moved_aside() {
        let folder = Folder::new("damaged");
        let mut store = open(&folder.file()).await;
        store.write(&[Change::Put(lease("10.3.0.2", "carol"))]).await.unwrap();
        store.close().await;
        // Once no database at all, once one with a hole in its middle.
        for damage in [0, 4096] {
            let mut octets = std::fs::read(folder.file()).unwrap();
            let from = damage.min(octets.len().saturating_sub(2048));
            octets[from..from + 2048].fill(0x5a);
            std::fs::write(folder.file(), &octets).unwrap();
            let opened = Sqlite::open(&folder.file()).await.unwrap();
            let (aside, why) = opened.aside.expect("it was damaged");
            assert!(matches!(why, StoreError::Damaged(_)), "{why}");
            assert_eq!(std::fs::read(&aside).unwrap().len(), octets.len(), "nothing is thrown away");
            let mut store = opened.store;
            assert!(store.load().await.unwrap().is_empty());
            store.write(&[Change::Put(lease("10.3.0.9", "erin"))]).await.unwrap();
            store.close().await;
            std::fs::remove_file(aside).unwrap();
        }
    }

    #[tokio::test]
    async fn a_file_of_a_later_version_is_left_alone() {
        let folder = Folder::new("later");
        let mut store = open(&folder.file()).await;
        store.execute("PRAGMA user_version = 99").await.unwrap();
        store.close().await;
        let before = std::fs::read(folder.file()).unwrap();
        assert!(matches!(Sqlite::open(&folder.file()).await, Err(StoreError::Later(99))));
        assert!(std::fs::read(folder.file()).unwrap() == before, "not an octet is changed");
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_an_error() {
        let folder = Folder::new("nowhere");
        let path = folder.0.join("no/such/leases.db");
        assert!(matches!(Sqlite::open(&path).await, Err(StoreError::Failed(_))));
    }

    #[tokio::test]
    async fn a_full_disk_fails_the_write_and_leaves_what_was_there() {
        let folder = Folder::new("full");
        let mut store = open(&folder.file()).await;
        store.write(&[Change::Put(lease("10.3.0.2", "carol"))]).await.unwrap();
        // SQLite says the same of a file that has reached its bound as of a disk without room.
        store.execute("PRAGMA max_page_count = 1").await.unwrap();
        let many: Vec<Change> = (0..2000u32)
            .map(|n| Change::Put(lease(&std::net::Ipv4Addr::from(0x0a04_0000 + n).to_string(), "somebody")))
            .collect();
        assert!(matches!(store.write(&many).await, Err(StoreError::Failed(why)) if why.contains("full")));
        assert_eq!(store.load().await.unwrap(), [lease("10.3.0.2", "carol")]);
        store.execute("PRAGMA max_page_count = 100000").await.unwrap();
        store.write(&many).await.unwrap();
        assert_eq!(store.load().await.unwrap().len(), 2001);
    }
}
