//! The connection to a database server is checked unless the operator says otherwise.

use holdfast_tests::certificates::Certificates;
use holdfast_tests::content::Content;
use holdfast_tests::{Result, ensure};

use crate::setting::{INSTANCE, Setting};

#[test]
fn a_server_is_verified_by_its_authority_before_a_backup() -> Result {
    let setting = Setting::new("tls")?;
    let Setting { cluster, appliance, workdir, .. } = &setting;
    let ours = Certificates::issue(&cluster.directory("tls")?)?;
    let strangers = Certificates::issue(&workdir.join("strangers"))?;
    cluster.sql(
        "postgres",
        &format!(
            "ALTER SYSTEM SET ssl = on; ALTER SYSTEM SET ssl_cert_file = '{}'; ALTER SYSTEM SET ssl_key_file = '{}'; ALTER SYSTEM SET log_connections = on",
            ours.certificate.display(),
            ours.key.display()
        ),
    )?;
    // Without TLS, nobody comes in.
    cluster.admit("hostssl")?;
    cluster.sql("postgres", "SELECT pg_reload_conf()")?;

    let (good, bad) = (format!("ca={}", ours.authority.display()), format!("ca={}", strangers.authority.display()));
    appliance
        .add_instance("acme/shop/stranger", cluster, workdir, &["--set", "tls=verify-full", "--set", &bad])?
        .done()?;
    appliance.run(["backup", "create", "acme/shop/stranger", "--wait"])?.refused(&["certificate"])?;
    // Without a word about TLS it is verified too, by the system's authorities, which do not know ours.
    appliance.add_instance("acme/shop/silent", cluster, workdir, &["--site", "here"])?.done()?;
    appliance.run(["backup", "create", "acme/shop/silent", "--wait"])?.refused(&["certificate"])?;
    appliance.add_instance("acme/shop/plain", cluster, workdir, &["--set", "tls=off"])?.done()?;
    appliance.run(["backup", "create", "acme/shop/plain", "--wait"])?.refused(&[])?;

    appliance.add_instance(INSTANCE, cluster, workdir, &["--set", "tls=verify-full", "--set", &good])?.done()?;
    let content = Content::of(cluster)?;
    appliance.back_up(INSTANCE, "primary")?;
    let log = cluster.log_text();
    let admitted = log.lines().find(|line| line.contains("replication connection authorized: user=keeper"));
    ensure(admitted.is_some_and(|line| line.contains("SSL enabled")), || {
        format!("no replication over TLS in the log:\n{log}")
    })?;

    let to = workdir.join("restored");
    appliance.restore(&format!("{INSTANCE}/latest"), &to, &[], &["--wait"])?.done()?;
    setting.must_hold(&to, &content)
}
