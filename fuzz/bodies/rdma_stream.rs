//! What the peer of an RDMA stream can say: any connection data, and any messages and writes in any order beside our own
//! sending and reading. No panic; what is accepted is within the window and its slots, comes out in order, and is never
//! more than there was credit for.

use dwcp_sys::rdma::{
    ConnectionData,
    credit::{SLOTS, SendCredit},
    header::{HEADER_LEN, Header, Kind},
    inbox::{Inbox, Piece, Slot},
};

#[path = "input.rs"]
mod input;

use input::Input;

const WINDOW: u32 = 1000;
const MESSAGE_MAX: usize = HEADER_LEN + 200;

pub(crate) fn run(data: &[u8]) {
    if let Ok(connection) = ConnectionData::decode(data) {
        assert_eq!(connection.encode()[..], *data, "what was accepted can be said again");
    }
    let mut stream = Stream::new();
    let mut input = Input::new(data);
    while !input.is_empty() {
        // After an error the queue pair is given up.
        if !stream.step(&mut input) {
            return;
        }
    }
    stream.read_everything();
}

struct Stream {
    send: SendCredit,
    inbox: Inbox,
    /// Receive requests that are posted: the device completes no others.
    posted: Vec<u64>,
    /// Bytes accepted and not read.
    unread: usize,
    /// Where the next byte in the window is.
    window_at: usize,
}

impl Stream {
    fn new() -> Self {
        Self {
            send: SendCredit::new(WINDOW),
            inbox: Inbox::new(WINDOW),
            posted: (0..SLOTS.into()).collect(),
            unread: 0,
            window_at: 0,
        }
    }

    /// Whether the peer is still one to talk to.
    fn step(&mut self, input: &mut Input<'_>) -> bool {
        match input.below(6) {
            0 => self.send_something(input.u8().into()),
            1 => self.take(input.u8().into()),
            2 => return self.written(input.u64() as u32 as usize),
            3 => return self.written(input.u8().into()),
            4 => {
                let bytes = std::array::from_fn(|_| input.u8());
                let Ok(header) = Header::decode(&bytes) else { return false };
                assert_eq!(header.encode(), bytes);
                return self.message(input.below(MESSAGE_MAX + 1), &header);
            }
            _ => {
                let kind = if input.one_in(16) { Kind::End } else { Kind::Data };
                let header = Header { kind, slots: input.u8().into(), bytes: input.u8().into() };
                return self.message(HEADER_LEN + input.below(MESSAGE_MAX - HEADER_LEN), &header);
            }
        }
        true
    }

    /// As much as the peer has room for, and what gives credit back.
    fn send_something(&mut self, len: usize) {
        let (at, room) = self.send.window();
        assert!(at + room <= WINDOW as usize && self.send.slots() <= SLOTS.into());
        if self.send.slots_for_data() > 0 {
            self.send.use_slot();
            self.send.use_window(len.min(room));
        }
        if self.inbox.credit.owes() && self.send.slots() > 0 {
            self.send.use_slot();
            self.inbox.credit.tell();
        }
    }

    fn written(&mut self, len: usize) -> bool {
        let Some(request) = self.posted.pop() else { return false };
        if self.inbox.written(len).is_err() {
            return false;
        }
        self.unread += len;
        self.free(request);
        true
    }

    fn message(&mut self, len: usize, header: &Header) -> bool {
        let Some(request) = self.posted.pop() else { return false };
        let Ok(slot) = self.inbox.message(request, len, header) else { return false };
        if self.send.returned(header.slots, header.bytes).is_err() {
            return false;
        }
        match slot {
            Slot::Holds => self.unread += len - HEADER_LEN,
            Slot::Free => self.free(request),
        }
        true
    }

    fn free(&mut self, request: u64) {
        assert!(!self.posted.contains(&request), "a slot is free twice");
        self.posted.push(request);
        self.inbox.credit.free_slot();
    }

    fn take(&mut self, max: usize) {
        let Some(piece) = (max > 0).then(|| self.inbox.take(max)).flatten() else { return };
        let len = match piece {
            Piece::Slot { request, at, len, is_last } => {
                assert!(at >= HEADER_LEN && at + len <= MESSAGE_MAX);
                if is_last {
                    self.free(request);
                }
                len
            }
            Piece::Window { at, len } => {
                assert!(at == self.window_at && at + len <= WINDOW as usize);
                self.window_at = (at + len) % WINDOW as usize;
                len
            }
        };
        assert!(0 < len && len <= max);
        self.unread = self.unread.checked_sub(len).expect("more is read than came");
    }

    fn read_everything(&mut self) {
        while !self.inbox.is_empty() {
            self.take(100);
        }
        assert_eq!(self.unread, 0);
        assert_eq!(self.posted.len(), SLOTS as usize, "each slot is free again");
    }
}
