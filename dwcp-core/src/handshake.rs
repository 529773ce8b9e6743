//! The handshake of a link: one HELLO each way, or a CLOSE that refuses.
//!
//! Reads exactly its own frames, so that nothing of what follows is lost.

use std::io::{self, IoSlice, IoSliceMut};

use dwcp_proto::{
    CloseCode, ProtocolError,
    frame::{Decoded, FrameHeader, FrameType, HEADER_LEN, MAGIC},
    hello::{HELLO_LEN_MAX, Hello},
};

use crate::{CloseReason, security::LinkSocket};

/// What came instead of a HELLO.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Protocol(#[from] ProtocolError),
    #[error("refused: {0}")]
    Refused(CloseReason),
}

pub(crate) async fn read_exact(socket: &LinkSocket, mut buffer: &mut [u8]) -> Result<(), HandshakeError> {
    while !buffer.is_empty() {
        match socket.try_read(&mut [IoSliceMut::new(buffer)]) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(count) => buffer = &mut buffer[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.readable().await?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

pub(crate) async fn write_all(socket: &LinkSocket, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() || socket.has_unflushed() {
        let result = if bytes.is_empty() {
            socket.try_flush()
        } else {
            socket.try_write(&[IoSlice::new(bytes)]).map(|count| bytes = &bytes[count..])
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable().await?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => other?,
        }
    }
    Ok(())
}

async fn write_frame(socket: &LinkSocket, ty: FrameType, payload: &[u8]) -> io::Result<()> {
    let len = payload.len() as u32;
    let mut header = FrameHeader { wire_len: len, raw_len: len, ..FrameHeader::new(ty) };
    // Before anything is negotiated, checksums are always there.
    header.flags = header.flags.with_payload_crc(true);
    header.payload_crc = crc32fast::hash(payload);
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(payload);
    write_all(socket, &bytes).await
}

/// Sends our HELLO.
pub(crate) async fn send_hello(socket: &LinkSocket, hello: &Hello) -> io::Result<()> {
    write_frame(socket, FrameType::Hello, &hello.encode()).await
}

/// Refuses the peer. Errors do not matter: it is gone then.
pub(crate) async fn refuse(socket: &LinkSocket, code: CloseCode, text: &str) {
    let mut payload = code.0.to_le_bytes().to_vec();
    payload.extend_from_slice(text.as_bytes());
    let _ = write_frame(socket, FrameType::Close, &payload).await;
    let _ = socket.shutdown_write();
}

/// Reads the peer's HELLO.
pub(crate) async fn receive_hello(socket: &LinkSocket) -> Result<Hello, HandshakeError> {
    let mut head = [0; HEADER_LEN];
    // What is not DWCP may be shorter than a header.
    let (first, rest) = head.split_at_mut(1);
    read_exact(socket, first).await?;
    if first[0] != MAGIC {
        return Err(ProtocolError::BadMagic(first[0]).into());
    }
    read_exact(socket, rest).await?;
    let Decoded::Frame(header) = FrameHeader::decode(&head, HELLO_LEN_MAX as u32)? else {
        return Err(ProtocolError::Invalid {
            ty: FrameType::Hello,
            what: "must come first, an optional frame came instead",
        }
        .into());
    };
    let mut payload = vec![0; header.wire_len as usize];
    read_exact(socket, &mut payload).await?;
    header.check_payload(&payload)?;
    match header.ty {
        FrameType::Hello => Ok(Hello::decode(&payload)?),
        FrameType::Close => {
            let (code, text) = payload.split_first_chunk().unwrap_or((&[0; 4], &[]));
            Err(HandshakeError::Refused(CloseReason {
                code: CloseCode(u32::from_le_bytes(*code)),
                text: String::from_utf8_lossy(text).into_owned(),
            }))
        }
        ty => Err(ProtocolError::Unexpected { ty, when: "before the handshake" }.into()),
    }
}
