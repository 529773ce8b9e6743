//! Who connects and says nothing is not waited for. The clock is virtual: it jumps whenever everybody waits.

use std::net::SocketAddr;

use novacron_admin::{Listener, Metrics, Observed};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

struct Process;

impl Observed for Process {
    type Status = ();

    fn is_ready(&self) -> bool {
        true
    }

    fn status(&self) {}
}

#[tokio::test(start_paused = true)]
async fn silent_connections_are_closed() {
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), false).await.unwrap();
    let server = listener.serve(Metrics::install(|| {}).unwrap(), Process);
    // More than are served at a time: those that wait get their turn.
    let mut sockets = Vec::new();
    for _ in 0..50 {
        sockets.push(TcpStream::connect(server.address()).await.unwrap());
    }
    for mut socket in sockets {
        assert_eq!(socket.read(&mut [0; 1]).await.unwrap(), 0, "the end, not an answer");
    }
}
