//! Whatever bytes come: a JSON body or a msgpack result, or a clear error; what a body became has JSON again.
#![no_main]

use bytes::Bytes;
use gatewright_protocol::{Arguments, Reply};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    drop(Reply::from_value(&Bytes::copy_from_slice(bytes)));
    if let Ok(arguments) = Arguments::json(bytes) {
        Reply::from_value(&arguments.args).expect("JSON has JSON");
        Reply::from_value(&arguments.kwargs).expect("JSON has JSON");
    }
});
