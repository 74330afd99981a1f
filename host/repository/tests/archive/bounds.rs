//! What a backup holds in memory is bounded, however slow the place and however large the backup.

use std::sync::atomic::Ordering;
use std::time::Duration;

use holdfast_repository::ContentClass;

use crate::setting::{Appliance, Files, noise, run};

#[test]
fn a_slow_place_holds_the_writer_up_before_more_packs_pile_up() {
    run(async {
        let appliance = Appliance::new().await;
        *appliance.storage.slowness.lock().unwrap() = Duration::from_millis(50);
        let file = |number: u64| (format!("base/{number}"), (ContentClass::Pages(8192), noise(number, 24 << 20)));
        let files: Files = (0..4).map(file).collect();
        let backup = appliance.back_up(&files).await.unwrap();
        assert!(appliance.storage.paths("/packs/").len() > 5);
        assert_eq!(appliance.storage.packs_at_once.load(Ordering::SeqCst), 2);
        assert!(appliance.holds(&backup, &files).await.unwrap());
    });
}

#[test]
fn a_thousand_short_files_and_a_long_one_come_back() {
    run(async {
        let appliance = Appliance::new().await;
        let short = |number: u64| {
            // Around the inline limit, half a chunk, and a chunk.
            let length = [600, 8_192, 32_767, 32_768, 32_769, 65_536][number as usize % 6];
            (format!("short/{number}"), (ContentClass::Pages(8192), noise(number, length)))
        };
        let mut files: Files = (0..1_000).map(short).collect();
        files.insert("long".into(), (ContentClass::Bytes, noise(7, 9 << 20)));
        let backup = appliance.back_up(&files).await.unwrap();
        assert!(appliance.holds(&backup, &files).await.unwrap());
    });
}
