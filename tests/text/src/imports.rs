//! The functions of the host, by the names that guests call them by here.

/// Name, interface, function and core signature.
const IMPORTS: &[(&str, &str, &str, &str)] = &[
    ("addresses", "endpoint", "addresses", "(param i32)"),
    ("connect", "endpoint", "connect", "(param i32 i32)"),
    ("input", "endpoint", "[method]connection.input", "(param i32) (result i32)"),
    ("output", "endpoint", "[method]connection.output", "(param i32) (result i32)"),
    ("start-tls", "endpoint", "[method]connection.start-tls", "(param i32 i32 i32 i32)"),
    ("drop-connection", "endpoint", "[resource-drop]connection", "(param i32)"),
    ("read", "io", "[method]byte-source.read", "(param i32 i32 i32)"),
    ("read-exact", "io", "[method]byte-source.read-exact", "(param i32 i32 i32)"),
    ("write", "io", "[method]byte-sink.write", "(param i32 i32 i32 i32)"),
    ("finish", "io", "[static]byte-sink.finish", "(param i32 i32)"),
    ("drop-source", "io", "[resource-drop]byte-source", "(param i32)"),
    ("drop-sink", "io", "[resource-drop]byte-sink", "(param i32)"),
    ("transfer", "io", "transfer", "(param i32 i32 i64 i32)"),
    ("wait", "io", "wait", "(param i32 i32 i32 i32)"),
    ("setting", "job", "setting", "(param i32 i32 i32)"),
    ("secret", "job", "secret", "(param i32 i32 i32)"),
    ("log", "job", "log", "(param i32 i32 i32 i32)"),
    ("now", "job", "now", "(result i64)"),
    ("random", "job", "random", "(param i32 i32)"),
    ("current", "archive", "current", "(param i32)"),
    ("open", "archive", "[method]backup.open", "(param i32 i32 i32 i64 i32 i64 i32)"),
    ("begin-entry", "archive", "begin-entry", "(param i32 i32 i32 i32 i32 i32 i64 i32 i64 i32 i32 i32 i32 i32)"),
    ("extract", "destination", "extract", "(param i32 i32 i32)"),
    ("settle", "destination", "settle", "(param i32)"),
    ("create-file", "destination", "create-file", "(param i32 i32 i32 i32 i32 i32)"),
    ("spawn", "process", "spawn", "(param i32 i32 i32 i32 i32 i32 i32)"),
    ("sleep", "wasi:clocks/monotonic-clock@0.2.0", "subscribe-duration", "(param i64) (result i32)"),
    ("block", "wasi:io/poll@0.2.0", "[method]pollable.block", "(param i32)"),
    ("print", "wasi:io/streams@0.2.0", "[method]output-stream.blocking-write-and-flush", "(param i32 i32 i32 i32)"),
    ("stdout", "wasi:cli/stdout@0.2.0", "get-stdout", "(result i32)"),
    ("environment", "wasi:cli/environment@0.2.0", "get-environment", "(param i32)"),
    ("exit", "wasi:cli/exit@0.2.0", "exit", "(param i32)"),
    ("directories", "wasi:filesystem/preopens@0.2.0", "get-directories", "(param i32)"),
    ("network", "wasi:sockets/instance-network@0.2.0", "instance-network", "(result i32)"),
    ("resolve", "wasi:sockets/ip-name-lookup@0.2.0", "resolve-addresses", "(param i32 i32 i32 i32)"),
    ("socket", "wasi:sockets/tcp-create-socket@0.2.0", "create-tcp-socket", "(param i32 i32)"),
    (
        "start-connect",
        "wasi:sockets/tcp@0.2.0",
        "[method]tcp-socket.start-connect",
        "(param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)",
    ),
];

/// The imports of what these texts call.
pub(crate) fn called_in(texts: &[&str]) -> String {
    let is_called = |name: &str| {
        let call = format!("call ${name}");
        let ends = |rest: &str| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '-');
        texts.iter().any(|text| text.match_indices(&call).any(|(at, _)| ends(&text[at + call.len()..])))
    };
    let called = IMPORTS.iter().filter(|(name, ..)| is_called(name));
    called
        .map(|(name, interface, function, signature)| {
            let ours = format!("holdfast:engine/{interface}@1.0.0-rc.1");
            let interface = if interface.contains(':') { interface } else { ours.as_str() };
            format!(r#"(import "{interface}" "{function}" (func ${name} {signature}))"#)
        })
        .collect()
}

/// As much of WASI 0.2 as guests here call.
pub const WASI: &str = "
    package guest:wasi;
    world wasi {
        include holdfast:engine/engine@1.0.0-rc.1;
        import wasi:io/poll@0.2.0;
        import wasi:io/streams@0.2.0;
        import wasi:clocks/monotonic-clock@0.2.0;
        import wasi:cli/stdout@0.2.0;
        import wasi:cli/environment@0.2.0;
        import wasi:cli/exit@0.2.0;
        import wasi:filesystem/preopens@0.2.0;
        import wasi:sockets/instance-network@0.2.0;
        import wasi:sockets/ip-name-lookup@0.2.0;
        import wasi:sockets/tcp-create-socket@0.2.0;
        import wasi:sockets/tcp@0.2.0;
    }
    package wasi:io@0.2.0 {
        interface error { resource error; }
        interface poll { resource pollable { block: func(); } }
        interface streams {
            use error.{error};
            variant stream-error { last-operation-failed(error), closed }
            resource output-stream {
                blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
            }
        }
    }
    package wasi:clocks@0.2.0 {
        interface monotonic-clock {
            use wasi:io/poll@0.2.0.{pollable};
            subscribe-duration: func(when: u64) -> pollable;
        }
    }
    package wasi:cli@0.2.0 {
        interface stdout {
            use wasi:io/streams@0.2.0.{output-stream};
            get-stdout: func() -> output-stream;
        }
        interface environment { get-environment: func() -> list<tuple<string, string>>; }
        interface exit { exit: func(status: result); }
    }
    package wasi:filesystem@0.2.0 {
        interface types { resource descriptor; }
        interface preopens {
            use types.{descriptor};
            get-directories: func() -> list<tuple<descriptor, string>>;
        }
    }
    package wasi:sockets@0.2.0 {
        interface network {
            resource network;
            enum error-code {
                unknown, access-denied, not-supported, invalid-argument, out-of-memory, timeout, concurrency-conflict,
                not-in-progress, would-block, invalid-state, new-socket-limit, address-not-bindable, address-in-use,
                remote-unreachable, connection-refused, connection-reset, connection-aborted, datagram-too-large,
                name-unresolvable, temporary-resolver-failure, permanent-resolver-failure,
            }
            enum ip-address-family { ipv4, ipv6 }
            record ipv4-socket-address { port: u16, address: tuple<u8, u8, u8, u8> }
            record ipv6-socket-address {
                port: u16, flow-info: u32, address: tuple<u16, u16, u16, u16, u16, u16, u16, u16>, scope-id: u32,
            }
            variant ip-socket-address { ipv4(ipv4-socket-address), ipv6(ipv6-socket-address) }
        }
        interface instance-network {
            use network.{network};
            instance-network: func() -> network;
        }
        interface ip-name-lookup {
            use network.{network, error-code};
            resource resolve-address-stream;
            resolve-addresses: func(network: borrow<network>, name: string) -> result<resolve-address-stream, error-code>;
        }
        interface tcp {
            use network.{network, error-code, ip-socket-address};
            resource tcp-socket {
                start-connect: func(network: borrow<network>, remote-address: ip-socket-address) -> result<_, error-code>;
            }
        }
        interface tcp-create-socket {
            use network.{error-code, ip-address-family};
            use tcp.{tcp-socket};
            create-tcp-socket: func(address-family: ip-address-family) -> result<tcp-socket, error-code>;
        }
    }
";
