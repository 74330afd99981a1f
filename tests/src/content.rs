//! What a cluster holds, as hashes that SQL computes: equal contents have equal hashes, whatever wrote them.

use std::collections::BTreeMap;
use std::fmt;

use crate::cluster::Cluster;
use crate::{Result, ensure};

/// Settings that decide how a value looks as text, pinned, so that two servers' rows compare.
const AS_TEXT: &str = "SET timezone='UTC'; SET datestyle='ISO'; SET intervalstyle='postgres'; SET bytea_output='hex'; SET extra_float_digits=3;\n";

/// One query a table: its number of rows, and two sums of 64-bit hashes over them, which no order of rows changes.
/// An unlogged table is empty after a crash or a restore, by its definition: only that it exists is compared.
const TABLES: &str = r"
SELECT CASE relpersistence WHEN 'u' THEN format('SELECT %L, ''unlogged''', name)
       ELSE format('SELECT %L, count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0), coalesce(sum(hashtextextended(t::text, 1)::numeric), 0) FROM %s t', name, name)
       END
FROM (
    SELECT c.relpersistence, format('%I.%I', n.nspname, c.relname) AS name
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
) tables
ORDER BY name \gexec
";

/// Large objects, as one line.
const LARGE_OBJECTS: &str = "
SELECT 'large objects', count(*), md5(string_agg(oid || ':' || md5(lo_get(oid)), ',' ORDER BY oid)) FROM pg_largeobject_metadata HAVING count(*) > 0;
";

/// Roles and tablespaces, by name.
const SHARED: &str = "
SELECT 'role', rolname, rolcanlogin FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 2;
SELECT 'tablespace', spcname FROM pg_tablespace ORDER BY 2;
";

/// Hashes of every table, of the large objects, and the cluster's roles and tablespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// By `database: table`.
    facts: BTreeMap<String, String>,
    tables: usize,
    rows: u64,
}

impl Content {
    /// Reads every database of a running cluster.
    pub fn of(cluster: &Cluster) -> Result<Self> {
        let mut content = Self { facts: BTreeMap::new(), tables: 0, rows: 0 };
        for line in cluster.sql("postgres", SHARED)?.lines() {
            content.facts.insert(line.to_owned(), String::new());
        }
        let databases = cluster
            .sql("postgres", "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1")?;
        for database in databases.lines() {
            for line in cluster.sql(database, &format!("{AS_TEXT}{TABLES}{LARGE_OBJECTS}"))?.lines() {
                let (name, fact) = line.split_once('|').unwrap_or((line, ""));
                content.tables += 1;
                content.rows += fact.split('|').next().and_then(|rows| rows.parse::<u64>().ok()).unwrap_or(0);
                content.facts.insert(format!("{database}: {name}"), fact.to_owned());
            }
        }
        Ok(content)
    }

    /// Tables, with a database's large objects counted as one.
    pub fn tables(&self) -> usize {
        self.tables
    }

    /// Rows of all tables.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Fails, naming every difference, unless the other is the same.
    pub fn must_equal(&self, other: &Self) -> Result {
        ensure(self == other, || format!("the contents differ:\n{}", Differences(self, other)))
    }
}

struct Differences<'a>(&'a Content, &'a Content);

impl fmt::Display for Differences<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(left, right) = self;
        for (name, fact) in &left.facts {
            match right.facts.get(name) {
                Some(other) if other == fact => {}
                Some(other) => writeln!(formatter, "  {name}: {fact} became {other}")?,
                None => writeln!(formatter, "  {name}: is gone")?,
            }
        }
        for name in right.facts.keys().filter(|name| !left.facts.contains_key(*name)) {
            writeln!(formatter, "  {name}: is new")?;
        }
        Ok(())
    }
}
