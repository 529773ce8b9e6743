//! The receiving half of the TLS record layer: ciphertext in, plaintext out, no socket.
//!
//! Ciphertext is read in large pieces into one buffer, decrypted in place one record at a time, and
//! copied once, to the caller.

use std::{
    io::{self, IoSliceMut},
    ops::Range,
    sync::Arc,
};

use rustls::{AlertDescription, ContentType, crypto::cipher::InboundOpaqueMessage};

use super::{
    RecordError,
    keys::{KeySchedule, OpeningKey},
    record::{CIPHERTEXT_BYTES_MAX, HEADER_BYTES, KEY_UPDATE, NEW_SESSION_TICKET, OUTER_TYPE, OUTER_VERSION},
};

/// Ciphertext asked for in one read.
const READ_BYTES: usize = 256 << 10;
/// An incomplete record may be left over when the next read begins.
const BUFFER_BYTES: usize = READ_BYTES + HEADER_BYTES + CIPHERTEXT_BYTES_MAX;
/// A handshake message after the handshake; a session ticket can hold a certificate chain.
const HANDSHAKE_BYTES_MAX: usize = 64 << 10;
/// Records without data between two with data: key updates, tickets, empty ones. An honest peer sends
/// a few; each costs us work that its sender does not pay.
const RECORDS_WITHOUT_DATA_MAX: u32 = 64;

/// What a read came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Bytes copied to the caller, at least one.
    Data(usize),
    /// The peer sent `close_notify`.
    Closed,
    /// [`RecordReader::fill`] is needed.
    NeedsInput,
}

pub(super) struct RecordReader {
    keys: Arc<KeySchedule>,
    key: OpeningKey,
    buffer: Box<[u8]>,
    /// Decrypted and not yet taken; before `cipher` in the buffer.
    plain: Range<usize>,
    /// Read and not yet decrypted.
    cipher: Range<usize>,
    /// An incomplete handshake message.
    handshake: Vec<u8>,
    key_update_requested: bool,
    records_without_data: u32,
    /// Comes after all that is in `plain`.
    end: Option<Result<(), RecordError>>,
}

impl RecordReader {
    /// `early` was decrypted and `cipher` was read by the handshake beyond its own end; together they
    /// fit into the buffer.
    pub(super) fn new(
        keys: Arc<KeySchedule>,
        key: OpeningKey,
        early: &[u8],
        cipher: &[u8],
        peer_closed: bool,
    ) -> Self {
        // Pages not yet touched cost nothing.
        let mut buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        let (plain, end) = (0..early.len(), early.len() + cipher.len());
        buffer[plain.clone()].copy_from_slice(early);
        buffer[plain.end..end].copy_from_slice(cipher);
        Self {
            keys,
            key,
            buffer,
            cipher: plain.end..end,
            plain,
            handshake: Vec::new(),
            key_update_requested: false,
            records_without_data: 0,
            end: peer_closed.then_some(Ok(())),
        }
    }

    /// Whether [`read`](Self::read) has something to say without more input.
    pub(super) fn is_ready(&self) -> bool {
        !self.plain.is_empty() || self.end.is_some() || !matches!(self.next_record(), Ok(None))
    }

    /// The peer wants us to renew our sending key. True once for each time.
    pub(super) fn take_key_update_request(&mut self) -> bool {
        std::mem::take(&mut self.key_update_requested)
    }

    /// Copies decrypted bytes into `bufs` (not all empty) as long as both last.
    pub(super) fn read(&mut self, bufs: &mut [IoSliceMut<'_>]) -> Result<Progress, RecordError> {
        let mut copied = 0;
        for buf in bufs {
            let mut filled = 0;
            while filled < buf.len() {
                if self.plain.is_empty() && !self.decrypt_next() {
                    return match &self.end {
                        _ if copied > 0 => Ok(Progress::Data(copied)),
                        None => Ok(Progress::NeedsInput),
                        Some(Ok(())) => Ok(Progress::Closed),
                        Some(Err(error)) => Err(error.clone()),
                    };
                }
                let len = self.plain.len().min(buf.len() - filled);
                let from = self.plain.start..self.plain.start + len;
                buf[filled..filled + len].copy_from_slice(&self.buffer[from]);
                self.plain.start += len;
                filled += len;
                copied += len;
            }
        }
        Ok(Progress::Data(copied))
    }

    /// Gets more ciphertext by `read`, whose 0 means that the connection ended.
    pub(super) fn fill(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<()> {
        assert!(self.plain.is_empty(), "plaintext in the way of a read");
        let left = self.cipher.len();
        assert!(left < HEADER_BYTES + CIPHERTEXT_BYTES_MAX, "a complete record was not decrypted");
        self.buffer.copy_within(self.cipher.clone(), 0);
        self.cipher = 0..left;
        let got = read(&mut self.buffer[left..])?;
        self.cipher.end += got;
        if got == 0 && self.end.is_none() {
            self.end = Some(Err(RecordError::Truncated));
        }
        Ok(())
    }

    /// Length of the next record with its header, `None` while it is incomplete.
    fn next_record(&self) -> Result<Option<usize>, RecordError> {
        let cipher = &self.buffer[self.cipher.clone()];
        let Some(&[typ, _, _, high, low]) = cipher.first_chunk() else {
            return Ok(None);
        };
        if typ != u8::from(OUTER_TYPE) {
            return Err(RecordError::Unexpected { what: "unencrypted record" });
        }
        let len = usize::from(u16::from_be_bytes([high, low]));
        if len > CIPHERTEXT_BYTES_MAX {
            return Err(RecordError::TooLong { what: "record", len, max: CIPHERTEXT_BYTES_MAX });
        }
        Ok((HEADER_BYTES + len <= cipher.len()).then_some(HEADER_BYTES + len))
    }

    /// Decrypts records until one has data, which is then in `plain`. False if there is none.
    fn decrypt_next(&mut self) -> bool {
        while self.end.is_none() {
            match self.decrypt_one() {
                Ok(true) if self.plain.is_empty() => {}
                Ok(more) => return more,
                Err(error) => self.end = Some(Err(error)),
            }
        }
        false
    }

    /// False if no complete record is there.
    fn decrypt_one(&mut self) -> Result<bool, RecordError> {
        let Some(len) = self.next_record()? else {
            return Ok(false);
        };
        let payload = self.cipher.start + HEADER_BYTES..self.cipher.start + len;
        self.cipher.start += len;
        let record = InboundOpaqueMessage::new(OUTER_TYPE, OUTER_VERSION, &mut self.buffer[payload.clone()]);
        let opened = self.key.aead.decrypt(record, self.key.sequence)?;
        self.key.sequence += 1;
        let (typ, len) = (opened.typ, opened.payload.len());
        // rustls decrypts in place: what it returned is the front of what it got.
        let opened = payload.start..payload.start + len;
        if typ == ContentType::ApplicationData && len > 0 {
            self.records_without_data = 0;
            self.plain = opened;
            return Ok(true);
        }
        self.records_without_data += 1;
        if self.records_without_data > RECORDS_WITHOUT_DATA_MAX {
            return Err(RecordError::Unexpected { what: "flood of records without data" });
        }
        match typ {
            ContentType::ApplicationData => {}
            ContentType::Alert => self.on_alert(opened)?,
            ContentType::Handshake => self.on_handshake(opened)?,
            _ => return Err(RecordError::Unexpected { what: "record type" }),
        }
        Ok(true)
    }

    fn on_alert(&mut self, payload: Range<usize>) -> Result<(), RecordError> {
        let &[_, description] = &self.buffer[payload] else {
            return Err(RecordError::Unexpected { what: "alert of a wrong size" });
        };
        match AlertDescription::from(description) {
            AlertDescription::CloseNotify => self.end = Some(Ok(())),
            // RFC 8446 section 6.1: a close_notify follows.
            AlertDescription::UserCanceled => {}
            alert => return Err(RecordError::Alert(alert)),
        }
        Ok(())
    }

    fn on_handshake(&mut self, payload: Range<usize>) -> Result<(), RecordError> {
        self.handshake.extend_from_slice(&self.buffer[payload]);
        while let Some(&[typ, high, middle, low]) = self.handshake.first_chunk() {
            let len = 4 + u32::from_be_bytes([0, high, middle, low]) as usize;
            if len > HANDSHAKE_BYTES_MAX {
                let max = HANDSHAKE_BYTES_MAX;
                return Err(RecordError::TooLong { what: "handshake message", len, max });
            }
            if self.handshake.len() < len {
                break;
            }
            match (typ, &self.handshake[4..len]) {
                // We do not resume sessions.
                (NEW_SESSION_TICKET, _) if self.keys.is_client() => {}
                (KEY_UPDATE, &[request @ (0 | 1)]) => {
                    // RFC 8446 section 5.1: keys change only between records.
                    if self.handshake.len() > len {
                        return Err(RecordError::Unexpected { what: "data behind a key update" });
                    }
                    self.key = self.keys.next_opening_key()?;
                    self.key_update_requested |= request == 1;
                }
                _ => return Err(RecordError::Unexpected { what: "handshake message" }),
            }
            self.handshake.drain(..len);
        }
        Ok(())
    }
}
