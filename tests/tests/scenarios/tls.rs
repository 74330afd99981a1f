//! The connection to a database server is checked unless the operator says otherwise.

use std::path::Path;

use holdfast_tests::certificates::{Authority, Certified};
use holdfast_tests::cluster::Cluster;
use holdfast_tests::content::Content;
use holdfast_tests::interceptor::Interceptor;
use holdfast_tests::meddler::{Meddler, Meddling};
use holdfast_tests::proxy::Proxy;
use holdfast_tests::{PASSWORD, ROLE, Result, ensure};

use crate::setting::{INSTANCE, Setting};

/// Names in the certificate of a server that is what it says.
const HERE: &[&str] = &["localhost", "127.0.0.1"];

/// Has the server speak TLS with this certificate only, from now on.
fn speak_tls(cluster: &Cluster, files: &Certified) -> Result {
    let (certificate, key) = (files.certificate.display(), files.key.display());
    cluster.sql("postgres", &format!("ALTER SYSTEM SET ssl_cert_file = '{certificate}'; ALTER SYSTEM SET ssl_key_file = '{key}'; ALTER SYSTEM SET ssl = on; ALTER SYSTEM SET log_connections = on"))?;
    cluster.admit("hostssl")?;
    cluster.reload()
}

/// Registers `acme/shop/NAME` with this TLS and these certificates, and looks at it: `None` if a backup could be made, else what is
/// in its way.
fn look(setting: &Setting, name: &str, port: u16, more: &[&str]) -> Result<Option<String>> {
    let name = format!("acme/shop/{name}");
    setting.appliance.add_instance_at(&name, port, &setting.workdir, more)?.done()?;
    setting.appliance.obstacle(&name)
}

/// Fails unless a look finds what this says: nothing, or a problem with these words.
fn must_find(found: Option<String>, words: Option<&str>, what: &str) -> Result {
    ensure(
        match (&found, words) {
            (None, None) => true,
            (Some(found), Some(words)) => found.contains(words),
            _ => false,
        },
        || format!("{what}: expected {words:?}, found {found:?}"),
    )
}

#[test]
fn a_server_is_verified_by_its_authority_before_a_backup() -> Result {
    let setting = Setting::new("tls")?;
    let Setting { cluster, appliance, workdir, .. } = &setting;
    let ours = Authority::new(&cluster.directory("tls")?)?;
    let strangers = Authority::new(&workdir.join("strangers"))?;
    speak_tls(cluster, &ours.server(HERE)?)?;

    let (good, bad) = (format!("ca={}", ours.certificate.display()), format!("ca={}", strangers.certificate.display()));
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

#[test]
fn each_tls_mode_checks_what_its_name_says_and_no_less() -> Result {
    let setting = Setting::new("tls-modes")?;
    let Setting { cluster, workdir, .. } = &setting;
    let ours = Authority::new(&cluster.directory("tls")?)?;
    let strangers = Authority::new(&workdir.join("strangers"))?;
    let alone = Authority::self_signed(&cluster.directory("alone")?, HERE)?;
    let (unknown, another, expired) =
        (Some("not signed by a known authority"), Some("another name"), Some("has expired"));

    // The server's certificate, the authority that is trusted, and what verify-full, verify-ca and require make of them.
    let cases: [(&str, Certified, &Path, [Option<&str>; 3]); 5] = [
        ("good", ours.server(HERE)?, &ours.certificate, [None, None, None]),
        ("stranger", ours.server(HERE)?, &strangers.certificate, [unknown, unknown, None]),
        ("elsewhere", ours.server(&["db.elsewhere.test"])?, &ours.certificate, [another, None, None]),
        ("expired", ours.expired_server(HERE)?, &ours.certificate, [expired, expired, None]),
        ("self-signed", alone.clone(), &alone.certificate, [None, None, None]),
    ];
    for (case, certificate, authority, expected) in cases {
        speak_tls(cluster, &certificate)?;
        let authority = format!("ca={}", authority.display());
        for (mode, words) in ["verify-full", "verify-ca", "require"].into_iter().zip(expected) {
            let tls = format!("tls={mode}");
            let found =
                look(&setting, &format!("{case}-{mode}"), cluster.port(), &["--set", &tls, "--set", &authority])?;
            must_find(found, words, &format!("{case}, {mode}"))?;
        }
    }
    // Who turns TLS off is not let in, and is told why.
    must_find(look(&setting, "off", cluster.port(), &["--set", "tls=off"])?, Some("no encryption"), "off")?;

    // TLS 1.2, which binds channels too.
    cluster.sql("postgres", "ALTER SYSTEM SET ssl_max_protocol_version = 'TLSv1.2'")?;
    cluster.reload()?;
    must_find(look(&setting, "older", cluster.port(), &["--set", "tls=require"])?, None, "TLS 1.2")?;

    cluster.sql("postgres", "ALTER SYSTEM SET ssl = off")?;
    cluster.admit("host")?;
    cluster.reload()?;
    for mode in ["verify-full", "verify-ca", "require"] {
        let found = look(&setting, &format!("none-{mode}"), cluster.port(), &["--set", &format!("tls={mode}")])?;
        must_find(found, Some("does not offer TLS"), &format!("{mode} with a server without TLS"))?;
    }
    must_find(look(&setting, "none-off", cluster.port(), &["--set", "tls=off"])?, None, "off with a server without TLS")
}

#[test]
fn a_client_certificate_opens_the_door_to_its_own_role_only() -> Result {
    let setting = Setting::new("tls-client")?;
    let Setting { cluster, workdir, .. } = &setting;
    let ours = Authority::new(&cluster.directory("tls")?)?;
    let strangers = Authority::new(&workdir.join("strangers"))?;
    let root = ours.certificate.display().to_string();
    cluster.sql("postgres", &format!("ALTER SYSTEM SET ssl_ca_file = '{root}'"))?;
    speak_tls(cluster, &ours.server(HERE)?)?;
    cluster.admit_by(&[
        "local all all trust",
        "hostssl all all 127.0.0.1/32 cert",
        "hostssl replication all 127.0.0.1/32 cert",
    ])?;
    cluster.reload()?;

    let with = |name: &str, client: Option<Certified>| -> Result<Option<String>> {
        let authority = format!("ca={root}");
        let mut more = vec!["--set".to_owned(), authority];
        if let Some(client) = client {
            more.extend(["--set".into(), format!("client-certificate={}", client.certificate.display())]);
            more.extend(["--secret-file".into(), format!("client-key={}", client.key.display())]);
        }
        look(&setting, name, cluster.port(), &more.iter().map(String::as_str).collect::<Vec<_>>())
    };
    must_find(with("pg", Some(ours.client(ROLE)?))?, None, "its own certificate")?;
    must_find(with("nobody", None)?, Some("certificate"), "no certificate")?;
    must_find(with("somebody", Some(ours.client("somebody")?))?, Some("certificate"), "that of another role")?;
    must_find(with("stranger", Some(strangers.client(ROLE)?))?, Some("certificate"), "that of another authority")?;
    setting.appliance.back_up(INSTANCE, "primary").map(drop)
}

#[test]
fn channel_binding_finds_somebody_in_the_middle_whose_certificate_is_trusted() -> Result {
    let setting = Setting::new("tls-middle")?;
    let Setting { cluster, appliance, workdir, .. } = &setting;
    let ours = Authority::new(&cluster.directory("tls")?)?;
    speak_tls(cluster, &ours.server(HERE)?)?;
    let trust = format!("ca={}", ours.certificate.display());

    // Bytes may go through other hands, as long as those cannot read them.
    let proxy = Proxy::before(cluster.port())?;
    must_find(look(&setting, "pg", proxy.port(), &["--set", &trust])?, None, "a proxy that sees only ciphers")?;

    let middle = Interceptor::before(cluster.port(), &ours.certificate, &ours.server(&["127.0.0.1", "middle"])?)?;
    appliance.add_instance_at("acme/shop/tapped", middle.port(), workdir, &["--set", &trust])?.done()?;
    let answer = appliance.run(["backup", "create", "acme/shop/tapped", "--wait"])?.refused(&["channel binding"])?;
    ensure(middle.sessions() > 0, || format!("nobody was in the middle: {answer}"))?;
    ensure(!answer.to_string().contains(PASSWORD), || format!("the password is shown: {answer}"))?;

    // It is the binding that finds him, and not TLS: a login that cannot bind goes through his hands.
    cluster.admit_by(&[
        "local all all trust",
        "hostssl all all 127.0.0.1/32 trust",
        "hostssl replication all 127.0.0.1/32 trust",
    ])?;
    cluster.reload()?;
    must_find(appliance.obstacle("acme/shop/tapped")?, None, "no login to bind")
}

#[test]
fn nobody_in_the_middle_talks_a_client_out_of_tls_or_into_a_weaker_one() -> Result {
    let setting = Setting::new("tls-meddled")?;
    let cluster = &setting.cluster;
    let ours = Authority::new(&cluster.directory("tls")?)?;
    speak_tls(cluster, &ours.server(HERE)?)?;
    let trust = format!("ca={}", ours.certificate.display());
    must_find(look(&setting, "pg", cluster.port(), &["--set", &trust])?, None, "nobody in the middle")?;

    for mode in ["verify-full", "verify-ca", "require"] {
        for (meddling, words) in [
            (Meddling::Refuse, "does not offer TLS"),
            (Meddling::Inject, "ahead of the TLS handshake"),
            (Meddling::Downgrade, "tls-failed"),
        ] {
            let what = format!("{mode}-{meddling:?}").to_lowercase();
            let meddler = Meddler::before(cluster.port(), meddling)?;
            let more = ["--set", &trust, "--set", &format!("tls={mode}")];
            let found = look(&setting, &what, meddler.port(), &more)?;
            ensure(meddler.sessions() > 0, || format!("{what}: nobody was in the middle: {found:?}"))?;
            must_find(found, Some(words), &what)?;
            let attempt = setting.appliance.attempt(&format!("acme/shop/{what}"))?;
            ensure(!attempt.succeeded()?, || format!("{what}: it was to fail: {attempt:?}"))?;
            let said = meddler.in_clear();
            ensure(said.is_empty(), || format!("{what}: said in clear: {:?}", String::from_utf8_lossy(&said)))?;
        }
    }
    // What the server itself offers is not enough either.
    cluster.sql("postgres", "ALTER SYSTEM SET ssl_min_protocol_version = 'TLSv1'")?;
    cluster.sql("postgres", "ALTER SYSTEM SET ssl_max_protocol_version = 'TLSv1.1'")?;
    cluster.reload()?;
    let found = look(&setting, "old", cluster.port(), &["--set", "tls=require"])?;
    must_find(found, Some("tls-failed"), "a server of old")
}

#[test]
fn an_impostor_gets_in_by_no_certificate_that_is_not_the_servers() -> Result {
    let setting = Setting::new("tls-impostor")?;
    let Setting { cluster, workdir, .. } = &setting;
    let ours = Authority::new(&cluster.directory("tls")?)?;
    let strangers = Authority::new(&workdir.join("strangers"))?;
    speak_tls(cluster, &ours.server(HERE)?)?;
    let trust = format!("ca={}", ours.certificate.display());

    let (unknown, another, bound) = ("not signed by a known authority", "another name", "channel binding");
    let stranger = Interceptor::before(cluster.port(), &ours.certificate, &strangers.server(HERE)?)?;
    let elsewhere = Interceptor::before(cluster.port(), &ours.certificate, &ours.server(&["db.elsewhere.test"])?)?;
    // What he does to the server's offers is found by the server: the client says that it could have bound its login.
    let unbinder = Interceptor::who_unbinds(cluster.port(), &ours.certificate, &ours.server(HERE)?)?;
    for (who, middle, expected) in [
        ("stranger", &stranger, [unknown, unknown, bound]),
        ("elsewhere", &elsewhere, [another, bound, bound]),
        ("unbinder", &unbinder, [bound, bound, bound]),
    ] {
        for (mode, words) in ["verify-full", "verify-ca", "require"].into_iter().zip(expected) {
            let what = format!("{who}-{mode}");
            let more = ["--set", &trust, "--set", &format!("tls={mode}")];
            must_find(look(&setting, &what, middle.port(), &more)?, Some(words), &what)?;
            let attempt = setting.appliance.attempt(&format!("acme/shop/{what}"))?;
            let said = attempt.error.to_string();
            ensure(!attempt.succeeded()? && said.contains(words) && !said.contains(PASSWORD), || {
                format!("{what}: it was to fail because of {words:?}: {attempt:?}")
            })?;
        }
    }
    // Where the certificate is not looked at, or is good, he was in between indeed: it was the binding that kept him out.
    for (who, middle) in [("stranger", &stranger), ("elsewhere", &elsewhere), ("unbinder", &unbinder)] {
        ensure(middle.sessions() > 0, || format!("{who} was never in the middle"))?;
    }
    Ok(())
}
