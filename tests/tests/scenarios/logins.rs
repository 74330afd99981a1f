//! Every way to log in that servers are set up with, each to a backup that is kept.

use std::process::Command;

use holdfast_tests::certificates::Authority;
use holdfast_tests::content::Content;
use holdfast_tests::{PASSWORD, ROLE, Result, ensure, number};

use crate::setting::{INSTANCE, Setting};

/// Who may come in, and how. Our own questions come by the socket.
const RULES: &[&str] = &[
    "local all,replication postgres trust",
    "local all,replication keeper peer map=appliance",
    "local all,replication clear password",
    "local all,replication older md5",
    "host all,replication keeper 127.0.0.1/32 scram-sha-256",
    "host all,replication older 127.0.0.1/32 md5",
    "host all,replication newer 127.0.0.1/32 md5",
    "host all,replication open 127.0.0.1/32 trust",
    "host all,replication clear 127.0.0.1/32 password",
];

/// A way to log in: the role, with a password or without, by the socket or over the network, and with which TLS.
struct Login {
    role: &'static str,
    password: bool,
    socket: bool,
    tls: &'static str,
}

const LOGINS: &[Login] = &[
    Login { role: "keeper", password: true, socket: false, tls: "off" },
    // Peer: the operating system says who we are.
    Login { role: "keeper", password: false, socket: true, tls: "verify-full" },
    Login { role: "older", password: true, socket: false, tls: "off" },
    Login { role: "older", password: true, socket: true, tls: "off" },
    // A line that says md5 admits a password that is kept for SCRAM, by SCRAM.
    Login { role: "newer", password: true, socket: false, tls: "off" },
    Login { role: "open", password: false, socket: false, tls: "off" },
    Login { role: "clear", password: true, socket: true, tls: "off" },
    Login { role: "clear", password: true, socket: false, tls: "require" },
    Login { role: "open", password: false, socket: false, tls: "require" },
];

impl Login {
    fn name(&self) -> String {
        format!("acme/{}/{}-{}", if self.socket { "socket" } else { "network" }, self.role, self.tls)
    }

    fn register(&self, setting: &Setting) -> Result {
        let host =
            if self.socket { setting.cluster.socket_directory().display().to_string() } else { "127.0.0.1".into() };
        let mut words: Vec<String> =
            ["instance", "add", &self.name(), "--engine", "postgres", "--no-schedule"].map(String::from).into();
        let port = setting.cluster.port().to_string();
        for (key, value) in [("host", host.as_str()), ("port", &port), ("user", self.role), ("tls", self.tls)] {
            words.extend(["--set".into(), format!("{key}={value}")]);
        }
        if self.password {
            let file = setting.workdir.secret("password", PASSWORD)?;
            words.extend(["--secret-file".into(), format!("password={}", file.display())]);
        }
        setting.appliance.run(words)?.done().map(drop)
    }
}

#[test]
fn every_way_to_log_in_leads_to_a_backup() -> Result {
    let setting = Setting::new("logins")?;
    let Setting { cluster, appliance, .. } = &setting;
    for (role, kept_as) in
        [("older", "md5"), ("newer", "scram-sha-256"), ("open", "scram-sha-256"), ("clear", "scram-sha-256")]
    {
        cluster.sql(
            "postgres",
            &format!(
                "SET password_encryption = '{kept_as}'; CREATE ROLE {role} LOGIN REPLICATION PASSWORD '{PASSWORD}'"
            ),
        )?;
    }
    let authority = Authority::new(&cluster.directory("tls")?)?;
    let files = authority.server(&["127.0.0.1"])?;
    cluster.sql(
        "postgres",
        &format!(
            "ALTER SYSTEM SET ssl_cert_file = '{}'; ALTER SYSTEM SET ssl_key_file = '{}'; ALTER SYSTEM SET ssl = on",
            files.certificate.display(),
            files.key.display()
        ),
    )?;
    let ourselves = Command::new("id").arg("-un").output()?;
    cluster.map_users(&[&format!("appliance {} {ROLE}", String::from_utf8_lossy(&ourselves.stdout).trim())])?;
    cluster.admit_by(RULES)?;
    cluster.reload()?;

    for login in LOGINS {
        login.register(&setting)?;
        ensure(appliance.obstacle(&login.name())?.is_none(), || format!("{} cannot be backed up", login.name()))?;
        appliance.back_up(&login.name(), "primary")?;
    }
    // Not a password that others could read on its way.
    let exposed = Login { role: "clear", password: true, socket: false, tls: "off" };
    exposed.register(&setting)?;
    let found = appliance.obstacle(&exposed.name())?.unwrap_or_default();
    ensure(found.contains("password-exposed"), || format!("a password in clear is sent: {found}"))?;
    appliance.attempt(&exposed.name())?.failed_by("password-exposed").map(drop)
}

#[test]
fn a_role_that_may_replicate_and_nothing_else_is_enough() -> Result {
    let setting = Setting::new("only-replication")?;
    let Setting { cluster, appliance, workdir, .. } = &setting;
    cluster.admit_by(&["local all postgres trust", "host replication keeper 127.0.0.1/32 scram-sha-256"])?;
    cluster.reload()?;
    setting.register()?;
    ensure(appliance.obstacle(INSTANCE)?.is_none(), || "it is said to be not enough".into())?;

    let content = Content::of(cluster)?;
    let attempt = appliance.attempt(INSTANCE)?;
    ensure(attempt.succeeded()?, || format!("{attempt:?}"))?;
    ensure(number(&attempt.backup["status"], "logicalBytes")? > 10_000_000, || format!("{attempt:?}"))?;
    appliance.verify(&attempt.name)?;
    let to = workdir.join("restored");
    appliance.restore(&attempt.name, &to, &[], &["--wait"])?.done()?;
    setting.must_hold(&to, &content)
}
