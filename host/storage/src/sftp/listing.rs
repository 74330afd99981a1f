//! Listing: walks the directories below a prefix, several at a time. Links are not followed, strangers' names passed over.

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::failure::Failure;
use super::session::{Node, Session};
use crate::{Listed, path};

/// Directories that are read at a time.
const SIDE_BY_SIDE: usize = 8;
/// Most entries of a listing: an endless one ends in an error, not in our memory.
const ENTRIES_MAX: usize = 20_000_000;

/// All objects below `root` whose path begins with `prefix`, sorted.
pub(super) async fn list(session: &Session, root: &str, prefix: &str) -> Result<Vec<Listed>, Failure> {
    let first = prefix.rsplit_once('/').map_or("", |(directory, _)| directory);
    let (mut waiting, mut found, mut seen) = (vec![first.to_owned()], Vec::new(), 0);
    let mut reading = FuturesUnordered::new();
    loop {
        while reading.len() < SIDE_BY_SIDE
            && let Some(directory) = waiting.pop()
        {
            reading.push(read(session, root, directory, ENTRIES_MAX));
        }
        let Some(entries) = reading.next().await else { break };
        for (path, node) in entries?.into_iter().filter(|(path, _)| path.starts_with(prefix)) {
            match node {
                Node::Directory => waiting.push(path),
                Node::File(length) => found.push(Listed { path, length }),
                Node::Other => {}
            }
            seen += 1;
        }
        if seen > ENTRIES_MAX {
            return Err(Failure::Senseless("the listing does not come to an end"));
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// What of a directory may be an object, or lead to one.
async fn read(session: &Session, root: &str, directory: String, limit: usize) -> Result<Vec<(String, Node)>, Failure> {
    let at = if directory.is_empty() { root.to_owned() } else { format!("{root}/{directory}") };
    let entries = session.entries(&at, limit).await?.into_iter().filter_map(|file| {
        let node = Node::of(&file.attrs);
        let path = if directory.is_empty() { file.filename } else { format!("{directory}/{}", file.filename) };
        path::is_valid(&path).then_some((path, node))
    });
    Ok(entries.collect())
}
