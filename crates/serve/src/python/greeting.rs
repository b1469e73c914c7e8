use std::time::Duration;

use bytes::BytesMut;
use gatewright_protocol::{Arguments, Frame, FrameDecoder, Hello, VERSION, encode};
use subtle::ConstantTimeEq;

use super::link::Link;
use super::socket::{Reader, Writer};
use crate::error::StartFailure;

/// How long a connection may take to say hello.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest hello in bytes.
const HELLO_BYTES: usize = 4096;

/// Reads the hello of a worker and checks it; `token` is what it must present, if anything.
pub(crate) async fn hello(reader: &mut Reader, token: Option<&str>) -> Result<Hello, String> {
    // Nothing may follow the hello before the init: what is read here is the hello alone.
    let mut decoder = FrameDecoder::new(HELLO_BYTES);
    let frame = loop {
        if let Some(frame) = decoder.next_frame().map_err(|error| error.to_string())? {
            break frame;
        }
        let read = reader.read(decoder.buffer()).await;
        if read.map_err(|error| error.to_string())? == 0 {
            return Err("the connection ended before the hello".to_owned());
        }
    };
    let Frame::Hello(hello) = frame else {
        return Err("the first frame is not a hello".to_owned());
    };
    if hello.version != VERSION {
        let theirs = hello.version;
        return Err(format!("it speaks version {theirs} of the protocol, this is {VERSION}"));
    }
    if let Some(token) = token
        && !bool::from(hello.token.as_bytes().ct_eq(token.as_bytes()))
    {
        return Err("its token is not the right one".to_owned());
    }
    if hello.window == 0 {
        return Err("its window is 0".to_owned());
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
