use std::mem::MaybeUninit;

use httparse::{ParserConfig, Status};

/// Follows one HTTP/1.x response through its bytes, however they are cut; keeps nothing of the body.
#[derive(Debug)]
pub(crate) struct ResponseParser {
    state: State,
    /// What came of a head that is not complete yet.
    head: Vec<u8>,
    code: u16,
    keep_alive: bool,
    body_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// A body of known length; bytes still to come.
    Length(u64),
    Chunk(Chunk),
    /// A body that ends with the connection.
    UntilClose,
}

/// Where in a chunked body (RFC 9112, section 7.1) the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    Size { size: u64, digits: u8 },
    Extension { size: u64, skipped: u32 },
    SizeEnd { size: u64 },
    Data { left: u64 },
    DataEnd,
    DataEndLine,
    Trailer { line: u32, skipped: u32 },
}

/// What a response may be at most.
const MAX_HEAD: usize = 64 << 10;
const MAX_HEADERS: usize = 128;
const MAX_BODY: u64 = 1 << 30;
const MAX_SKIPPED: u32 = 64 << 10;

/// What is wrong with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub(crate) enum ResponseError {
    #[error("the answer is not HTTP/1")]
    NotHttp,
    #[error("a header of the answer is broken")]
    Header,
    #[error("the answer has more than 128 headers")]
    TooManyHeaders,
    #[error("the head of the answer is longer than 64 KiB")]
    HeadTooLong,
    #[error("the content-length of the answer is not a number")]
    Length,
    #[error("the body of the answer is longer than 1 GiB")]
    BodyTooLong,
    #[error("a chunk of the answer is broken")]
    Chunk,
    #[error("the answer switches protocols")]
    Upgrade,
}

/// What the head of a response says.
struct Head {
    len: usize,
    code: u16,
    http_11: bool,
    length: Option<u64>,
    chunked: Option<bool>,
    close: bool,
    keep_alive: bool,
}

impl ResponseParser {
    pub(crate) const fn new() -> Self {
        Self { state: State::Head, head: Vec::new(), code: 0, keep_alive: false, body_bytes: 0 }
    }

    /// Makes ready for the next response.
    pub(crate) fn reset(&mut self) {
        self.state = State::Head;
        self.head.clear();
        (self.code, self.keep_alive, self.body_bytes) = (0, false, 0);
    }

    /// Status code, once the head has been read.
    pub(crate) fn code(&self) -> Option<u16> {
        (self.state != State::Head).then_some(self.code)
    }

    /// Whether another request may follow on the connection.
    pub(crate) const fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    pub(crate) const fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Takes the next bytes. When the response is complete, says how many of them belong to it.
    /// `no_body`: the request was a HEAD. `body` gets the code and the pieces of the body.
    pub(crate) fn feed(
        &mut self,
        input: &[u8],
        no_body: bool,
        mut body: impl FnMut(u16, &[u8]),
    ) -> Result<Option<usize>, ResponseError> {
        let mut used = 0;
        while self.state == State::Head {
            match self.feed_head(&input[used..], no_body)? {
                Some((count, complete)) => {
                    used += count;
                    if complete {
                        return Ok(Some(used));
                    }
                }
                None => return Ok(None),
            }
        }
        let complete = self.feed_body(&input[used..], &mut body)?;
        if self.body_bytes > MAX_BODY {
            return Err(ResponseError::BodyTooLong);
        }
        Ok(complete.map(|count| used + count))
    }

    /// The connection has ended. Whether that completes the response.
    pub(crate) fn end(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Reads a head; says how many bytes of `input` it took and whether it is all of the response.
    fn feed_head(
        &mut self,
        input: &[u8],
        no_body: bool,
    ) -> Result<Option<(usize, bool)>, ResponseError> {
        let before = self.head.len();
        if before > 0 && !input.contains(&b'\n') && before + input.len() <= MAX_HEAD {
            self.head.extend_from_slice(input);
            return Ok(None);
        }
        let parsed = if before == 0 {
            parse_head(input)?
        } else {
            self.head.extend_from_slice(input);
            parse_head(&self.head)?
        };
        let Some(head) = parsed else {
            if before == 0 {
                self.head.extend_from_slice(input);
            }
            let fits = self.head.len() <= MAX_HEAD;
            return if fits { Ok(None) } else { Err(ResponseError::HeadTooLong) };
        };
        if head.len > MAX_HEAD {
            return Err(ResponseError::HeadTooLong);
        }
        self.head.clear();
        if head.code == 101 {
            return Err(ResponseError::Upgrade);
        }
        let used = head.len - before;
        if head.code < 200 {
            // An interim answer; the real one follows.
            return Ok(Some((used, false)));
        }
        Ok(Some((used, self.begin_body(&head, no_body)?)))
    }

    /// How the body is delimited: RFC 9112, section 6.3. Says whether there is none.
    fn begin_body(&mut self, head: &Head, no_body: bool) -> Result<bool, ResponseError> {
        self.code = head.code;
        self.keep_alive = if head.http_11 { !head.close } else { head.keep_alive && !head.close };
        self.state = match (head.chunked, head.length) {
            _ if no_body || head.code == 204 || head.code == 304 => State::Length(0),
            (Some(true), _) => State::Chunk(Chunk::Size { size: 0, digits: 0 }),
            (None, Some(length)) => State::Length(length),
            (Some(false), _) | (None, None) => {
                self.keep_alive = false;
                State::UntilClose
            }
        };
        match self.state {
            State::Length(length) if length > MAX_BODY => Err(ResponseError::BodyTooLong),
            State::Length(length) => Ok(length == 0),
            _ => Ok(false),
        }
    }

    fn feed_body(
        &mut self,
        input: &[u8],
        body: &mut impl FnMut(u16, &[u8]),
    ) -> Result<Option<usize>, ResponseError> {
        let code = self.code;
        match &mut self.state {
            State::Head => Ok(None),
            State::UntilClose => {
                self.body_bytes += input.len() as u64;
                body(code, input);
                Ok(None)
            }
            State::Length(left) => {
                let count = (input.len() as u64).min(*left);
                *left -= count;
                self.body_bytes += count;
                body(code, &input[..count as usize]);
                Ok((*left == 0).then_some(count as usize))
            }
            State::Chunk(chunk) => {
                let mut used = 0;
                while used < input.len() {
                    if let Chunk::Data { left } = chunk {
                        let count = ((input.len() - used) as u64).min(*left);
                        *left -= count;
                        self.body_bytes += count;
                        body(code, &input[used..used + count as usize]);
                        used += count as usize;
                        if *left == 0 {
                            *chunk = Chunk::DataEnd;
                        }
                        continue;
                    }
                    let byte = input[used];
                    used += 1;
                    match chunk.after(byte)? {
                        Some(next) => *chunk = next,
                        None => return Ok(Some(used)),
                    }
                }
                Ok(None)
            }
        }
    }
}

impl Chunk {
    /// The place after `byte` outside of data; none when the body is complete.
    fn after(self, byte: u8) -> Result<Option<Self>, ResponseError> {
        let next = match (self, byte) {
            (Self::Size { size, digits }, digit) if digit.is_ascii_hexdigit() && digits < 15 => {
                let value = (digit as char).to_digit(16).map_or(0, u64::from);
                Self::Size { size: size * 16 + value, digits: digits + 1 }
            }
            (Self::Size { digits: 0, .. }, _) => return Err(ResponseError::Chunk),
            (Self::Size { size, .. } | Self::Extension { size, .. }, b'\r') => {
                Self::SizeEnd { size }
            }
            (
                Self::Size { size, .. } | Self::SizeEnd { size } | Self::Extension { size, .. },
                b'\n',
            ) => match size {
                0 => Self::Trailer { line: 0, skipped: 0 },
                left => Self::Data { left },
            },
            (Self::Size { size, .. }, b';' | b' ' | b'\t') => Self::Extension { size, skipped: 0 },
            (Self::Extension { size, skipped }, _) if skipped < MAX_SKIPPED => {
                Self::Extension { size, skipped: skipped + 1 }
            }
            (Self::DataEnd, b'\r') => Self::DataEndLine,
            (Self::DataEnd | Self::DataEndLine, b'\n') => Self::Size { size: 0, digits: 0 },
            (Self::Trailer { line: 0, .. }, b'\n') => return Ok(None),
            (Self::Trailer { skipped, .. }, b'\n') => Self::Trailer { line: 0, skipped },
            // A carriage return alone does not make a line, so an empty line may end in both.
            (Self::Trailer { line, skipped }, b'\r') => Self::Trailer { line, skipped },
            (Self::Trailer { line, skipped }, _) if skipped < MAX_SKIPPED => {
                Self::Trailer { line: line + 1, skipped: skipped + 1 }
            }
            _ => return Err(ResponseError::Chunk),
        };
        Ok(Some(next))
    }
}

fn parse_head(bytes: &[u8]) -> Result<Option<Head>, ResponseError> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let config = ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut response, bytes, &mut headers);
    let len = match parsed {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(ResponseError::TooManyHeaders),
        Err(httparse::Error::Version | httparse::Error::Status | httparse::Error::Token) => {
            return Err(ResponseError::NotHttp);
        }
        Err(_) => return Err(ResponseError::Header),
    };
    let mut head = Head {
        len,
        code: response.code.unwrap_or(0),
        http_11: response.version == Some(1),
        length: None,
        chunked: None,
        close: false,
        keep_alive: false,
    };
    for header in response.headers.iter() {
        head.take(header.name, header.value)?;
    }
    Ok(Some(head))
}

/// Where the answer that begins with `head`, interim ones included, says that it is to be found instead.
pub(crate) fn location(head: &[u8]) -> Option<String> {
    let mut rest = head;
    loop {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let Ok(Status::Complete(length)) = response.parse(rest) else { return None };
        if response.code.is_some_and(|code| code >= 200) {
            let is_it =
                |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case("location");
            let found = response.headers.iter().find(is_it)?;
            return std::str::from_utf8(found.value).ok().map(str::to_owned);
        }
        rest = &rest[length..];
    }
}

impl Head {
    fn take(&mut self, name: &str, value: &[u8]) -> Result<(), ResponseError> {
        if name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(value).map_err(|_| ResponseError::Length)?;
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let length: u64 =
                text.parse().ok().filter(|_| is_number).ok_or(ResponseError::Length)?;
            if self.length.is_some_and(|other| other != length) {
                return Err(ResponseError::Length);
            }
            self.length = Some(length);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            let last = value.rsplit(|&byte| byte == b',').next().unwrap_or_default();
            self.chunked = Some(last.trim_ascii().eq_ignore_ascii_case(b"chunked"));
        } else if name.eq_ignore_ascii_case("connection") {
            for word in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                self.close |= word.eq_ignore_ascii_case(b"close");
                self.keep_alive |= word.eq_ignore_ascii_case(b"keep-alive");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is seen of a response: code, bytes of the body, whether the connection stays, and what was left.
    type Seen = Result<(u16, u64, bool, usize), Option<ResponseError>>;

    fn read(pieces: &[&[u8]], no_body: bool) -> Seen {
        let mut parser = ResponseParser::new();
        let mut seen = 0;
        let mut total: usize = pieces.iter().map(|piece| piece.len()).sum();
        for piece in pieces {
            if let Some(used) =
                parser.feed(piece, no_body, |_, part| seen += part.len() as u64).map_err(Some)?
            {
                total -= used;
                let code = parser.code().ok_or(None)?;
                assert_eq!(seen, parser.body_bytes(), "every byte of the body is handed over");
                return Ok((code, parser.body_bytes(), parser.keep_alive(), total));
            }
            total -= piece.len();
        }
        let code = parser.code().filter(|_| parser.end()).ok_or(None)?;
        Ok((code, parser.body_bytes(), parser.keep_alive(), 0))
    }

    const CASES: [(&str, Seen); 17] = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcX", Ok((200, 3, true, 1))),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Ok((200, 0, true, 0))),
        ("HTTP/1.1 200 OK\nCONTENT-LENGTH: 1\n\na", Ok((200, 1, true, 0))),
        (
            "HTTP/1.1 503 No\r\nconnection: Close\r\ncontent-length: 1\r\n\r\na",
            Ok((503, 1, false, 0)),
        ),
        ("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\na", Ok((200, 1, false, 0))),
        (
            "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\na",
            Ok((200, 1, true, 0)),
        ),
        ("HTTP/1.1 200 OK\r\n\r\nall of it", Ok((200, 9, false, 0))),
        ("HTTP/1.1 204 OK\r\n\r\n", Ok((204, 0, true, 0))),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n3\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n\
             0\r\nx-t: 1\r\n\r\nrest",
            Ok((200, 13, true, 4)),
        ),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\na\n0\n\n", Ok((200, 1, true, 0))),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nlink: a\r\n\r\nHTTP/1.1 204 OK\r\n\r\n",
            Ok((204, 0, true, 0)),
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc", Err(None)),
        ("HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n", Err(Some(ResponseError::Length))),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            Err(Some(ResponseError::Length)),
        ),
        ("HTTP/1.1 101 Up\r\n\r\n", Err(Some(ResponseError::Upgrade))),
        ("SSH-2.0-OpenSSH\r\n\r\n", Err(Some(ResponseError::NotHttp))),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nz\r\n",
            Err(Some(ResponseError::Chunk)),
        ),
    ];

    #[test]
    fn responses_are_delimited_as_the_standard_says() {
        for (text, expected) in CASES {
            assert_eq!(read(&[text.as_bytes()], false), expected, "{text:?}");
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n";
        assert_eq!(read(&[head.as_bytes()], true), Ok((200, 0, true, 0)));
    }

    #[test]
    fn responses_are_the_same_byte_by_byte() {
        for (text, expected) in CASES {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(read(&pieces, false), expected, "{text:?}");
        }
    }

    #[test]
    fn a_parser_is_used_again() {
        let mut parser = ResponseParser::new();
        for (text, expected) in CASES {
            parser.reset();
            let complete = parser.feed(text.as_bytes(), false, |_, _| ());
            let complete = complete.map(|used| used.is_some() || parser.end());
            assert_eq!(complete == Ok(true), expected.is_ok(), "{text:?}");
        }
    }

    #[test]
    fn nothing_is_endless() {
        let start = b"HTTP/1.1 200 OK\r\n".as_slice();
        let line = [b"x: ".as_slice(), &[b'y'; 1000], b"\r\n"].concat();
        let mut pieces = vec![start];
        pieces.extend((0..100).map(|_| &line[..]));
        assert_eq!(read(&pieces, false), Err(Some(ResponseError::HeadTooLong)));
        let many = [start, &b"a: b\r\n".repeat(200)].concat();
        assert_eq!(read(&[&many], false), Err(Some(ResponseError::TooManyHeaders)));
        let huge = b"HTTP/1.1 200 OK\r\ncontent-length: 1073741825\r\n\r\n";
        assert_eq!(read(&[huge], false), Err(Some(ResponseError::BodyTooLong)));
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let long = [b'x'; 70_000];
        assert_eq!(read(&[chunked, b"1;", &long], false), Err(Some(ResponseError::Chunk)));
        assert_eq!(read(&[chunked, b"0\r\n", &long], false), Err(Some(ResponseError::Chunk)));
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_answer(
            case in 0..CASES.len(),
            mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let (text, expected) = CASES[case];
            let bytes = text.as_bytes();
            let mut at: Vec<usize> = cuts.drain(..).map(|cut| cut.index(bytes.len())).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(&pieces, false), expected);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(
            head in prop::sample::select(&["", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"][..]),
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            cut in any::<prop::sample::Index>(),
        ) {
            let (a, b) = bytes.split_at(cut.index(bytes.len() + 1));
            let seen = read(&[head.as_bytes(), a, b], false);
            prop_assert!(seen.is_err() || head.len() + bytes.len() > 0);
        }
    }
}
