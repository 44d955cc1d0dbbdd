//! The codec: any bytes as any value that is stored or sent. What decodes is the same value again
//! after it was written and read once more.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sprawl_core::broker::replica::{Envelope, Note};
use sprawl_core::cluster::metadata::Change;
use sprawl_core::wire;

/// Decodes bytes as one kind of value.
macro_rules! same_again {
    ($kind:ty, $frame:expr) => {
        if let Ok(value) = wire::decode::<$kind>($frame) {
            let again = wire::decode::<$kind>(&wire::encode(&value));
            assert_eq!(again, Ok(value), "a value that was written reads otherwise");
        }
    };
}

fuzz_target!(|frame: &[u8]| {
    same_again!(Change, frame);
    same_again!(Envelope, frame);
    same_again!(Note, frame);
});
