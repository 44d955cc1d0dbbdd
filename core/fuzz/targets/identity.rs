//! The identity file: whatever stands in it, a node gets an identity or one line that says why
//! not, and a file that was refused is left as it is.
#![no_main]

use std::io;
use std::sync::Mutex;

use futures_util::FutureExt as _;
use libfuzzer_sys::fuzz_target;
use sprawl_io::data_dir::{Identity, IdentityError, Name, enter};
use sprawl_io::storage::Files;

/// One file in memory.
struct OneFile(Mutex<Vec<u8>>);

impl OneFile {
    fn content(&self) -> Vec<u8> {
        self.0.lock().expect("nothing panics while it holds the lock").clone()
    }
}

impl Files for OneFile {
    async fn read(&self, _: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(Some(self.content()))
    }

    async fn replace(&self, _: &str, content: &[u8]) -> io::Result<()> {
        *self.0.lock().expect("nothing panics while it holds the lock") = content.to_vec();
        Ok(())
    }

    async fn holds_data(&self) -> io::Result<bool> {
        Ok(true)
    }
}

fuzz_target!(|data: &[u8]| {
    take(data);
    let body = [data, b"\n"].concat();
    let checksum = format!("checksum = {:08x}\n", crc32c::crc32c(&body));
    take(&[&body, checksum.as_bytes()].concat());
});

fn take(content: &[u8]) {
    let file = OneFile(Mutex::new(content.to_vec()));
    match entered(&file) {
        Err(_) => assert_eq!(file.content(), content, "a file that was refused is changed"),
        Ok(first) => {
            let second = entered(&file).expect("what was written is read");
            let wanted = Identity { boot: first.boot.next(), ..first };
            assert_eq!(second, wanted, "the identity is another one at the next start");
        }
    }
}

fn entered(file: &OneFile) -> Result<Identity, IdentityError> {
    let name = Name::Default("node".to_owned());
    enter(file, &name, 1).now_or_never().expect("memory does not wait")
}
