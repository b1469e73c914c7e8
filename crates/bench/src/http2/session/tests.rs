use proptest::prelude::*;

use super::*;
use crate::feed::Turn;
use crate::http2::frame::setting;
use crate::http2::is_greeting;

fn request(number: u64) -> InFlight {
    InFlight {
        number,
        scheduled: None,
        turn: Turn::default(),
        choice: 0,
        body_len: 0,
        attempt: 1,
        sent: Time::ZERO,
        first_byte: None,
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, kind, flags, stream, payload);
    out
}

fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let pair =
        |(name, value): &(u16, u32)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
    let payload: Vec<u8> = values.iter().flat_map(pair).collect();
    frame(kind::SETTINGS, 0, 0, &payload)
}

/// A session that is agreed, with nothing to be sent.
fn agreed(limit: u32, values: &[(u16, u32)]) -> Session {
    let mut session = Session::new(limit);
    assert_eq!(session.room(), 0, "nothing is asked before the server has said a word");
    let greeting = [settings(values), frame(kind::SETTINGS, flag::ACK, 0, &[])].concat();
    assert!(is_greeting(&greeting));
    feed(&mut session, &greeting);
    drain(&mut session);
    session
}

fn feed(session: &mut Session, bytes: &[u8]) -> Vec<Ended> {
    let mut ended = Vec::new();
    session.receive(bytes, Time::from_nanos(7), &mut ended).unwrap();
    ended
}

/// Kind, flags, stream and length of the frames that go out.
fn drain(session: &mut Session) -> Vec<(u8, u8, u32, usize)> {
    let mut frames = Vec::new();
    loop {
        let bytes = session.pending().to_vec();
        if bytes.is_empty() {
            return frames;
        }
        session.sent(bytes.len());
        let mut rest = bytes.strip_prefix(&PREFACE[..24]).unwrap_or(&bytes);
        while let Some(frame) = cut(&mut rest).unwrap() {
            frames.push((frame.kind, frame.flags, frame.stream, frame.payload.len()));
        }
    }
}

const OK: &[u8] = b"\x88";
const LAST_HEADERS: u8 = flag::END_HEADERS | flag::END_STREAM;

#[test]
fn answers_come_in_any_order_and_pieces() {
    let mut session = agreed(10, &[(setting::MAX_CONCURRENT_STREAMS, 3)]);
    assert_eq!(session.room(), 3);
    for number in 0..3 {
        session.begin(request(number), (AnswerKind::Opaque, false), b"\x82", b"");
    }
    assert_eq!(session.room(), 0);
    assert_eq!(drain(&mut session), [1, 3, 5].map(|id| (kind::HEADERS, LAST_HEADERS, id, 1)));
    let bytes = [
        frame(kind::HEADERS, flag::END_HEADERS, 5, b"\x08\x03103"),
        frame(kind::HEADERS, flag::END_HEADERS | flag::PADDED, 5, b"\x01\x880"),
        frame(kind::HEADERS, flag::END_STREAM, 3, b"\x08\x03"),
        frame(kind::CONTINUATION, flag::END_HEADERS, 3, b"503"),
        frame(kind::DATA, flag::PADDED, 5, b"\x02abc00"),
        frame(kind::PING, 0, 0, b"12345678"),
        frame(kind::DATA, 0, 5, b"d"),
        frame(kind::HEADERS, LAST_HEADERS, 5, b"trailers"),
        frame(kind::HEADERS, LAST_HEADERS, 1, b"\x89"),
    ]
    .concat();
    // In two pieces that are cut everywhere.
    for at in 0..bytes.len() {
        let mut session = agreed(10, &[]);
        for number in 0..3 {
            session.begin(request(number), (AnswerKind::Opaque, false), b"\x82", b"");
        }
        drain(&mut session);
        let mut ended = feed(&mut session, &bytes[..at]);
        ended.extend(feed(&mut session, &bytes[at..]));
        let seen: Vec<_> = ended
            .iter()
            .map(|end| (end.request.number, end.code, end.body_bytes, end.failure))
            .collect();
        let expected = [
            (1, Some(503), 0, Some(Failure::Code(503))),
            (2, Some(200), 4, None),
            (0, Some(204), 0, None),
        ];
        assert_eq!(seen, expected, "cut at {at}");
        assert_eq!(ended[1].request.first_byte, Some(Time::from_nanos(7)));
        assert_eq!(drain(&mut session), [(kind::PING, flag::ACK, 0, 8)]);
        assert_eq!(session.room(), 10);
    }
}

#[test]
fn bodies_wait_for_their_windows() {
    let mut session = agreed(10, &[(setting::INITIAL_WINDOW_SIZE, 10)]);
    session.begin(request(0), (AnswerKind::Opaque, false), b"\x83", &[0; 25]);
    session.begin(request(1), (AnswerKind::Opaque, false), b"\x83", &[0; 70_000]);
    let lengths = |frames: Vec<(u8, u8, u32, usize)>| -> Vec<(u32, u8, usize)> {
        let data = frames.into_iter().filter(|frame| frame.0 == kind::DATA);
        data.map(|(_, flags, id, length)| (id, flags, length)).collect()
    };
    assert_eq!(lengths(drain(&mut session)), [(1, 0, 10), (3, 0, 10)]);
    feed(&mut session, &settings(&[(setting::INITIAL_WINDOW_SIZE, 20)]));
    assert_eq!(lengths(drain(&mut session)), [(1, 0, 10), (3, 0, 10)]);
    feed(&mut session, &frame(kind::WINDOW_UPDATE, 0, 1, &9u32.to_be_bytes()));
    assert_eq!(lengths(drain(&mut session)), [(1, flag::END_STREAM, 5)]);
    feed(&mut session, &frame(kind::WINDOW_UPDATE, 0, 3, &100_000u32.to_be_bytes()));
    let sent: usize = lengths(drain(&mut session)).iter().map(|frame| frame.2).sum();
    assert_eq!(sent, 65_535 - 45, "the connection has a window of its own");
    // An answer that comes before the whole request is an answer; the rest is not sent.
    let ended = feed(&mut session, &frame(kind::HEADERS, LAST_HEADERS, 3, OK));
    assert_eq!((ended.len(), ended[0].failure), (1, None));
    assert_eq!(drain(&mut session), [(kind::RST_STREAM, 0, 3, 4)]);
    feed(&mut session, &frame(kind::WINDOW_UPDATE, 0, 0, &100_000u32.to_be_bytes()));
    assert_eq!(drain(&mut session), []);
}

#[test]
fn what_was_read_is_granted_again() {
    let mut session = agreed(10, &[]);
    session.begin(request(0), (AnswerKind::Opaque, false), b"\x82", b"");
    drain(&mut session);
    feed(&mut session, &frame(kind::HEADERS, flag::END_HEADERS, 1, OK));
    let data = frame(kind::DATA, 0, 1, &[0; MAX_FRAME]);
    let mut granted = 0;
    for _ in 0..40_000 {
        feed(&mut session, &data);
        granted += drain(&mut session).len();
    }
    assert_eq!(granted, 1, "once for more than half of the window");
}

#[test]
fn a_server_that_goes_away_hands_back_what_it_has_not_seen() {
    let mut session = agreed(10, &[]);
    for number in 0..3 {
        session.begin(request(number), (AnswerKind::Opaque, false), b"\x82", b"");
    }
    let goodbye = [3u32.to_be_bytes(), [0; 4]].concat();
    let ended = feed(&mut session, &frame(kind::GOAWAY, 0, 0, &goodbye));
    assert_eq!(ended.len(), 1);
    assert_eq!((ended[0].request.number, ended[0].failure), (2, Some(Failure::GoneAway)));
    assert_eq!((session.room(), session.is_over()), (0, false));
    let ended = feed(&mut session, &frame(kind::RST_STREAM, 0, 1, &7u32.to_be_bytes()));
    assert_eq!(ended[0].failure, Some(Failure::StreamReset(7)));
    assert_eq!(feed(&mut session, &frame(kind::HEADERS, LAST_HEADERS, 3, OK)).len(), 1);
    assert!(session.is_over());
}

#[test]
fn what_was_cancelled_is_told_and_not_heard_of_again() {
    let mut session = agreed(10, &[]);
    for number in 0..2 {
        session.begin(request(number), (AnswerKind::Opaque, false), b"\x82", b"");
    }
    drain(&mut session);
    let mut ended = Vec::new();
    session.cancel(|request| request.number == 0, Failure::Timeout, &mut ended);
    assert_eq!((ended.len(), ended[0].failure), (1, Some(Failure::Timeout)));
    assert_eq!(drain(&mut session), [(kind::RST_STREAM, 0, 1, 4)]);
    let late = [
        frame(kind::HEADERS, flag::END_HEADERS, 1, OK),
        frame(kind::DATA, flag::END_STREAM, 1, b"x"),
    ];
    assert!(feed(&mut session, &late.concat()).is_empty());
    session.fail(Failure::Closed, &mut ended);
    assert_eq!((ended.len(), ended[1].failure), (2, Some(Failure::Closed)));
}

#[test]
fn a_server_that_breaks_the_rules_is_found_out() {
    let begun = || {
        let mut session = agreed(1, &[]);
        session.begin(request(0), (AnswerKind::Opaque, false), b"\x82", b"");
        session
    };
    let error = |mut session: Session, bytes: &[u8]| {
        session.receive(bytes, Time::ZERO, &mut Vec::new()).unwrap_err()
    };
    assert_eq!(
        error(Session::new(1), b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        Http2Error::FrameTooLong
    );
    assert!(!is_greeting(b"HTTP/1.1 400 Bad Request"));
    assert_eq!(error(Session::new(1), &frame(kind::PING, 0, 0, &[0; 8])), Http2Error::NotHttp2);
    let maximum = u32::MAX >> 1;
    for (bytes, expected) in [
        (vec![0, 64, 1, 0, 0, 0, 0, 0, 1], Http2Error::FrameTooLong),
        (frame(kind::DATA, 0, 1, b"x"), Http2Error::Frame),
        (frame(kind::HEADERS, LAST_HEADERS, 3, OK), Http2Error::Frame),
        (frame(kind::HEADERS, LAST_HEADERS, 1, b"\x40"), Http2Error::Status),
        (frame(kind::HEADERS, LAST_HEADERS | flag::PADDED, 1, b"\x09\x88"), Http2Error::Frame),
        (frame(kind::CONTINUATION, 0, 1, OK), Http2Error::Frame),
        // After a head come the body and its end, and no second head.
        (frame(kind::HEADERS, flag::END_HEADERS, 1, OK).repeat(2), Http2Error::Frame),
        (frame(kind::PUSH_PROMISE, 0, 1, OK), Http2Error::Push),
        (frame(kind::WINDOW_UPDATE, 0, 0, &maximum.to_be_bytes()), Http2Error::Window),
        (frame(kind::WINDOW_UPDATE, 0, 1, &[0; 4]), Http2Error::Window),
        (settings(&[(setting::INITIAL_WINDOW_SIZE, u32::MAX)]), Http2Error::Window),
        (
            [frame(kind::HEADERS, 0, 1, OK), frame(kind::PING, 0, 0, &[0; 8])].concat(),
            Http2Error::Frame,
        ),
        (frame(kind::PING, 0, 0, &[0; 8]).repeat(1 << 20), Http2Error::Flood),
        (
            [
                frame(kind::HEADERS, 0, 1, OK),
                frame(kind::CONTINUATION, 0, 1, &[1; MAX_FRAME]).repeat(5),
            ]
            .concat(),
            Http2Error::HeadTooLong,
        ),
    ] {
        assert_eq!(error(begun(), &bytes), expected);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(
        frames in prop::collection::vec((0..12u8, any::<u8>(), 0..6u32, prop::collection::vec(any::<u8>(), 0..12)), 0..20),
        noise in prop::collection::vec(any::<u8>(), 0..30),
    ) {
        let mut session = agreed(10, &[]);
        for number in 0..2 {
            session.begin(request(number), (AnswerKind::OpenAi, false), b"\x82", &[0; 70_000]);
        }
        let frames = frames.iter().map(|(kind, flags, id, payload)| frame(*kind, *flags, *id, payload));
        let bytes = [frames.collect::<Vec<_>>().concat(), noise].concat();
        let mut ended = Vec::new();
        if session.receive(&bytes, Time::ZERO, &mut ended).is_err() {
            session.fail(Failure::Closed, &mut ended);
        }
        prop_assert_eq!(ended.len() + session.requests().count(), 2);
    }
}
