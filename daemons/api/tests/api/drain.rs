//! A replica drains while clients ask: none of them notices.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use rustix::process::Signal;

use crate::support::{Over, Replica, Store, ask, vm, wait_until};

const CLIENTS: usize = 4;
/// Requests of all clients before and after.
const ENOUGH: usize = 100;

#[test]
fn no_request_fails_while_a_replica_drains() {
    let Some(store) = Store::start() else { return };
    let more = ["--drain-delay", "3s", "--drain-timeout", "20s"];
    let mut drained = Replica::ready("a", &store, &more);
    let stays = Replica::ready("b", &store, &more);
    let ports = [drained.port, stays.port];
    let (asked, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (over, first_is_ready) = (AtomicBool::new(false), AtomicBool::new(true));
    let (asked, failed, over, first_is_ready) = (&asked, &failed, &over, &first_is_ready);
    std::thread::scope(|scope| {
        let _over = Over(over);
        // As a load balancer does.
        scope.spawn(move || {
            while !over.load(Relaxed) {
                let ready =
                    ask(ports[0], "GET", "/ready", &[], None).is_ok_and(|answer| answer.status == 200);
                first_is_ready.store(ready, Relaxed);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        for client in 0..CLIENTS {
            scope.spawn(move || {
                for n in 0.. {
                    if over.load(Relaxed) {
                        break;
                    }
                    let port = if n % 2 == 0 && first_is_ready.load(Relaxed) { ports[0] } else { ports[1] };
                    let name = format!("c{client}-{n}");
                    let made = ask(port, "POST", "/api/vms", &[], Some(&vm(&name, "eu")));
                    let read = ask(port, "GET", &format!("/api/vms/{name}"), &[], None);
                    let good = made.as_ref().is_ok_and(|answer| answer.status == 201)
                        && read.as_ref().is_ok_and(|answer| answer.status == 200);
                    if !good {
                        eprintln!("at port {port}: {made:?}, {read:?}");
                        failed.fetch_add(1, Relaxed);
                    }
                    asked.fetch_add(2, Relaxed);
                }
            });
        }
        let wait_for = |count| wait_until("requests", || (asked.load(Relaxed) >= count).then_some(()));
        wait_for(ENOUGH);
        drained.process.signal(Signal::TERM);
        wait_until("the end of readiness", || (!first_is_ready.load(Relaxed)).then_some(()));
        let code = drained.process.exit_code();
        wait_for(asked.load(Relaxed) + ENOUGH);
        assert_eq!(code, Some(0));
    });
    assert_eq!(failed.load(Relaxed), 0, "of {}", asked.load(Relaxed));
}
