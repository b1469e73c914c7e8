use bytes::BytesMut;
use gatewright_protocol::{SseDecoder, SseError, encode_sse, encode_sse_json};
use proptest::prelude::*;

/// Type, data and id of an event.
type Owned = (String, String, String);

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn feed(decoder: &mut SseDecoder, pieces: &[&[u8]]) -> Result<Vec<Owned>, SseError> {
    let mut events = Vec::new();
    for piece in pieces {
        decoder.feed(piece, |event| {
            events.push((text(event.event), text(event.data), text(event.id)));
        })?;
    }
    Ok(events)
}

fn decode(bytes: &[u8]) -> Vec<Owned> {
    feed(&mut SseDecoder::new(1 << 16), &[bytes]).unwrap()
}

fn event(event: &str, data: &str, id: &str) -> Owned {
    (event.to_owned(), data.to_owned(), id.to_owned())
}

/// One of each thing that the standard speaks of.
const SAMPLE: &[u8] = b"\xef\xbb\xbf: a comment\ndata: one\n\nevent: add\r\ndata:two\r\ndata:  three\r\nid: 7\r\n\r\n\
data\rdata\r\rretry: 10\nunknown: x\n\nid: a\0b\ndata: {\"x\": \"\xc3\xa9\"}\n\nevent: lost\n\ndata: [DONE]\n\ndata: cut";

#[test]
fn the_standard_is_kept() {
    let expected = [
        event("", "one", ""),
        event("add", "two\n three", "7"),
        event("", "\n", "7"),
        event("", "{\"x\": \"é\"}", "7"),
        event("", "[DONE]", "7"),
    ];
    assert_eq!(decode(SAMPLE), expected);
    let mut decoder = SseDecoder::new(100);
    let mut done = Vec::new();
    decoder.feed(SAMPLE, |event| done.push(event.is_done())).unwrap();
    assert_eq!(done, [false, false, false, false, true]);
    assert!(decoder.is_inside_event(), "the last event was cut off");
}

#[test]
fn split_anywhere_it_reads_the_same() {
    let whole = decode(SAMPLE);
    for first in 0..=SAMPLE.len() {
        for second in first..=SAMPLE.len() {
            let pieces = [&SAMPLE[..first], &SAMPLE[first..second], &SAMPLE[second..]];
            let events = feed(&mut SseDecoder::new(1 << 16), &pieces).unwrap();
            assert_eq!(events, whole, "split at {first} and {second}");
        }
    }
}

#[test]
fn an_event_is_as_long_as_allowed_and_no_longer() {
    let too_long = Err(SseError::TooLong { limit: 16 });
    let read = |pieces: &[&[u8]]| feed(&mut SseDecoder::new(16), pieces);
    assert_eq!(read(&[b"data: 0123456789\n\n"]).unwrap(), [event("", "0123456789", "")]);
    assert_eq!(read(&[b"data: 0123456789a"]), too_long);
    assert_eq!(read(&[b"data: 01", b"23456789a"]), too_long);
    assert_eq!(read(&[b"data: 0123\n", b"data: 012345\n"]), too_long);
    let endless = [b"d".as_slice(); 17];
    assert_eq!(read(&endless), too_long);
    // What is done is let go of: any number of events fit.
    let many = [b"data: 0123456789\n\n".as_slice(); 1000];
    assert_eq!(read(&many).unwrap().len(), 1000);
}

#[test]
fn json_stays_on_one_line() {
    let mut out = BytesMut::new();
    encode_sse_json(Some("note"), &["line\nbreak"], &mut out).unwrap();
    assert_eq!(&out[..], b"event: note\ndata: [\"line\\nbreak\"]\n\n");
}

#[test]
fn a_name_with_a_line_break_is_not_written() {
    let mut out = BytesMut::new();
    let bad = encode_sse(Some("a\nb"), None, "", &mut out);
    assert_eq!(bad, Err(SseError::BadField { field: "event" }));
    assert_eq!(encode_sse(None, Some("\0"), "", &mut out), Err(SseError::BadField { field: "id" }));
    assert!(out.is_empty());
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        events in prop::collection::vec(("[a-z.]{0,8}", "[^\r\0]{0,40}"), 0..8),
        piece in 1usize..20,
    ) {
        let mut out = BytesMut::new();
        for (name, data) in &events {
            encode_sse(Some(name), None, data, &mut out).unwrap();
        }
        let pieces: Vec<&[u8]> = out.chunks(piece).collect();
        let read = feed(&mut SseDecoder::new(1 << 16), &pieces).unwrap();
        let expected: Vec<Owned> = events.iter().map(|(name, data)| event(name, data, "")).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn line_ends_are_alike(lines in prop::collection::vec("(data|event|id|:|x)(: ?[a-z]{0,4})?|", 0..20)) {
        let with = |end: &str| decode((lines.join(end) + end + end).as_bytes());
        prop_assert_eq!(with("\n"), with("\r\n"));
        prop_assert_eq!(with("\n"), with("\r"));
    }

    #[test]
    fn any_bytes_read_the_same_in_any_pieces(
        bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b':'), any::<u8>()], 0..200),
        piece in 1usize..50,
    ) {
        let whole = feed(&mut SseDecoder::new(64), &[&bytes]);
        let pieces: Vec<&[u8]> = bytes.chunks(piece).collect();
        let split = feed(&mut SseDecoder::new(64), &pieces);
        // A limit may be noticed sooner in one than in the other only by where the pieces end.
        prop_assert_eq!(whole.is_ok(), split.is_ok());
        if let (Ok(whole), Ok(split)) = (whole, split) {
            prop_assert_eq!(whole, split);
        }
    }
}
