//! Components that are no usable plugins: refused when they are installed, before they are given anything.

use std::fmt::Write as _;
use std::ops::Add as _;

use holdfast_text_guests::{DONE, Guest, component as encoded, describe};

use super::case::Export::Describe;
use super::case::{Case, component};

pub fn cases() -> Vec<Case> {
    [shapes(), imports(), descriptions(), greed(), bombs()].into_iter().flatten().collect()
}

/// Files that are no components, or are not whole.
fn shapes() -> Vec<Case> {
    let whole = Guest::new("whole").component();
    let file = |name: &str, bytes: &[u8]| component(Describe, name, bytes.to_vec());
    vec![
        file("empty-file", b"").fails("", &["0 bytes"]),
        file("text-file", b"#!/bin/sh\nrm -rf /\n").refused(&["component"]),
        file("core-module", b"\0asm\x01\0\0\0").refused(&["component"]),
        file("empty-component", b"\0asm\x0d\0\x01\0").refused(&["plugin"]),
        file("future-component", b"\0asm\xff\0\x01\0").refused(&["component"]),
        file("cut-component", &whole[..whole.len() / 2]).refused(&["unexpected end"]),
        file("cut-by-a-byte", &whole[..whole.len() - 1]).refused(&["unexpected end"]),
        file("damaged-component", &damaged(&whole)).refused(&[]),
        file("sixty-five-mebibytes", &vec![0; 65 << 20]).fails("", &["64 MiB"]),
    ]
}

/// The middle of it is something else.
fn damaged(whole: &[u8]) -> Vec<u8> {
    let mut damaged = whole.to_vec();
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].fill(0xff);
    damaged
}

/// Components that ask for what is not offered.
fn imports() -> Vec<Case> {
    let importing = |name: &str, import: &str| {
        component(Describe, name, encoded(&format!(r#"(component (import "{import}" (instance)))"#)))
    };
    let seven = "(i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 64)";
    vec![
        importing("unknown-interface", "evil:host/shell@1.0.0").refused(&["evil:host/shell"]),
        importing("future-interface", "holdfast:engine/io@2.0.0").refused(&["holdfast:engine/io@2.0.0"]),
        importing("unversioned-interface", "holdfast:engine/io").refused(&["holdfast:engine/io"]),
        component(
            Describe,
            "http-of-wasi",
            encoded(r#"(component (import "wasi:http/types@0.2.0" (instance (export "fields" (type (sub resource))))))"#),
        )
        .refused(&["wasi:http/types"]),
        component(Describe, "processes", Guest::new("processes").probe(format!("(call $spawn {seven}) {DONE}")).component())
            .refused(&["holdfast:engine/process"]),
        component(
            Describe,
            "other-signature",
            encoded(
                r#"(component (import "holdfast:engine/job@1.0.0-rc.1" (instance (export "now" (func (result string))))))"#,
            ),
        )
        .refused(&["now"]),
    ]
}

/// Plugins that say of themselves what cannot be.
fn descriptions() -> Vec<Case> {
    let saying = |name: &str, text: String| component(Describe, name, Guest::new(name).description(text).component());
    let named = |name: &str, key: &str, value: &str| {
        let (old, new) = (format!(r#""{key}":"{name}""#), format!(r#""{key}":"{value}""#));
        saying(name, describe(name).replace(&old, &new))
    };
    vec![
        saying("no-description", String::new()).fails("invalid-result", &["JSON"]),
        saying("description-of-nothing", "{}".into()).refused(&["description"]),
        saying("deep-description", "[".repeat(100_000)).fails("invalid-result", &["JSON"]),
        saying("giant-description", "x".repeat(2 << 20)).fails("plugin-limit", &["host-call"]),
        named("engine-of-a-path", "engine", "../../up").refused(&["engine"]),
        named("name-of-tricks", "name", r"a\u001b[2Jb\nERROR forged line").refused(&["name"]),
        named("engine-of-another", "engine", "hostile").fails("engine-served", &["hostile"]),
        named("engine-built-in", "engine", "postgres").fails("engine-served", &["postgres"]),
        named("name-built-in", "name", "postgres").fails("plugin-exists", &["postgres"]),
        named("title-of-tricks", "title", r"a\u001b[2Jb\u202eERROR\u009b").refused(&["text of its description"]),
        saying(
            "settings-without-end",
            describe("settings-without-end").replace(
                r#"{"key":"host""#,
                &r#"{"key":"x","description":"d"},"#.repeat(5_000).add(r#"{"key":"host""#),
            ),
        )
        .refused(&["settings"]),
        saying(
            "setting-of-tricks",
            describe("setting-of-tricks")
                .replace(r#"{"key":"host""#, r#"{"key":"\u001b[2J","description":"d"},{"key":"host""#),
        )
        .refused(&["text of its description"]),
    ]
}

/// Components that want too much before they have said a word, or never say one.
fn greed() -> Vec<Case> {
    let guest = |name: &str, guest: fn(Guest) -> Guest| component(Describe, name, guest(Guest::new(name)).component());
    vec![
        guest("endless-start", |guest| guest.items("(func $start (loop $again (br $again))) (start $start)"))
            .exceeds("cpu"),
        guest("trap-at-start", |guest| guest.items("(func $start unreachable) (start $start)"))
            .fails("plugin-crashed", &[]),
        guest("memory-from-the-start", |guest| guest.pages(5_000)).exceeds("memory"),
        guest("memories", |guest| guest.items("(memory 64) ".repeat(60))).exceeds("memory"),
        guest("too-many-memories", |guest| guest.items("(memory 0) ".repeat(90))).exceeds("instances"),
        guest("tables", |guest| guest.items("(table 60000 funcref) ".repeat(2))).exceeds("table"),
        guest("long-memory", |guest| guest.items("(memory i64 0x100000000)")).exceeds("memory"),
        component(
            Describe,
            "instances",
            encoded(&format!("(component (core module $m) {})", "(core instance (instantiate $m)) ".repeat(5_000))),
        )
        .refused(&[]),
    ]
    .into_iter()
    .map(|case| Case { export: Describe, ..case })
    .collect()
}

/// Components that are small and expensive to compile.
fn bombs() -> Vec<Case> {
    vec![
        component(Describe, "bomb-of-types", encoded(&types())).refused(&["size"]),
        component(Describe, "bomb-of-code", bomb_of_code()).exceeds("compile-time"),
    ]
}

/// A component that the compiler is busy with for longer than it may be.
pub fn bomb_of_code() -> Vec<u8> {
    Guest::new("bomb-of-code").items(code()).component()
}

/// Each type is twice the one before.
fn types() -> String {
    let mut text = "(component (type $t0 (tuple u8 u8))".to_owned();
    for number in 1..40 {
        let before = number - 1;
        // Writing to a string cannot fail.
        let _ = write!(text, "(type $t{number} (tuple $t{before} $t{before}))");
    }
    text + ")"
}

/// Functions of blocks within blocks with many values alive in all of them.
fn code() -> String {
    let locals = "i64 ".repeat(1_000);
    let mixed: String = (0..1_000)
        .map(|number| {
            format!(
                "(local.set {number} (i64.add (local.get {}) (local.get {})))",
                (number * 7 + 1) % 1_000,
                (number * 13 + 5) % 1_000
            )
        })
        .collect();
    let body = format!("(block $out (loop $again {mixed} (br_if $again (i64.eqz (local.get 3))) (br $out)))");
    format!("(func (local {locals}) {})", body.repeat(40)).repeat(20)
}
