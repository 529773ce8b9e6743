//! A member that is none: it answers whatever it is asked with the same bytes and looks at nothing. What clients get from three of
//! these is what gRPC, the kernel and the clients themselves leave on a machine, and no store can be faster there.
//!
//! Takes the flags of a member, of which it heeds `--listen-client-urls`.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use anyhow::{Context as _, Result};
use bytes::{BufMut as _, Bytes, BytesMut};
use consensus_proto::{
    etcdserverpb::{RangeResponse, ResponseHeader},
    mvccpb::KeyValue,
};
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response};
use prost::Message as _;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};

const VALUE_BYTES: usize = 256;

#[tokio::main]
async fn main() -> Result<()> {
    let flags: Vec<_> = std::env::args().collect();
    let at = flags.iter().position(|flag| flag == "--listen-client-urls").and_then(|n| flags.get(n + 1));
    let at =
        at.and_then(|url| url.strip_prefix("http://")).context("--listen-client-urls http://HOST:PORT")?;
    let listener = TcpListener::bind(at).await.with_context(|| at.to_owned())?;
    let answer = answer()?;
    println!("ready to serve client requests");
    loop {
        let (socket, _) = listener.accept().await?;
        let answer = answer.clone();
        tokio::spawn(async move {
            if let Err(error) = serve(socket, answer).await {
                eprintln!("{error:#}");
            }
        });
    }
}

/// What a store says of one key.
fn answer() -> Result<Bytes> {
    let header =
        ResponseHeader { cluster_id: u64::MAX, member_id: u64::MAX, revision: 1 << 20, raft_term: 2 };
    let kv = KeyValue {
        key: "key00000000".into(),
        value: vec![b'v'; VALUE_BYTES].into(),
        create_revision: 1 << 10,
        mod_revision: 1 << 20,
        version: 9,
        lease: 0,
    };
    let message = RangeResponse { header: Some(header), kvs: vec![kv], more: false, count: 1 };
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(message.encoded_len().try_into()?);
    message.encode(&mut out)?;
    Ok(out.freeze())
}

async fn serve(socket: TcpStream, answer: Bytes) -> Result<()> {
    socket.set_nodelay(true)?;
    let mut connection = h2::server::handshake(OneWrite(socket)).await?;
    while let Some(request) = connection.accept().await {
        let (request, respond) = request?;
        let mut body = request.into_body();
        if body.is_end_stream() {
            respond_with(respond, answer.clone())?;
            continue;
        }
        let answer = answer.clone();
        tokio::spawn(async move {
            while body.data().await.is_some() {}
            respond_with(respond, answer)
        });
    }
    Ok(())
}

fn respond_with(mut respond: SendResponse<Bytes>, answer: Bytes) -> Result<()> {
    let response = Response::builder().header("content-type", "application/grpc").body(())?;
    let mut stream = respond.send_response(response, false)?;
    stream.send_data(answer, false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers)?;
    Ok(())
}

/// Takes one piece at a time, so that h2 puts an answer and its trailers into one write.
struct OneWrite(TcpStream);

impl AsyncRead for OneWrite {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for OneWrite {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
