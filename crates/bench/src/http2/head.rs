//! Blocks of headers (HPACK, RFC 7541) without a table that changes: each stands for itself.

use super::frame::Http2Error;

/// Headers that speak of an HTTP/1 connection and that HTTP/2 has none of (RFC 9113, section 8.2.2).
pub(crate) const FOREIGN: [&str; 5] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// Index of the name `:authority`, and those of others, in the static table.
const AUTHORITY: u8 = 1;
const METHOD: u8 = 2;
const PATH: u8 = 4;
const STATUS: u8 = 8;
/// Fields that are in the static table whole.
const METHOD_GET: u8 = 0x82;
const METHOD_POST: u8 = 0x83;
const PATH_ROOT: u8 = 0x84;
const SCHEME_HTTP: u8 = 0x86;
const SCHEME_HTTPS: u8 = 0x87;

/// Writes the head of an HTTP/1.1 request, its empty line included, as a block of headers: plain text between lengths,
/// so that digits may be changed where they stand. The last header stays the last.
pub(crate) fn write_head(head: &[u8], is_secure: bool, out: &mut Vec<u8>) {
    let mut lines = head.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let mut words = lines.next().unwrap_or_default().split(|&byte| byte == b' ');
    match words.next().unwrap_or_default() {
        b"GET" => out.push(METHOD_GET),
        b"POST" => out.push(METHOD_POST),
        method => write_known(out, METHOD, method),
    }
    out.push(if is_secure { SCHEME_HTTPS } else { SCHEME_HTTP });
    let fields = lines.filter_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    });
    let is_host = |name: &[u8]| name.eq_ignore_ascii_case(b"host");
    if let Some((_, host)) = fields.clone().find(|(name, _)| is_host(name)) {
        write_known(out, AUTHORITY, host);
    }
    match words.next().unwrap_or(b"/") {
        b"/" => out.push(PATH_ROOT),
        path => write_known(out, PATH, path),
    }
    for (name, value) in fields.filter(|(name, _)| !is_host(name)) {
        out.push(0);
        write_number(out, name.len());
        out.extend(name.iter().map(u8::to_ascii_lowercase));
        write_number(out, value.len());
        out.extend_from_slice(value);
    }
}

/// A value with a name of the static table, which is put into no table.
fn write_known(out: &mut Vec<u8>, name: u8, value: &[u8]) {
    out.push(name);
    write_number(out, value.len());
    out.extend_from_slice(value);
}

/// A number in what seven bits leave room for, and more bytes (RFC 7541, section 5.1).
fn write_number(out: &mut Vec<u8>, number: usize) {
    const PREFIX: usize = 127;
    if number < PREFIX {
        return out.push(number as u8);
    }
    out.push(PREFIX as u8);
    let mut rest = number - PREFIX;
    while rest >= 128 {
        out.push((rest % 128 + 128) as u8);
        rest /= 128;
    }
    out.push(rest as u8);
}

/// The status of an answer: the first field of its block, as it has no other name with a colon and those come first.
pub(super) fn status(block: &[u8]) -> Result<u16, Http2Error> {
    let mut block = block;
    // The server says that its table has no room; whatever it says of it, there is none.
    while let [first @ 0x20..=0x3f, rest @ ..] = block {
        block = if *first == 0x3f { skip_number(rest)? } else { rest };
    }
    let (&first, rest) = block.split_first().ok_or(Http2Error::Status)?;
    let index = match first {
        0x80.. => {
            const CODES: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
            let nth = (first & 0x7f).checked_sub(STATUS).ok_or(Http2Error::Status)?;
            return CODES.get(usize::from(nth)).copied().ok_or(Http2Error::Status);
        }
        0x40.. => first & 0x3f,
        _ => first & 0x0f,
    };
    let value = match index {
        STATUS..=14 => rest,
        0 => rest
            .strip_prefix(b"\x07:status")
            .or_else(|| rest.strip_prefix(HUFFMAN_NAME))
            .ok_or(Http2Error::Status)?,
        _ => return Err(Http2Error::Status),
    };
    let (&length, rest) = value.split_first().ok_or(Http2Error::Status)?;
    let text = rest.get(..usize::from(length & 0x7f)).ok_or(Http2Error::Status)?;
    if length & 0x80 == 0 { plain(text) } else { huffman(text) }.ok_or(Http2Error::Status)
}

/// `:status` with its length, in Huffman's code.
const HUFFMAN_NAME: &[u8] = b"\x85\xb8\x84\x8d\x36\xa3";

fn skip_number(bytes: &[u8]) -> Result<&[u8], Http2Error> {
    let end = bytes.iter().take(5).position(|byte| byte & 0x80 == 0).ok_or(Http2Error::Status)?;
    Ok(&bytes[end + 1..])
}

fn plain(text: &[u8]) -> Option<u16> {
    let number = std::str::from_utf8(text).ok()?;
    (text.len() == 3 && text.iter().all(u8::is_ascii_digit)).then(|| number.parse().ok())?
}

/// Three digits in the code of RFC 7541, appendix B: 0 to 2 in five bits, 3 to 9 in six.
fn huffman(text: &[u8]) -> Option<u16> {
    let bits = text.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
    let mut left = u32::try_from(text.len()).ok().filter(|length| *length <= 3)? * 8;
    let mut code = 0;
    for _ in 0..3 {
        let next = |count: u32| left.checked_sub(count).map(|at| bits >> at & ((1 << count) - 1));
        let (digit, length) = match (next(5)?, next(6)) {
            (digit @ 0..=2, _) => (digit, 5),
            (_, Some(digit @ 0x19..=0x1f)) => (digit - 0x19 + 3, 6),
            _ => return None,
        };
        left -= length;
        code = code * 10 + digit;
    }
    // What is left are the ones that fill up the last byte.
    let filling = (1 << left) - 1;
    (left < 8 && bits & filling == filling).then_some(code as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_head_becomes_a_block() {
        let mut out = Vec::new();
        let head = b"PUT /a?b=1 HTTP/1.1\r\nAccept: */*\r\nhost: a:80\r\nx-n: 07\r\n\r\n";
        write_head(head, true, &mut out);
        let expected: &[u8] =
            b"\x02\x03PUT\x87\x01\x04a:80\x04\x06/a?b=1\x00\x06accept\x03*/*\x00\x03x-n\x0207";
        assert_eq!(out, expected);
        out.clear();
        write_head(b"GET / HTTP/1.1\r\n\r\n", false, &mut out);
        assert_eq!(out, [0x82, 0x86, 0x84]);
        out.clear();
        write_number(&mut out, 1_337 + 96);
        assert_eq!(out, [127, 0x9a, 0x0a], "RFC 7541, C.1.2, with a wider prefix");
    }

    #[test]
    fn the_status_is_read_in_every_form() {
        for (block, code) in [
            (&b"\x88"[..], 200),
            (b"\x8e\x0f", 500),
            (b"\x20\x8d", 404),
            (b"\x3f\xe1\x1f\x88", 200),
            (b"\x08\x03429", 429),
            (b"\x48\x03302", 302),
            (b"\x48\x82\x64\x02", 302),
            (b"\x18\x83\x68\x0f\xff", 409),
            (b"\x00\x07:status\x03201rest", 201),
            (b"\x00\x85\xb8\x84\x8d\x36\xa3\x82\x10\x03", 201),
        ] {
            assert_eq!(status(block), Ok(code), "{block:x?}");
        }
        for block in [
            &b""[..],
            b"\x82",
            b"\x08",
            b"\x08\x0320",
            b"\x08\x03abc",
            b"\x3f",
            b"\x0f",
            b"\x48\x82\x10\x00",
        ] {
            assert_eq!(status(block), Err(Http2Error::Status), "{block:x?}");
        }
    }

    proptest! {
        #[test]
        fn any_block_is_read_without_a_panic(block in prop::collection::vec(any::<u8>(), 0..24)) {
            if let Ok(code) = status(&block) {
                prop_assert!(code < 1_000);
            }
        }
    }
}
