//! `endpoint`: connections to the granted members.

use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use wasmtime::component::Resource;

use super::types::{CallError, misused, refused, refused_for_now};
use super::wit::endpoint::{Host, HostConnection};
use crate::grants::Member;
use crate::socket::Socket;
use crate::state::State;
use crate::streams::{Sink, SinkSlot, Source};

/// Protocol names that one handshake may offer, and bytes of each.
const ALPN_NAMES: usize = 16;
const ALPN_BYTES: usize = 255;

impl Host for State {
    async fn addresses(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(self.dialler.members().iter().map(Member::to_string).collect())
    }

    async fn connect(&mut self, address: u32) -> Result<Resource<Socket>, CallError> {
        let (member, place) = (self.dialler.member(address)?, self.streams.place()?);
        let dialled = self.guard.wait(self.dialler.dial(member)).await??;
        let socket = Socket::new(member.clone(), dialled, self.tls.is_off(), place);
        Ok(self.table.push(socket)?)
    }
}

impl HostConnection for State {
    async fn input(&mut self, this: Resource<Socket>) -> wasmtime::Result<Resource<Source>> {
        let socket = self.table.get(&this)?.clone();
        Ok(self.table.push(Source::Socket(socket))?)
    }

    async fn output(&mut self, this: Resource<Socket>) -> wasmtime::Result<Resource<SinkSlot>> {
        let socket = self.table.get(&this)?.clone();
        Ok(self.table.push(SinkSlot::new(Sink::Socket(socket), None))?)
    }

    async fn start_tls(&mut self, this: Resource<Socket>, alpn: Vec<String>) -> Result<(), CallError> {
        let socket = self.table.get(&this)?;
        let Member::Tcp { host, .. } = socket.member() else {
            return Err(misused("tls-off", "a Unix socket has no TLS"));
        };
        if self.tls.is_off() {
            return Err(refused(
                "tls-off",
                "the operator turned TLS off",
                "Set tls to verify-full, verify-ca or require.",
            ));
        }
        if alpn.len() > ALPN_NAMES || alpn.iter().any(|name| name.is_empty() || name.len() > ALPN_BYTES) {
            return Err(misused("invalid-argument", format!("at most {ALPN_NAMES} names of 1 to {ALPN_BYTES} bytes")));
        }
        let connector = self.tls.connector(alpn)?;
        let stream = socket.begin_tls()?;
        // A task of its own has the thread's stack: certificates are deep code, and the guest's fiber is short.
        let handshake = AbortOnDropHandle::new(tokio::spawn(crate::tls::handshake(connector, host.clone(), stream)));
        let done = self.guard.wait(timeout(self.dialler.patience(), handshake)).await?;
        let stream = match done {
            Ok(Ok(stream)) => stream?,
            Ok(Err(error)) => return Err(CallError::Stopped(wasmtime::Error::new(error))),
            Err(_) => {
                let message = format!("{} did not finish the TLS handshake in time", socket.member());
                let hint = "Check that the server speaks TLS on this port.";
                return Err(refused_for_now("tls-failed", message, hint));
            }
        };
        socket.secure(stream);
        self.secured = true;
        Ok(())
    }

    async fn channel_binding(&mut self, this: Resource<Socket>, kind: String) -> wasmtime::Result<Option<Vec<u8>>> {
        let socket = self.table.get(&this)?;
        Ok(if kind == "tls-server-end-point" { socket.end_point_binding() } else { None })
    }

    async fn drop(&mut self, this: Resource<Socket>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
