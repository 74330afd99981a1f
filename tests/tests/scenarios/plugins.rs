//! Plugins of others: installed once, there after a restart and after a rebirth, refused in words where they cannot be.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_tests::appliance::Appliance;
use holdfast_tests::{Failure, Result, Workdir, ensure, wait_until};
use holdfast_text_guests::{Guest, answer, describe};

/// A plugin that says who it is, and whose probe finds a server of version 7.
fn component(name: &str, engine: &str) -> Vec<u8> {
    const PROBE: &str = r#"{"version":"7"}"#;
    let description = describe(name)
        .replace(&format!(r#""engine":"{name}""#), &format!(r#""engine":"{engine}""#))
        .replace(r#""version":"1""#, r#""version":"1.2.3""#);
    Guest::new(name).description(description).text(PROBE).probe(answer(PROBE.len())).component()
}

fn written(workdir: &Workdir, file: &str, bytes: impl AsRef<[u8]>) -> Result<PathBuf> {
    let path = workdir.join(file);
    fs::write(&path, bytes)?;
    Ok(path)
}

fn install(appliance: &Appliance, file: &Path) -> Result<holdfast_tests::appliance::Answer> {
    appliance.run(["plugin".as_ref(), "install".as_ref(), file.as_os_str()])
}

#[test]
fn a_plugin_of_others_is_installed_used_and_removed() -> Result {
    let workdir = Workdir::new("plugins")?;
    let mut appliance = Appliance::on(&workdir.join("appliance"));
    appliance.start()?;
    let file = written(&workdir, "cache.wasm", component("cache", "cache"))?;
    install(&appliance, &file)?.done()?;
    install(&appliance, &file)?.done()?;
    ensure(fs::read_dir(appliance.data().join("plugins"))?.count() == 1, || "not one component is kept".into())?;

    // It is there after a restart, and serves its engine like any other.
    appliance.kill()?;
    appliance.start()?;
    let plugin = appliance.json(["plugin", "inspect", "cache"])?;
    ensure(plugin["origin"] == "installed" && plugin["version"] == "1.2.3", || format!("not what it is: {plugin}"))?;
    appliance.run(["instance", "add", "acme/shop/cache", "--engine", "cache", "--no-schedule"])?.done()?;
    let found = appliance.json(["instance", "check", "acme/shop/cache"])?;
    ensure(found["version"] == "7", || format!("the plugin was not asked: {found}"))?;

    appliance.run(["plugin", "remove", "cache"])?.refused(&["instances have the engine 'cache'"])?;
    appliance.run(["instance", "remove", "acme/shop/cache"])?.done()?;
    appliance.run(["plugin", "remove", "cache"])?.done()?;
    ensure(fs::read_dir(appliance.data().join("plugins"))?.count() == 0, || "its component is still there".into())?;
    appliance
        .run(["instance", "add", "acme/shop/other", "--engine", "cache", "--no-schedule"])?
        .refused(&["no plugin for the engine 'cache'"])
        .map(drop)
}

#[test]
fn what_cannot_be_installed_is_refused_in_words() -> Result {
    let workdir = Workdir::new("refused-plugins")?;
    let mut appliance = Appliance::on(&workdir.join("appliance"));
    appliance.start()?;
    let refused = |name: &str, bytes: Vec<u8>, words: &str| {
        install(&appliance, &written(&workdir, name, bytes)?)?.refused(&[words]).map(drop)
    };
    let good = component("cache", "cache");
    refused("text", b"no component".to_vec(), "not a WebAssembly component")?;
    refused("cut", good[..good.len() - 1].to_vec(), "does not compile")?;
    refused("module", b"\0asm\x01\0\0\0".to_vec(), "a core module")?;
    refused("empty", b"\0asm\x0d\0\x01\0".to_vec(), "holdfast:engine/plugin")?;
    refused("name", component("../up", "cache"), "its name must be")?;
    refused("engine", component("other", "postgres"), "the engine 'postgres' is served")?;
    refused("clash", component("postgres", "cache"), "the name 'postgres' is taken")?;
    appliance.run(["plugin", "remove", "postgres"])?.refused(&["came with this binary"])?;
    let plugins = appliance.list(&["plugin", "list"])?;
    ensure(plugins.len() == 1, || format!("something was installed: {plugins:?}"))
}

#[test]
fn a_component_that_was_damaged_keeps_nothing_else_from_starting() -> Result {
    let workdir = Workdir::new("damaged-plugin")?;
    let mut appliance = Appliance::on(&workdir.join("appliance"));
    appliance.start()?;
    let file = written(&workdir, "cache.wasm", component("cache", "cache"))?;
    install(&appliance, &file)?.done()?;
    appliance.stop()?;
    for kept in fs::read_dir(appliance.data().join("plugins"))? {
        fs::write(kept?.path(), "damaged")?;
    }
    appliance.start()?;
    let status = || Ok::<_, Failure>(appliance.run(["status"])?.stdout);
    ensure(status()?.contains("the installed plugin cache cannot be loaded"), || "nobody is told".into())?;
    install(&appliance, &file)?.done()?;
    ensure(!status()?.contains("cannot be loaded"), || "it is not mended".into())
}

#[test]
fn a_reborn_appliance_has_its_plugins() -> Result {
    let workdir = Workdir::new("reborn-plugins")?;
    let mut appliance = Appliance::on(&workdir.join("appliance"));
    appliance.start()?;
    let (vault, kit) = (format!("file://{}", workdir.join("vault").display()), workdir.join("alice.key"));
    appliance.make_recovery_kit(&kit)?;
    appliance.run(["target", "add", "vault", &vault, "--site", "local"])?.done()?;
    install(&appliance, &written(&workdir, "cache.wasm", component("cache", "cache"))?)?.done()?;

    // The catalog is exported soon after, and the export goes to the vault by itself.
    let mut attempt = 0;
    let mut reborn = wait_until("the vault has the plugin", Duration::from_secs(120), || {
        attempt += 1;
        let reborn = Appliance::on(&workdir.join(&format!("reborn-{attempt}")));
        let words = ["recover", "--from", &vault, "--identity", &kit.display().to_string()];
        let recovered = reborn.run(words)?.code == Some(0);
        Ok((recovered && reborn.data().join("plugins").exists()).then_some(reborn))
    })?;
    appliance.kill()?;
    reborn.start()?;
    let plugins = reborn.list(&["plugin", "list"])?;
    ensure(plugins.iter().any(|plugin| plugin["name"] == "cache"), || format!("it is not there: {plugins:?}"))
}
