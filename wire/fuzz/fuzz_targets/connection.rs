//! Whatever a peer sends, others are served and nothing is left behind: `make fuzz-wire`.
#![no_main]

use _wire::fuzzing::{Step, connection};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|peer: (bool, Vec<Step>)| connection(peer.0, &peer.1));
