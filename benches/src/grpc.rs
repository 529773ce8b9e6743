//! tonic: gRPC. Client streaming for bulk and one-way messages, unary calls for round trips.
//!
//! Messages are written by hand with prost's derive, and the service with the traits that tonic's code generator
//! uses, so that nobody needs `protoc`. Payloads are `Bytes`, which prost decodes without a copy. Settings
//! are tonic's defaults: windows of 16 MiB and frames of 1 MiB gained nothing on loopback.

use std::{
    convert::Infallible,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{BoxFuture, Context, Poll, Service, http, http::uri::PathAndQuery, tokio_stream},
    server::{ClientStreamingService, Grpc, NamedService, UnaryService},
    transport::{Channel, Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;

use crate::workload::{MESSAGE, Mode, Report, RoundTrips, block};

const ECHO: &str = "/dwcp.bench.Peer/Echo";
const COLLECT: &str = "/dwcp.bench.Peer/Collect";

/// `message Chunk { bytes data = 1; }`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Chunk {
    /// Payload.
    #[prost(bytes = "bytes", tag = "1")]
    pub data: Bytes,
}

/// `message Total { uint64 messages = 1; uint64 bytes = 2; }`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Total {
    /// Messages that arrived.
    #[prost(uint64, tag = "1")]
    pub messages: u64,
    /// Payload bytes that arrived.
    #[prost(uint64, tag = "2")]
    pub bytes: u64,
}

/// Serves gRPC.
pub async fn serve(listener: TcpListener) -> Result<()> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(Server::builder().add_service(Peer).serve_with_incoming(incoming).await?)
}

/// Does a job over gRPC.
pub async fn connect(addr: SocketAddr, mode: Mode, time: Duration) -> Result<Report> {
    let channel = Channel::from_shared(format!("http://{addr}"))?.connect().await?;
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.context("connecting")?;
    let message = block().slice(..MESSAGE);
    let start = Instant::now();
    if mode == Mode::Rtt {
        let path = PathAndQuery::from_static(ECHO);
        let mut trips = RoundTrips::start(time);
        loop {
            let request = Request::new(Chunk { data: message.clone() });
            let answer: Response<Chunk> = grpc.unary(request, path.clone(), ProstCodec::default()).await?;
            ensure!(answer.get_ref().data.len() == MESSAGE, "the answer has another size");
            if !trips.lap() {
                return Ok(trips.report());
            }
            grpc.ready().await?;
        }
    }
    let data = if mode == Mode::Bulk { block() } else { message };
    let chunks =
        stream::repeat(Chunk { data }).take_while(move |_| std::future::ready(start.elapsed() < time));
    let path = PathAndQuery::from_static(COLLECT);
    let answer: Response<Total> =
        grpc.client_streaming(Request::new(chunks), path, ProstCodec::default()).await?;
    let total = answer.into_inner();
    Ok(match mode {
        Mode::Bulk => Report::bulk(total.bytes, start.elapsed()),
        _ => Report::messages(total.messages, start.elapsed()),
    })
}

#[derive(Clone)]
struct Peer;

struct Echo;

struct Collect;

impl NamedService for Peer {
    const NAME: &'static str = "dwcp.bench.Peer";
}

impl Service<http::Request<Body>> for Peer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            Ok(match request.uri().path() {
                ECHO => Grpc::new(ProstCodec::default()).unary(Echo, request).await,
                COLLECT => Grpc::new(ProstCodec::default()).client_streaming(Collect, request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

impl UnaryService<Chunk> for Echo {
    type Response = Chunk;
    type Future = std::future::Ready<Result<Response<Chunk>, Status>>;

    fn call(&mut self, request: Request<Chunk>) -> Self::Future {
        std::future::ready(Ok(Response::new(request.into_inner())))
    }
}

impl ClientStreamingService<Chunk> for Collect {
    type Response = Total;
    type Future = BoxFuture<Response<Total>, Status>;

    fn call(&mut self, request: Request<Streaming<Chunk>>) -> Self::Future {
        Box::pin(async move {
            let mut chunks = request.into_inner();
            let mut total = Total::default();
            while let Some(chunk) = tokio_stream::StreamExt::next(&mut chunks).await.transpose()? {
                total.messages += 1;
                total.bytes += chunk.data.len() as u64;
            }
            Ok(Response::new(total))
        })
    }
}
