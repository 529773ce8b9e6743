//! The sending half of the TLS record layer: plaintext in, ciphertext out, no socket.
//!
//! Plaintext is copied once, into the buffer where it is then encrypted in place. It is the same buffer all the time:
//! rustls' own encrypters allocate each record, and what malloc gave back to the kernel in between and got again, page by
//! page, cost a link half of its rate (`dwcp-bench --only encrypted`).

use std::{
    io::{self, IoSlice},
    ops::Range,
    sync::Arc,
};

use rustls::{AlertDescription, ContentType, Error, crypto::cipher::make_tls13_aad};

use super::{
    keys::{KeySchedule, SealingKey},
    record::{HEADER_BYTES, KEY_UPDATE, PLAINTEXT_BYTES_MAX},
};

/// Plaintext that one [`RecordWriter::encrypt`] takes at most. Also bounds what waits in a writer:
/// nothing is taken while ciphertext of before is left, but for a key update and an alert.
/// (Tried on loopback: 256 KiB cost one to four links a tenth of their rate, 64 KiB another tenth.)
pub(super) const ENCRYPT_BYTES_MAX: usize = 512 << 10;
const DATA_RECORDS_MAX: usize = ENCRYPT_BYTES_MAX.div_ceil(PLAINTEXT_BYTES_MAX);
/// A record is longer than its payload: header, inner type, and the tag, which all AEADs of TLS 1.3 have in common.
const OVERHEAD_BYTES: usize = HEADER_BYTES + 1 + TAG_BYTES;
const TAG_BYTES: usize = 16;
/// A key update before each record of data, and one that was asked for, and an alert.
const BUFFER_BYTES: usize = DATA_RECORDS_MAX * (PLAINTEXT_BYTES_MAX + OVERHEAD_BYTES)
    + (DATA_RECORDS_MAX + 2) * (KEY_UPDATE_BYTES + OVERHEAD_BYTES);
const KEY_UPDATE_BYTES: usize = 5;

pub(super) struct RecordWriter {
    keys: Arc<KeySchedule>,
    key: SealingKey,
    records_per_key_max: u64,
    buffer: Box<[u8]>,
    /// Encrypted and not yet written.
    pending: Range<usize>,
    /// A key update waits in `pending`; more requests for one are answered by it.
    key_update_pending: bool,
    closed: bool,
}

impl RecordWriter {
    pub(super) fn new(keys: Arc<KeySchedule>, key: SealingKey) -> Self {
        Self {
            records_per_key_max: keys.records_per_key_max(),
            keys,
            key,
            // Pages not yet touched cost nothing.
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            pending: 0..0,
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
        let mut left = bufs.iter().map(|buf| buf.len()).sum::<usize>().min(ENCRYPT_BYTES_MAX);
        let taken = left;
        let mut bufs = bufs.iter().map(|buf| &**buf);
        let mut rest: &[u8] = &[];
        while left > 0 {
            self.renew_worn_key().map_err(io::Error::other)?;
            let len = left.min(PLAINTEXT_BYTES_MAX);
            self.seal(ContentType::ApplicationData, len, |mut payload| {
                while !payload.is_empty() {
                    if rest.is_empty() {
                        rest = bufs.next().expect("the buffers have as much as was counted");
                    }
                    let (head, tail) = rest.split_at(rest.len().min(payload.len()));
                    let (into, behind) = payload.split_at_mut(head.len());
                    into.copy_from_slice(head);
                    (rest, payload) = (tail, behind);
                }
            })
            .map_err(io::Error::other)?;
            left -= len;
        }
        Ok(taken)
    }

    /// Hands pending ciphertext to `write` until all is gone or `write` fails, e.g. with `WouldBlock`.
    pub(super) fn flush(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        while !self.pending.is_empty() {
            match write(&self.buffer[self.pending.clone()])? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                sent => self.pending.start += sent,
            }
        }
        self.pending = 0..0;
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
        self.seal_message(ContentType::Alert, &[level, alert.into()])
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
        if self.key.sequence + 1 >= self.records_per_key_max {
            self.renew_key()?;
        }
        Ok(())
    }

    fn renew_key(&mut self) -> Result<(), Error> {
        // update_not_requested: the peer counts its own records.
        self.announce_new_key(0)
    }

    fn announce_new_key(&mut self, update_requested: u8) -> Result<(), Error> {
        let message: [u8; KEY_UPDATE_BYTES] = [KEY_UPDATE, 0, 0, 1, update_requested];
        self.seal_message(ContentType::Handshake, &message)?;
        self.key = self.keys.next_sealing_key()?;
        Ok(())
    }

    fn seal_message(&mut self, typ: ContentType, message: &[u8]) -> Result<(), Error> {
        self.seal(typ, message.len(), |payload| payload.copy_from_slice(message))
    }

    /// Appends a record to what is pending: the payload of `len` bytes that `fill` writes (RFC 8446 section 5.2).
    fn seal(&mut self, typ: ContentType, len: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Error> {
        let record = &mut self.buffer[self.pending.end..][..len + OVERHEAD_BYTES];
        let (header, body) = record.split_at_mut(HEADER_BYTES);
        let (plain, tag) = body.split_at_mut(len + 1);
        // It is the record's header, too.
        header.copy_from_slice(&make_tls13_aad(len + 1 + TAG_BYTES));
        let (payload, inner_type) = plain.split_at_mut(len);
        fill(payload);
        inner_type[0] = typ.into();
        tag.copy_from_slice(self.key.seal(header, plain)?.as_ref());
        self.pending.end += len + OVERHEAD_BYTES;
        Ok(())
    }
}

#[cfg(test)]
impl RecordWriter {
    pub(super) fn set_records_per_key_max(&mut self, records: u64) {
        self.records_per_key_max = records;
    }

    pub(super) fn records_with_this_key(&self) -> u64 {
        self.key.sequence
    }

    pub(super) fn request_key_update(&mut self) -> Result<(), Error> {
        self.announce_new_key(1)
    }
}
