//! Reads ranges of packs. What is small and near to what was read before comes from a window of its pack that is fetched whole: a
//! thousand small entries that were written together are not a thousand requests to a distant store.
//!
//! A window is fetched whole when it is asked for the second time, so reading at random places costs what it needs and no more.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::place::Place;
use crate::{Digest, Error};

/// Bytes of a window.
const WINDOW: u64 = 256 << 10;
/// Ranges beyond this are worth a request of their own, in bytes.
const SMALL: u64 = 64 << 10;
/// Windows that are remembered: deltas of many days come from as many packs by turns. At most 8 MiB are kept.
const KEPT: usize = 32;

type Cell = Arc<OnceCell<Bytes>>;

/// The windows of one reader.
#[derive(Default)]
pub(super) struct Windows {
    /// The most recently used last; an empty cell is a window that was asked for once.
    recent: Mutex<VecDeque<((Digest, u64), Cell)>>,
}

impl Windows {
    /// The bytes of a range of a pack, cut at the pack's end.
    pub(super) async fn read(
        &self,
        place: &Place,
        path: &str,
        pack: Digest,
        range: Range<u64>,
    ) -> Result<Bytes, Error> {
        let number = range.start / WINDOW;
        let fits = range.end <= (number + 1) * WINDOW && range.end - range.start <= SMALL;
        let window = if fits { self.known(pack, number) } else { None };
        let Some(window) = window else { return place.get(path, Some(range)).await };
        let start = number * WINDOW;
        let bytes = window.get_or_try_init(|| place.get(path, Some(start..start + WINDOW))).await?;
        let at = |offset: u64| usize::try_from(offset - start).unwrap_or(usize::MAX).min(bytes.len());
        Ok(bytes.slice(at(range.start)..at(range.end)))
    }

    /// The window, if it was asked for before; from now on it was.
    fn known(&self, pack: Digest, number: u64) -> Option<Cell> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let position = recent.iter().rposition(|(key, _)| *key == (pack, number));
        let known = position.and_then(|position| recent.remove(position));
        let is_known = known.is_some();
        let (key, cell) = known.unwrap_or_else(|| ((pack, number), Cell::default()));
        recent.push_back((key, Arc::clone(&cell)));
        if recent.len() > KEPT {
            recent.pop_front();
        }
        is_known.then_some(cell)
    }
}
