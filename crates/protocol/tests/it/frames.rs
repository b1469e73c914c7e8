use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use gatewright_protocol::{
    CallError, DecodeError, Frame, FrameDecoder, Hello, InitError, Request, encode,
};
use proptest::prelude::*;

fn bytes_of(frame: &Frame) -> BytesMut {
    let mut out = BytesMut::new();
    encode(frame, &mut out).unwrap();
    out
}

/// Feeds a decoder with pieces of at most `piece` bytes.
fn decode(bytes: &[u8], piece: usize) -> Result<Vec<Frame>, DecodeError> {
    let mut decoder = FrameDecoder::new(1 << 20);
    let mut frames = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        decoder.buffer().extend_from_slice(piece);
        while let Some(frame) = decoder.next_frame()? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

fn worker() -> Hello {
    Hello {
        version: 1,
        name: "w".into(),
        pid: 7,
        window: 1,
        token: "t".into(),
        function: None,
        node: "n".into(),
        labels: BTreeMap::new(),
        cpus: None,
        memory: None,
    }
}

#[test]
fn the_bytes_are_those_of_the_documentation() {
    let golden: [(Frame, &[u8]); 10] = [
        (Frame::Hello(worker()), b"\x0c\0\0\0\x98\x01\x01\xa1w\x07\x01\xa1t\xc0\xa1n"),
        (
            Frame::Hello(Hello {
                labels: [("z".to_owned(), "a".to_owned())].into(),
                cpus: Some(2),
                ..worker()
            }),
            b"\x13\0\0\0\x9b\x01\x01\xa1w\x07\x01\xa1t\xc0\xa1n\x81\xa1z\xa1a\x02\xc0",
        ),
        (
            Frame::Init {
                max_frame: 9,
                args: Bytes::from_static(b"\x91\x2a"),
                kwargs: Bytes::from_static(b"\x80"),
            },
            b"\x06\0\0\0\x94\x02\x09\x91\x2a\x80",
        ),
        (Frame::Ready, b"\x02\0\0\0\x91\x03"),
        (
            Frame::Request(Request {
                id: 300,
                deadline_ms: None,
                attempt: 1,
                args: Bytes::from_static(b"\x91\x05"),
                kwargs: Bytes::from_static(b"\x80"),
            }),
            b"\x0a\0\0\0\x96\x05\xcd\x01\x2c\xc0\x01\x91\x05\x80",
        ),
        (
            Frame::Response { id: 300, value: Bytes::from_static(b"\x19") },
            b"\x06\0\0\0\x93\x06\xcd\x01\x2c\x19",
        ),
        (
            Frame::Error(CallError {
                id: 2,
                kind: "E".into(),
                message: "m".into(),
                traceback: None,
                retryable: false,
            }),
            b"\x09\0\0\0\x96\x08\x02\xa1E\xa1m\xc0\xc2",
        ),
        (Frame::Batch { size: 2 }, b"\x03\0\0\0\x92\x0e\x02"),
        (Frame::Drain, b"\x02\0\0\0\x91\x0c"),
        (Frame::Bye { reason: "x".into() }, b"\x04\0\0\0\x92\x0d\xa1x"),
    ];
    for (frame, bytes) in golden {
        assert_eq!(bytes_of(&frame), bytes, "{frame:?}");
        assert_eq!(decode(bytes, 1).unwrap(), [frame]);
    }
}

#[test]
fn a_number_may_be_written_in_any_form() {
    let forms: [&[u8]; 3] = [
        b"\x03\0\0\0\x92\x0a\x05",
        b"\x13\0\0\0\x92\xd3\0\0\0\0\0\0\0\x0a\xcf\0\0\0\0\0\0\0\x05",
        b"\x0a\0\0\0\xdc\0\x02\xd0\x0a\xd2\0\0\0\x05",
    ];
    for bytes in forms {
        assert_eq!(decode(bytes, 100).unwrap(), [Frame::Ping { nonce: 5 }]);
    }
}

#[test]
fn a_length_above_the_limit_is_refused_before_it_is_read() {
    let mut decoder = FrameDecoder::new(10);
    decoder.buffer().extend_from_slice(&11u32.to_le_bytes());
    let refused = decoder.next_frame();
    assert_eq!(refused, Err(DecodeError::TooLong { length: 11, limit: 10 }));
}

#[test]
fn what_is_wrong_is_named() {
    let cases: [(&[u8], &str); 7] = [
        (b"\x00\0\0\0", "the frame is not a msgpack array that begins with a number"),
        (b"\x02\0\0\0\x91\xa0", "the frame is not a msgpack array that begins with a number"),
        (b"\x02\0\0\0\x91\x63", "no kind of frame has the number 99"),
        (b"\x02\0\0\0\x91\x0a", "a `ping` frame has 2 elements, this one has 1"),
        (b"\x03\0\0\0\x92\x0a\xc0", "`nonce` of a `ping` frame is not a number from 0"),
        (b"\x04\0\0\0\x92\x0d\xa1\xff", "`reason` of a `bye` frame is not a string in UTF-8"),
        (
            b"\x03\0\0\0\x91\x03\x00",
            "a `ready` frame is followed by 1 bytes that belong to nothing",
        ),
    ];
    for (bytes, text) in cases {
        assert_eq!(decode(bytes, 100).unwrap_err().to_string(), text);
    }
}

#[test]
fn an_array_that_lies_about_its_length_is_refused() {
    // An init frame whose arguments announce four thousand million elements.
    let bytes = b"\x09\0\0\0\x94\x02\x09\xdd\xff\xff\xff\xff\x80";
    let error = decode(bytes, 100).unwrap_err();
    assert_eq!(error, DecodeError::Field { frame: "init", field: "args", expected: "an array" });
}

fn raw_array() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        Just(Bytes::from_static(b"\x90")),
        Just(Bytes::from_static(b"\x92\x01\xa2hi")),
        Just(Bytes::from_static(b"\xdc\x00\x01\x91\x91\xc4\x02\x00\xff")),
    ]
}

fn raw_map() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        Just(Bytes::from_static(b"\x80")),
        Just(Bytes::from_static(b"\x81\xa1k\x93\x01\x02\x81\xa1z\xc0")),
    ]
}

fn hellos() -> impl Strategy<Value = Frame> {
    let text = ".{0,40}";
    let function = proptest::option::of(text);
    (any::<u32>(), text, any::<u32>(), any::<u32>(), text, function, any::<Option<u64>>()).prop_map(
        |(version, name, pid, window, token, function, memory)| {
            Frame::Hello(Hello {
                version,
                node: name.clone(),
                labels: memory.map(|_| (name.clone(), token.clone())).into_iter().collect(),
                cpus: memory.map(|_| window),
                memory,
                name,
                pid,
                window,
                token,
                function,
            })
        },
    )
}

fn frames() -> impl Strategy<Value = Frame> {
    let text = ".{0,40}";
    let traceback = proptest::option::of(".{0,300}");
    prop_oneof![
        hellos(),
        any::<u32>().prop_map(|size| Frame::Batch { size }),
        (any::<u32>(), raw_array(), raw_map()).prop_map(|(max_frame, args, kwargs)| Frame::Init {
            max_frame,
            args,
            kwargs
        }),
        Just(Frame::Ready),
        (text, text, traceback.clone()).prop_map(|(kind, message, traceback)| Frame::InitError(
            InitError { kind, message, traceback }
        )),
        (any::<u64>(), any::<Option<u64>>(), any::<u32>(), raw_array(), raw_map()).prop_map(
            |(id, deadline_ms, attempt, args, kwargs)| Frame::Request(Request {
                id,
                deadline_ms,
                attempt,
                args,
                kwargs
            })
        ),
        (any::<u64>(), raw_map()).prop_map(|(id, value)| Frame::Response { id, value }),
        (any::<u64>(), any::<Vec<u8>>()).prop_map(|(id, data)| Frame::Chunk {
            id,
            text: false,
            data: data.into()
        }),
        (any::<u64>(), text).prop_map(|(id, data)| Frame::Chunk {
            id,
            text: true,
            data: data.into()
        }),
        (any::<u64>(), text, text, traceback, any::<bool>()).prop_map(
            |(id, kind, message, traceback, retryable)| Frame::Error(CallError {
                id,
                kind,
                message,
                traceback,
                retryable
            })
        ),
        any::<u64>().prop_map(|id| Frame::Cancel { id }),
        any::<u64>().prop_map(|nonce| Frame::Ping { nonce }),
        any::<u64>().prop_map(|nonce| Frame::Pong { nonce }),
        Just(Frame::Drain),
        text.prop_map(|reason| Frame::Bye { reason }),
    ]
}

proptest! {
    #[test]
    fn frames_come_back_from_any_pieces(
        sent in proptest::collection::vec(frames(), 0..12),
        piece in 1usize..200,
    ) {
        let mut bytes = BytesMut::new();
        for frame in &sent {
            encode(frame, &mut bytes).unwrap();
        }
        prop_assert_eq!(decode(&bytes, piece).unwrap(), sent);
    }

    #[test]
    fn any_bytes_are_frames_or_a_clear_error(bytes: Vec<u8>, piece in 1usize..50) {
        if let Err(error) = decode(&bytes, piece) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn a_frame_with_one_wrong_byte_never_panics(
        frame in frames(),
        place: prop::sample::Index,
        byte: u8,
    ) {
        let mut bytes = bytes_of(&frame);
        let place = place.index(bytes.len());
        bytes[place] = byte;
        drop(decode(&bytes, 1000));
    }
}
