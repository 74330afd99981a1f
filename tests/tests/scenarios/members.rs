//! An instance of several servers is backed up from the one that the operator prefers, and a backup says which one that was.

use std::io::ErrorKind;

use holdfast_tests::appliance::Answer;
use holdfast_tests::cluster::{Blueprint, Cluster};
use holdfast_tests::content::Content;
use holdfast_tests::impostor::{Impostor, Tar};
use holdfast_tests::{Failure, PASSWORD, ROLE, Result, ensure};
use serde_json::Value;

use crate::setting::{Setting, small_cluster};

/// Registers `acme/members/NAME` with these servers in this order.
fn register(setting: &Setting, name: &str, servers: &[&Cluster], prefer: &str) -> Result<String> {
    let ports: Vec<u16> = servers.iter().map(|server| server.port()).collect();
    register_at(setting, name, &ports, prefer)
}

/// The same by ports.
fn register_at(setting: &Setting, name: &str, ports: &[u16], prefer: &str) -> Result<String> {
    let instance = format!("acme/members/{name}");
    let list = |part: &dyn Fn(&u16) -> String| ports.iter().map(part).collect::<Vec<_>>().join(",");
    let (hosts, ports) = (list(&|_| "127.0.0.1".into()), list(&u16::to_string));
    let secret = setting.workdir.secret("password", PASSWORD)?;
    let mut words: Vec<String> =
        ["instance", "add", &instance, "--engine", "postgres", "--no-schedule"].map(String::from).into();
    for (key, value) in [("host", hosts.as_str()), ("port", &ports), ("user", ROLE), ("tls", "off"), ("prefer", prefer)]
    {
        words.extend(["--set".into(), format!("{key}={value}")]);
    }
    words.extend(["--secret-file".into(), format!("password={}", secret.display())]);
    setting.appliance.run(words)?.done()?;
    Ok(instance)
}

fn address(server: &Cluster) -> String {
    format!("127.0.0.1:{}", server.port())
}

/// Backs up and waits; the command's answer, and the backup.
fn back_up(setting: &Setting, instance: &str) -> Result<(Answer, Value)> {
    let answer = setting.appliance.run(["backup", "create", instance, "--wait", "-o", "json"])?;
    let backup = setting.appliance.list(&["backup", "list", instance])?.into_iter().next().unwrap_or_default();
    Ok((answer, backup))
}

/// Fails unless a backup succeeded, with or without warnings, and says that it came from this server in this role.
fn must_be_of(answer: &Answer, backup: &Value, server: &Cluster, role: &str, warns: bool) -> Result {
    let code = if warns { 3 } else { 0 };
    let source = &backup["source"];
    let fits = answer.code == Some(code) && source["member"] == address(server) && source["role"] == role;
    ensure(fits, || format!("not from {} as {role} with exit code {code}: {backup}\n{answer}", address(server)))
}

/// The members that a look finds.
fn members(setting: &Setting, instance: &str) -> Result<Vec<Value>> {
    let answer = setting.appliance.run(["instance", "check", instance, "-o", "json"])?;
    let found: Value = serde_json::from_str(&answer.stdout)?;
    found["members"].as_array().cloned().ok_or_else(|| Failure::new(format!("no members: {answer}")))
}

#[test]
fn a_backup_comes_from_the_member_that_is_preferred_and_says_so() -> Result {
    let setting = Setting::new("members")?;
    let Setting { cluster: primary, appliance, workdir, .. } = &setting;
    let mut standby = Cluster::standby_of(primary, &workdir.join("standby"))?;

    for (name, order, prefer, expected, role) in [
        ("any-primary", [primary, &standby], "any", primary, "primary"),
        ("any-standby", [&standby, primary], "any", &standby, "standby"),
        ("primary", [&standby, primary], "primary", primary, "primary"),
        ("standby", [primary, &standby], "standby", &standby, "standby"),
    ] {
        let instance = register(&setting, name, &order, prefer)?;
        let found = members(&setting, &instance)?;
        ensure(found.len() == 2, || format!("{name}: not two members: {found:?}"))?;
        for (member, server) in found.iter().zip(order) {
            let is_standby = server.port() == standby.port();
            let fits = member["address"] == address(server)
                && member["reachable"] == true
                && member["role"] == if is_standby { "standby" } else { "primary" }
                && member["version"].is_string()
                && member["problem"].is_null();
            ensure(fits, || format!("{name}: not {}: {member}", address(server)))?;
        }
        let (answer, backup) = back_up(&setting, &instance)?;
        must_be_of(&answer, &backup, expected, role, false)?;
    }
    let content = Content::of(primary)?;
    let to = workdir.join("restored");
    appliance.restore("acme/members/standby/latest", &to, &[], &["--wait"])?.done()?;
    setting.must_hold(&to, &content)?;

    // Where none of the preferred role answers, another is better than no backup, and it is said.
    standby.stop()?;
    let (answer, backup) = back_up(&setting, "acme/members/standby")?;
    must_be_of(&answer, &backup, primary, "primary", true)?;
    ensure(backup["status"]["warnings"].to_string().contains("standby"), || format!("nobody says so: {backup}"))?;
    let (answer, backup) = back_up(&setting, "acme/members/any-standby")?;
    ensure(answer.code.is_some_and(|code| code == 0 || code == 3), || answer.to_string())?;
    ensure(backup["source"]["member"] == address(primary), || format!("not from the one that answers: {backup}"))?;
    let found = members(&setting, "acme/members/standby")?;
    let down = found.iter().find(|member| member["address"] == address(&standby));
    let is_named = down.is_some_and(|member| member["reachable"] == false && member["problem"]["hint"].is_string());
    ensure(is_named, || format!("the member that is down is not named: {found:?}"))
}

/// Fails unless the log of an instance's newest job says that the member at this port was passed over, with each of these words.
fn must_be_passed_over(setting: &Setting, port: u16, words: &[&str]) -> Result {
    let jobs = setting.appliance.list(&["job", "list"])?;
    let job = jobs.iter().find(|job| job["kind"] == "backup").and_then(|job| job["id"].as_str()).unwrap_or_default();
    let log = setting.appliance.run(["job", "log", job])?.done()?.stdout;
    let head = format!("127.0.0.1:{port} was passed over: ");
    let line = log.lines().find(|line| line.contains(&head)).unwrap_or_default();
    ensure(!line.is_empty() && words.iter().all(|word| line.contains(word)), || {
        format!("{port} is not said to have been passed over because of {words:?}:\n{log}")
    })
}

#[test]
fn a_standby_that_refuses_is_passed_over_for_the_primary_and_the_reason_is_said() -> Result {
    let setting = Setting::new("members-refuse")?;
    let primary = &setting.cluster;
    let standby = Cluster::standby_of(primary, &setting.workdir.join("standby"))?;
    let instance = register(&setting, "refuse", &[&standby, primary], "standby")?;

    // It lets nobody in.
    standby.admit_by(&["local all all trust", "host replication all 127.0.0.1/32 reject"])?;
    standby.reload()?;
    let (answer, backup) = back_up(&setting, &instance)?;
    must_be_of(&answer, &backup, primary, "primary", true)?;
    must_be_passed_over(&setting, standby.port(), &["pg_hba.conf"])?;
    standby.admit_by(&["local all all trust", "host all,replication all 127.0.0.1/32 scram-sha-256"])?;
    standby.reload()?;

    // It lets us in, and refuses the backup itself.
    primary.sql("postgres", "ALTER SYSTEM SET full_page_writes = off")?;
    primary.reload()?;
    primary.sql("postgres", "CREATE TABLE torn AS SELECT 1 AS n; CHECKPOINT")?;
    standby.catch_up(primary)?;
    standby.sql("postgres", "CHECKPOINT")?;
    let (answer, backup) = back_up(&setting, &instance)?;
    must_be_of(&answer, &backup, primary, "primary", true)?;
    must_be_passed_over(&setting, standby.port(), &["full_page_writes"])?;

    // A look says the same before.
    let found = setting.appliance.json(["instance", "check", &instance])?;
    let member = &found["members"][0];
    ensure(member["address"] == address(&standby) && member["problem"]["code"] == "full-page-writes-off", || {
        format!("the standby's problem is not named: {found}")
    })?;
    ensure(found["role"] == "primary" && found["problems"].to_string().contains("preferred-role-missing"), || {
        format!("it does not say what a backup would do: {found}")
    })
}

#[test]
fn members_that_answer_and_refuse_are_passed_over_until_a_backup_begins() -> Result {
    let setting = Setting::new("members-begin")?;
    let error = |state: &str, message: &str| format!("SFATAL\0VFATAL\0C{state}\0M{message}\0\0").into_bytes();
    let starting = error("57P03", "the database system is starting up");
    let busy = error("53400", "there is no room for you");
    let starting = Impostor::who_logs_in(move |peer| peer.message(b'E', &starting))?;
    let refusing = Impostor::who_backs_up(move |peer| peer.message(b'E', &busy))?;
    let willing = || Impostor::who_backs_up(|peer| peer.send_backup(&[], &Tar::whole()));
    let (third, fourth) = (willing()?, willing()?);
    let ports = [starting.port(), refusing.port(), third.port(), fourth.port()];
    let instance = register_at(&setting, "begin", &ports, "any")?;
    let (answer, backup) = back_up(&setting, &instance)?;
    let took = &backup["source"]["member"];
    ensure(backup["status"]["state"] == "Succeeded" && *took == format!("127.0.0.1:{}", third.port()), || {
        format!("not from the first that begins: {backup}\n{answer}")
    })?;
    must_be_passed_over(&setting, starting.port(), &["starting up"])?;
    must_be_passed_over(&setting, refusing.port(), &["no room for you"])?;

    // Once something is kept, there is no other: what comes then is of one server or of none.
    let breaking = Impostor::who_backs_up(|peer| {
        peer.begin_backup(&[])?;
        peer.begin_archive("base.tar", "")?;
        peer.data(Tar::whole().open())?;
        Err(ErrorKind::ConnectionReset.into())
    })?;
    let instance = register_at(&setting, "break", &[breaking.port(), third.port()], "any")?;
    setting.appliance.attempt(&instance)?.failed_by("connection-lost").map(drop)
}

#[test]
fn members_that_are_all_down_are_all_named() -> Result {
    let mut setting = Setting::new("members-down")?;
    let mut standby = Cluster::standby_of(&setting.cluster, &setting.workdir.join("standby"))?;
    let instance = register(&setting, "down", &[&setting.cluster, &standby], "standby")?;
    standby.stop()?;
    setting.cluster.stop()?;
    let found = setting.appliance.obstacle(&instance)?.unwrap_or_default();
    let attempt = setting.appliance.attempt(&instance)?;
    ensure(!attempt.succeeded()?, || format!("{attempt:?}"))?;
    for server in [&setting.cluster, &standby] {
        let named = |text: &str| text.contains(&address(server));
        ensure(named(&found) && named(&attempt.error.to_string()), || {
            format!("{} is not named: {found}\n{attempt:?}", address(server))
        })?;
    }
    Ok(())
}

#[test]
fn servers_of_different_clusters_are_no_members_of_one_instance() -> Result {
    let setting = Setting::new("members-differ")?;
    let other = small_cluster(&setting.workdir.join("other"), &Blueprint::default())?;
    for prefer in ["any", "standby"] {
        let instance = register(&setting, &format!("differ-{prefer}"), &[&setting.cluster, &other], prefer)?;
        let found = setting.appliance.obstacle(&instance)?.unwrap_or_default();
        ensure(found.contains("members-differ"), || format!("{prefer}: a look does not find it: {found}"))?;
    }
    setting.appliance.attempt("acme/members/differ-standby")?.failed_by("members-differ").map(drop)
}
