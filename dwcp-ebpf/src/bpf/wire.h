/* The header of DWCP datagrams (docs/spec/datagram-1.md), and what the program shares with its loader. The loader's side
 * of the same numbers is in stats.rs and load.rs; tests hold the two against each other. */
#ifndef DWCP_WIRE_H
#define DWCP_WIRE_H

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the header is little-endian (DATAGRAM-1.1) and read as it lies"
#endif

#define MAGIC 0xDA
#define VERSION 1
#define TYPE_KNOWN_MAX 4
#define TYPE_OPTIONAL 0x80
#define FLAG_KEY_PHASE 0x01
#define TAG_BYTES 16
#define PAYLOAD_BYTES_MAX 8948
#define NUMBER_END (1ULL << 62)

/* Behind 42 bytes of Ethernet, IPv4 and UDP nothing is aligned to more than two. */
struct header {
    __u8 magic;
    __u8 version;
    __u8 type;
    __u8 flags;
    __u16 length;
    __u16 reserved;
    __u64 flow;
    __u64 number;
} __attribute__((packed, aligned(2)));
_Static_assert(sizeof(struct header) == 24, "DATAGRAM-2.1");

/* What became of a datagram. Numbers are for ever: pinned counters outlive a program. */
enum action {
    PASSED = 0,
    STEERED = 1,
    MALFORMED = 2,
    DENIED = 3,
    NOT_ALLOWED = 4,
    LIMITED = 5,
    UNMETERED = 6,
    ACTIONS = 8, /* room for one more without another layout of the maps */
};

/* IPv4 as ::ffff:a.b.c.d, so that one map serves both. */
struct address {
    __be32 word[4];
};

struct prefix {
    __u32 bits;
    struct address address;
};

struct count {
    __u64 packets;
    __u64 bytes;
};

struct peer {
    __u64 packets[ACTIONS];
};

struct event {
    struct address source;
    __u64 time_ns;
    __u32 bytes;
    __u16 source_port;
    __u8 action;
    __u8 reserved;
};
_Static_assert(sizeof(struct event) == 32, "read by stats.rs");

#endif
