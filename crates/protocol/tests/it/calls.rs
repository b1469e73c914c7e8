use bytes::Bytes;
use gatewright_protocol::{Arguments, ArgumentsError, Reply, ReplyError};
use proptest::prelude::*;

/// The JSON that the one argument of a call comes back as.
fn there_and_back(json: &str) -> String {
    let call = Arguments::json(json.as_bytes()).unwrap();
    let reply = Reply::from_value(&one_of(&call)).unwrap();
    String::from_utf8(reply.body.to_vec()).unwrap()
}

/// The arguments as one value, whichever way they were given.
fn one_of(call: &Arguments) -> Bytes {
    if call.kwargs.as_ref() != b"\x80" {
        call.kwargs.clone()
    } else if call.args[0] == 0x91 {
        call.args.slice(1..)
    } else {
        call.args.clone()
    }
}

#[test]
fn an_object_is_named_an_array_positional_anything_else_one_argument() {
    let named = Arguments::json(br#" {"x": 3}"#).unwrap();
    assert_eq!(named.args.as_ref(), b"\x90");
    assert_eq!(named.kwargs.as_ref(), b"\xdf\0\0\0\x01\xa1x\x03");
    let positional = Arguments::json(b"[1, null]").unwrap();
    assert_eq!(positional.args.as_ref(), b"\xdd\0\0\0\x02\x01\xc0");
    assert_eq!(positional.kwargs.as_ref(), b"\x80");
    let one = Arguments::json(b"-7").unwrap();
    assert_eq!((one.args.as_ref(), one.kwargs.as_ref()), (&b"\x91\xf9"[..], &b"\x80"[..]));
    let bytes = Arguments::bytes(b"\x00\xff").unwrap();
    assert_eq!(bytes.args.as_ref(), b"\x91\xc4\x02\x00\xff");
    assert_eq!(Arguments::none().args.as_ref(), b"\x90");
}

#[test]
fn integers_keep_their_value_however_long() {
    for text in [
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "-9223372036854775809",
        "100000000000000000000",
    ] {
        assert_eq!(there_and_back(text), text);
        let inside = format!(r#"{{"a":[{text},true,false,null,"\u00e9",1.5],"b":{{}}}}"#);
        assert_eq!(there_and_back(&inside), inside.replace("\\u00e9", "\u{e9}"));
    }
    assert_eq!(there_and_back("1e20"), "1e+20");
    let endless = "9".repeat(5000);
    let error = Arguments::json(endless.as_bytes()).unwrap_err();
    assert!(matches!(error, ArgumentsError::IntegerTooLong), "{error}");
}

#[test]
fn bodies_that_are_no_call_say_where() {
    let error = Arguments::json(b"{\"x\": }").unwrap_err().to_string();
    assert_eq!(error, "the body is not JSON: expected value at line 1 column 7");
    let error = Arguments::json(b"1 2").unwrap_err().to_string();
    assert!(error.contains("trailing characters at line 1 column 3"), "{error}");
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    assert!(Arguments::json(deep.as_bytes()).unwrap_err().to_string().contains("recursion limit"));
    // With a long integer in front, the exact reader is asked, and has the same bound.
    let deep = format!("[{},{}{}]", "9".repeat(30), "[".repeat(32), "]".repeat(32));
    let error = Arguments::json(deep.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("nested deeper than 32 levels"), "{error}");
    let error = Arguments::json(b"[99999999999999999999, 1e999]").unwrap_err().to_string();
    assert!(error.contains("out of range"), "{error}");
}

#[test]
fn a_result_is_text_octets_or_json() {
    let reply = |value: &'static [u8]| Reply::from_value(&Bytes::from_static(value)).unwrap();
    assert_eq!(reply(b"\xa2hi").content_type, "text/plain; charset=utf-8");
    assert_eq!(reply(b"\xa2hi").body.as_ref(), b"hi");
    assert_eq!(reply(b"\xc4\x01\xff").content_type, "application/octet-stream");
    assert_eq!(reply(b"\xc4\x01\xff").body.as_ref(), b"\xff");
    assert_eq!(reply(b"\xc0").content_type, "application/json");
    assert_eq!(reply(b"\xc0").body.as_ref(), b"null");
    // {1: "a", None: 2.5, True: []}
    let map = reply(b"\x83\x01\xa1a\xc0\xcb\x40\x04\0\0\0\0\0\0\xc3\x90");
    assert_eq!(map.body.as_ref(), br#"{"1":"a","null":2.5,"true":[]}"#);
}

#[test]
fn what_json_has_no_word_for_is_named_with_its_place() {
    let cases: [(&'static [u8], &str); 6] = [
        (b"\x81\xa1a\x92\x01\xcb\x7f\xf8\0\0\0\0\0\0", "NaN at $.a[1]"),
        (b"\x91\xca\x7f\x80\0\0", "an infinite number at $[0]"),
        (b"\x91\xc4\x01\x00", "bytes at $[0]"),
        (b"\xd4\x05\x00", "a msgpack extension that has no JSON at $"),
        (b"\xd4\x01\x00", "a big integer that is not decimal digits at $"),
        (b"\xa1\xff", "a string that is not UTF-8 at $"),
    ];
    for (value, problem) in cases {
        let error = Reply::from_value(&Bytes::from_static(value)).unwrap_err();
        assert_eq!(error.to_string(), format!("the result cannot be sent as JSON: {problem}"));
    }
    for malformed in [&b""[..], b"\xc1", b"\x92\x01", b"\x01\x02", b"\xa1x\x00"] {
        let error = Reply::from_value(&Bytes::copy_from_slice(malformed)).unwrap_err();
        assert_eq!(error, ReplyError::Malformed, "{malformed:?}");
    }
    let deep = [vec![0x91; 200_000], vec![0xc0]].concat();
    let error = Reply::from_value(&deep.into()).unwrap_err().to_string();
    assert!(error.contains("more than 128 levels"), "{error}");
}

fn json_values() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        (-1e15..1e15).prop_map(|value: f64| value.into()),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            proptest::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn json_comes_back_as_it_went(value in json_values()) {
        // In a list of two, so that what comes back is JSON whatever the value is.
        let json = serde_json::to_string(&[&value, &serde_json::Value::Null]).unwrap();
        let back: serde_json::Value = serde_json::from_str(&there_and_back(&json)).unwrap();
        prop_assert_eq!(back, serde_json::json!([value, null]));
        // The exact reader, which a long integer calls for, agrees with the quick one.
        let json = format!("[18446744073709551616,{value}]");
        let back = there_and_back(&json);
        let rest = back.strip_prefix("[18446744073709551616,").unwrap().strip_suffix(']').unwrap();
        let rest: serde_json::Value = serde_json::from_str(rest).unwrap();
        prop_assert_eq!(rest, value);
    }

    #[test]
    fn any_bytes_are_a_reply_or_an_error(bytes: Vec<u8>) {
        drop(Reply::from_value(&bytes.into()));
    }

    #[test]
    fn any_text_is_a_call_or_an_error(text in "[\\[\\]{}\",:0-9a-z.+\\- ]{0,60}") {
        drop(Arguments::json(text.as_bytes()));
    }
}
