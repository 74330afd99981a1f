//! The configuration that is shipped is one that the appliance takes.

use std::fs;
use std::path::Path;

use holdfast_tests::appliance::Appliance;
use holdfast_tests::{Result, Workdir, ensure};

#[test]
fn the_shipped_configuration_is_accepted_with_every_key_in_force() -> Result {
    let workdir = Workdir::new("configuration")?;
    let shipped = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/holdfast.toml"))?;
    let key = |line: &str| line.strip_prefix("# ").filter(|line| line.contains(" = ")).map(String::from);
    let in_force: Vec<String> = shipped.lines().map(|line| key(line).unwrap_or_else(|| line.to_owned())).collect();
    let text = in_force.join("\n").replace("/srv/backups", &workdir.join("backups").display().to_string());
    ensure(text.lines().filter(|line| line.contains(" = ")).count() >= 4, || format!("keys are missing:\n{text}"))?;

    let mut appliance = Appliance::on(&workdir.join("appliance"));
    fs::create_dir(appliance.data())?;
    fs::write(appliance.data().join("holdfast.toml"), text)?;
    appliance.start()?;
    let targets = appliance.list(&["target", "list"])?;
    ensure(targets[0]["site"] == "local", || format!("not the configured site: {targets:?}"))
}
