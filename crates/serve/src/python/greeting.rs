use std::time::Duration;

use bytes::BytesMut;
use gatewright_protocol::{Arguments, Frame, FrameDecoder, Hello, VERSION, encode};

use super::link::Link;
use super::refusal::{Cause, Refusal};
use super::secure::HANDSHAKE;
use super::socket::{Reader, Writer};
use crate::error::StartFailure;
use crate::token::Token;

/// How long a connection to the hub's own socket may take to say hello.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest hello in bytes.
const HELLO_BYTES: usize = 4096;
/// What TLS begins with: a handshake of version 3.x. As the length of a frame it is far too long.
const TLS_BEGINS: [u8; 2] = [HANDSHAKE, 3];

/// Reads the hello of a worker and checks it; it must present the token, if one is asked for.
pub(crate) async fn hello(reader: &mut Reader, token: &Token) -> Result<Hello, Refusal> {
    // Nothing may follow the hello before the init: what is read here is the hello alone.
    let mut decoder = FrameDecoder::new(HELLO_BYTES);
    let frame = loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => break frame,
            Ok(None) => {}
            Err(_) if decoder.buffer().starts_with(&TLS_BEGINS) => {
                return Err(Cause::Tls.because("it speaks TLS, and this hub does not"));
            }
            Err(error) => return Err(Cause::Protocol.because(error.to_string())),
        }
        let read = reader.read(decoder.buffer()).await;
        if read.map_err(|error| Cause::Protocol.because(error.to_string()))? == 0 {
            return Err(Cause::Protocol.because("the connection ended before the hello"));
        }
    };
    let Frame::Hello(hello) = frame else {
        return Err(Cause::Protocol.because("the first frame is not a hello"));
    };
    if hello.version != VERSION {
        let theirs = hello.version;
        let what = format!("it speaks version {theirs} of the protocol, this is {VERSION}");
        return Err(Cause::Protocol.because(what));
    }
    if !token.admits(&hello.token) {
        return Err(Cause::Token.because("its token is not the right one"));
    }
    if hello.window == 0 {
        return Err(Cause::Protocol.because("its window is 0"));
    }
    Ok(hello)
}

/// Tells a worker why it is not taken.
pub(crate) async fn refuse(writer: &mut Writer, reason: String) {
    let mut bytes = BytesMut::new();
    if encode(&Frame::Bye { reason }, &mut bytes).is_ok()
        && let Err(error) = writer.write_all(&bytes).await
    {
        tracing::debug!(%error, "a refused worker was gone already");
    }
}

/// From the gateway's init to the worker's ready. `Err(None)` if its connection ended.
pub(crate) async fn until_ready(
    link: &Link,
    reader: &mut Reader,
    decoder: &mut FrameDecoder,
    init: &Arguments,
    max_frame: u32,
) -> Result<(), Option<StartFailure>> {
    let (args, kwargs) = (init.args.clone(), init.kwargs.clone());
    link.send(&Frame::Init { max_frame, args, kwargs });
    let wait = async {
        loop {
            let protocol = |what: String| Some(StartFailure::Protocol(what));
            match decoder.next_frame().map_err(|error| protocol(error.to_string()))? {
                Some(Frame::Ready) => return Ok(()),
                Some(Frame::InitError(error)) => {
                    let (kind, message) = (error.kind, error.message);
                    if let Some(trace) = error.traceback {
                        tracing::debug!(target: "worker", "{trace}");
                    }
                    return Err(Some(StartFailure::Init { kind, message }));
                }
                Some(frame) => {
                    let name = Frame::name(frame.number()).unwrap_or_default();
                    return Err(protocol(format!("a `{name}` frame came before it was ready")));
                }
                None => {}
            }
            if !matches!(reader.read(decoder.buffer()).await, Ok(1..)) {
                return Err(None);
            }
        }
    };
    tokio::select! {
        ready = wait => ready,
        () = link.flush() => Err(None),
    }
}
