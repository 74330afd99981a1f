//! Memory is bounded by configuration, not by the backup.

use holdfast_tests::{Result, ensure};

use crate::setting::{INSTANCE, Setting};

/// The most an appliance may have resident, in bytes.
const LIMIT: u64 = 300_000_000;

#[test]
fn peak_memory_is_bounded_with_the_data_and_with_twice_the_data() -> Result {
    let mut setting = Setting::new("memory")?;
    setting.protect()?;
    for scale in [12, 24] {
        setting.cluster.fill("postgres", scale)?;
        // A fresh process: the peak is that of this backup, its copy and its restore alone.
        setting.appliance.stop()?;
        setting.appliance.start()?;
        setting.appliance.back_up(INSTANCE, "all")?;
        let to = setting.workdir.join(&format!("restored-{scale}"));
        setting.appliance.restore(&format!("{INSTANCE}/latest"), &to, &[], &["--wait"])?.done()?;
        let peak = setting.appliance.peak_memory_bytes()?;
        ensure(peak < LIMIT, || format!("{} MB resident at scale {scale}", peak / 1_000_000))?;
    }
    Ok(())
}
