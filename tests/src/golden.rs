//! The fixture that each version leaves for those after it: what is in it, by name. Never changed once a version is out.

/// The protected instance.
pub const INSTANCE: &str = "acme/shop/pg";
/// The data directory, with the repository in it, below the fixture.
pub const DATA: &str = "appliance";
/// The recovery kit below the fixture.
pub const KIT: &str = "alice.key";
/// The table whose content is known.
pub const TABLE: &str = "goods";
/// How the table is made: `n` and a text `t` that follows from it.
pub const ROWS: &str = "SELECT n, md5((n * 7)::text) AS t FROM generate_series(1, 500) n";
/// Its number of rows, and the hash of all its texts in order.
pub const CONTENT: &str = "500|fb35f9e2e3ff24593e834852e2505390";
