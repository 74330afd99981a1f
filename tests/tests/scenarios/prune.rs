//! `repository prune` takes back what no backup needs, at once or later, and nothing else; `backup hold` keeps a backup from being deleted.

use holdfast_tests::content::Content;
use holdfast_tests::{Result, ensure};
use serde_json::Value;

use crate::setting::{INSTANCE, Setting};

#[test]
fn the_room_of_a_deleted_backup_comes_back_and_what_is_held_is_not_deleted() -> Result {
    let setting = Setting::new("prune")?;
    setting.protect()?;
    let (appliance, content) = (&setting.appliance, Content::of(&setting.cluster)?);
    let first = name_of(&appliance.back_up(INSTANCE, "all")?);
    let rows = "SELECT n, md5(random()::text) AS label FROM generate_series(1, 200000) n";
    setting.cluster.sql("postgres", &format!("CREATE TABLE passing AS {rows}; CHECKPOINT"))?;
    let second = name_of(&appliance.back_up(INSTANCE, "all")?);

    appliance.run(["backup", "hold", &second, "--reason", "the auditors want it"])?.done()?;
    appliance.run(["backup", "delete", &second])?.refused(&["held", "the auditors want it"])?;
    appliance.run(["backup", "release", &second])?.done()?;
    appliance.run(["backup", "delete", &second])?.done()?;

    let foreseen = prune(&setting, &["--now", "--dry-run"])?;
    let large = |report: &Value, what: &str| report[what]["bytes"].as_u64() > Some(1 << 20);
    ensure(large(&foreseen, "deleted"), || format!("{foreseen}"))?;
    let pruned = prune(&setting, &["--now"])?;
    ensure(large(&pruned, "deleted") && pruned["kept"] == serde_json::json!({}), || format!("{pruned}"))?;
    let there = prune(&setting, &["--target", "vault"])?;
    ensure(there["deleted"]["objects"] == 0 && large(&there["kept"], "condemned"), || format!("{there}"))?;

    for target in ["primary", "vault"] {
        appliance.run(["repository", "check", "--read-data", "--target", target])?.done()?;
    }
    let to = setting.workdir.join("restored");
    appliance.restore(&first, &to, &[], &["--wait"])?.done()?;
    setting.must_hold(&to, &content)
}

fn name_of(backup: &Value) -> String {
    format!("{INSTANCE}/{}", backup["name"].as_str().unwrap_or_default())
}

fn prune(setting: &Setting, arguments: &[&str]) -> Result<Value> {
    setting.appliance.json(["repository", "prune"].iter().chain(arguments))
}
