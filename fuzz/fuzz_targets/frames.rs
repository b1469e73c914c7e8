//! Whatever bytes come: frames or a clear error, and the frames are written back as ones that read the same.
#![no_main]

use bytes::BytesMut;
use gatewright_protocol::{FrameDecoder, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut decoder = FrameDecoder::new(1 << 16);
    decoder.buffer().extend_from_slice(bytes);
    while let Ok(Some(frame)) = decoder.next_frame() {
        let mut out = BytesMut::new();
        encode(&frame, &mut out).expect("a frame that came fits its length");
        let mut again = FrameDecoder::new(out.len());
        again.buffer().extend_from_slice(&out);
        assert_eq!(again.next_frame(), Ok(Some(frame)));
    }
});
