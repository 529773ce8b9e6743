//! The sending half of the TLS record layer: plaintext in, ciphertext out, no socket.
//!
//! Plaintext is copied once, into the record that is then encrypted in place.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    sync::Arc,
};

use rustls::{
    AlertDescription, ContentType, Error, ProtocolVersion,
    crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage},
};

use super::{
    keys::{KeySchedule, Keyed},
    record::{KEY_UPDATE, PLAINTEXT_BYTES_MAX},
};

/// Plaintext that one [`RecordWriter::encrypt`] takes at most. Also bounds what waits in a writer:
/// nothing is taken while ciphertext of before is left, but for a key update and an alert.
/// (Tried with examples/tls_link.rs: 64 KiB cost one link a tenth of its rate, 512 KiB gained 3 to 8 %.)
pub(super) const ENCRYPT_BYTES_MAX: usize = 256 << 10;

pub(super) struct RecordWriter {
    keys: Arc<KeySchedule>,
    encrypter: Keyed<dyn MessageEncrypter>,
    records_per_key_max: u64,
    /// Encrypted records, oldest first.
    pending: VecDeque<Vec<u8>>,
    /// Bytes of the oldest that are written already.
    written: usize,
    /// A key update waits in `pending`; more requests for one are answered by it.
    key_update_pending: bool,
    closed: bool,
}

impl RecordWriter {
    pub(super) fn new(keys: Arc<KeySchedule>, encrypter: Keyed<dyn MessageEncrypter>) -> Self {
        Self {
            records_per_key_max: keys.records_per_key_max(),
            keys,
            encrypter,
            pending: VecDeque::new(),
            written: 0,
            key_update_pending: false,
            closed: false,
        }
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Encrypts up to [`ENCRYPT_BYTES_MAX`] from the front of `bufs`; returns how much it took.
    pub(super) fn encrypt(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        assert!(self.pending.is_empty(), "encrypting behind records that are not written yet");
        if self.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut bufs = bufs.iter();
        let mut rest: &[u8] = &[];
        let mut pieces = Vec::new();
        let mut taken = 0;
        while taken < ENCRYPT_BYTES_MAX {
            let mut len = 0;
            pieces.clear();
            while len < PLAINTEXT_BYTES_MAX {
                if rest.is_empty() {
                    match bufs.next() {
                        Some(buf) => rest = buf,
                        None => break,
                    }
                }
                let (head, tail) = rest.split_at(rest.len().min(PLAINTEXT_BYTES_MAX - len));
                pieces.push(head);
                len += head.len();
                rest = tail;
            }
            if len == 0 {
                break;
            }
            self.renew_worn_key().map_err(io::Error::other)?;
            self.seal(ContentType::ApplicationData, OutboundChunks::new(&pieces))
                .map_err(io::Error::other)?;
            taken += len;
        }
        Ok(taken)
    }

    /// Hands pending ciphertext to `write` until all is gone or `write` fails, e.g. with `WouldBlock`.
    pub(super) fn flush(
        &mut self,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<()> {
        // All that one call encrypts, and room for a key update and an alert.
        const RECORDS_AT_ONCE: usize = ENCRYPT_BYTES_MAX / PLAINTEXT_BYTES_MAX + 2;
        while !self.pending.is_empty() {
            let mut slices = [IoSlice::new(&[]); RECORDS_AT_ONCE];
            let mut skip = self.written;
            let mut count = 0;
            for (slice, record) in slices.iter_mut().zip(&self.pending) {
                *slice = IoSlice::new(&record[skip..]);
                skip = 0;
                count += 1;
            }
            let mut sent = write(&slices[..count])?;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            while let Some(record) = self.pending.front() {
                let left = record.len() - self.written;
                if sent < left {
                    self.written += sent;
                    break;
                }
                sent -= left;
                self.written = 0;
                self.pending.pop_front();
            }
        }
        self.key_update_pending = false;
        Ok(())
    }

    /// Announces the end of our data; nothing can be encrypted after it.
    pub(super) fn close(&mut self) -> Result<(), Error> {
        self.alert(1, AlertDescription::CloseNotify)
    }

    /// Tells the peer why we give up.
    pub(super) fn abort(&mut self, alert: AlertDescription) -> Result<(), Error> {
        self.alert(2, alert)
    }

    fn alert(&mut self, level: u8, alert: AlertDescription) -> Result<(), Error> {
        if self.closed {
            return Ok(());
        }
        self.closed = true;
        self.seal(ContentType::Alert, OutboundChunks::Single(&[level, alert.into()]))
    }

    /// Answers a peer that asks for new keys.
    pub(super) fn update_key(&mut self) -> Result<(), Error> {
        if self.closed || self.key_update_pending {
            return Ok(());
        }
        self.key_update_pending = true;
        self.renew_key()
    }

    /// The last record that a key may encrypt announces the next key.
    fn renew_worn_key(&mut self) -> Result<(), Error> {
        if self.encrypter.sequence + 1 >= self.records_per_key_max {
            self.renew_key()?;
        }
        Ok(())
    }

    fn renew_key(&mut self) -> Result<(), Error> {
        // update_not_requested: the peer counts its own records.
        self.announce_new_key(0)
    }

    fn announce_new_key(&mut self, update_requested: u8) -> Result<(), Error> {
        let message = [KEY_UPDATE, 0, 0, 1, update_requested];
        self.seal(ContentType::Handshake, OutboundChunks::Single(&message))?;
        self.encrypter = self.keys.next_encrypter()?;
        Ok(())
    }

    fn seal(&mut self, typ: ContentType, payload: OutboundChunks<'_>) -> Result<(), Error> {
        let plain = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_3, payload };
        let sequence = self.encrypter.sequence;
        // Never used twice, not even after an error.
        self.encrypter.sequence += 1;
        self.pending.push_back(self.encrypter.aead.encrypt(plain, sequence)?.encode());
        Ok(())
    }
}

#[cfg(test)]
impl RecordWriter {
    pub(super) fn set_records_per_key_max(&mut self, records: u64) {
        self.records_per_key_max = records;
    }

    pub(super) fn records_with_this_key(&self) -> u64 {
        self.encrypter.sequence
    }

    pub(super) fn request_key_update(&mut self) -> Result<(), Error> {
        self.announce_new_key(1)
    }
}
