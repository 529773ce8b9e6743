/* Decides about DWCP datagrams before the kernel makes packets of them: malformed ones, sources that are not welcome and
 * floods are dropped, known flows go to an AF_XDP socket, the rest passes. All that is not UDP to the configured ports at the
 * configured addresses passes untouched and uncounted. Authentication is not decided here: keys never enter the kernel.
 *
 * Reads nothing of the kernel but the packet, so it needs neither vmlinux.h nor the kernel's BTF. */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "wire.h"
#include "parse.h"

#define PORTS_MAX 4
#define ADDRESS_SLOTS 4096
#define ADDRESS_SLOT_BITS 12
#define ADDRESS_PROBES_MAX 16
#define PREFIXES_MAX 4096
#define BUCKETS_MAX 65536
#define PEERS_MAX 4096
#define FLOWS_MAX 65536
#define QUEUES_MAX 64
#define EVENT_BYTES_MAX (256 * 1024)
/* Each failure means that another CPU took a token of the same source meanwhile. */
#define METER_TRIES_MAX 8

/* Part of the program's text: the loader fills it in before the verifier sees it, and a change is another program. */
const volatile struct settings {
    __u64 interval_ns;  /* between two datagrams of a source, on average; 0: no limit */
    __u64 tolerance_ns; /* how far ahead of that a source may be */
    __u64 sample_every;  /* of drops for one reason, one event for so many; 0: none */
    __be16 ports[PORTS_MAX]; /* 0: none */
    __u8 deny_any;
    __u8 allow_any;
    __u8 fail_open;
    __u8 may_be_joined; /* behind the driver the kernel may have made one packet of several datagrams (GRO, GSO) */
} settings = {};

#define PREFIXES(name)                                                                                                 \
    struct {                                                                                                           \
        __uint(type, BPF_MAP_TYPE_LPM_TRIE);                                                                           \
        __uint(map_flags, BPF_F_NO_PREALLOC);                                                                          \
        __uint(max_entries, PREFIXES_MAX);                                                                             \
        __type(key, struct prefix);                                                                                    \
        __type(value, __u8);                                                                                           \
    } name SEC(".maps")

PREFIXES(deny);
PREFIXES(allow);

/* Destinations at which datagrams are taken here. The same port at another address of this node, or of one that it forwards to,
 * is somebody else's. A hash table of our own in an array, whose lookups are a load: each datagram of a flood is looked up, and the
 * kernel's hash tables take four times as long. The loader's side is addresses.rs. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, ADDRESS_SLOTS);
    __type(key, __u32);
    __type(value, struct address);
} addresses SEC(".maps");

/* When the next datagram of a source is due (the generic cell rate algorithm: a token bucket in one number, so that CPUs
 * share it without a lock). */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, BUCKETS_MAX);
    __type(key, struct address);
    __type(value, __u64);
} buckets SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, ACTIONS);
    __type(key, __u32);
    __type(value, struct count);
} totals SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
    __uint(max_entries, PEERS_MAX);
    __type(key, struct address);
    __type(value, struct peer);
} peers SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, FLOWS_MAX);
    __type(key, __u64);
    __type(value, __u8);
} flows SEC(".maps");

/* By receive queue: a socket can take datagrams only of the queue that it is bound to. */
struct {
    __uint(type, BPF_MAP_TYPE_XSKMAP);
    __uint(max_entries, QUEUES_MAX);
    __type(key, __u32);
    __type(value, __u32);
} sockets SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, EVENT_BYTES_MAX);
} events SEC(".maps");

static __always_inline bool is_guarded_port(__be16 port)
{
#pragma unroll
    for (int i = 0; i < PORTS_MAX; i++)
        if (settings.ports[i] && settings.ports[i] == port)
            return true;
    return false;
}

/* Whether an address is in the table: at its slot or, where others have that, at one of those that follow. No slot in between is
 * empty. */
static __always_inline bool is_here(const struct address *address)
{
    const __be32 *word = address->word;
    __u32 slot = ((word[0] ^ word[1] ^ word[2] ^ word[3]) * 0x9E3779B1u) >> (32 - ADDRESS_SLOT_BITS);
    for (int i = 0; i < ADDRESS_PROBES_MAX; i++) {
        __u32 key = (slot + i) % ADDRESS_SLOTS;
        const struct address *there = bpf_map_lookup_elem(&addresses, &key);
        if (!there || !(there->word[0] | there->word[1] | there->word[2] | there->word[3]))
            return false;
        if (there->word[0] == word[0] && there->word[1] == word[1] && there->word[2] == word[2] &&
            there->word[3] == word[3])
            return true;
    }
    return false;
}

/* The port first, which is cheap and says most. */
static __always_inline bool is_guarded(const struct found *found)
{
    return is_guarded_port(found->udp->dest) && is_here(&found->destination);
}

/* Bytes behind a datagram that are others, joined to it. Of them only the first is looked at. */
static __always_inline __s32 joined(const struct header *header, __s32 bytes)
{
    return bytes - (__s32)sizeof(*header) - header->length;
}

/* DATAGRAM-2.2 to 2.7. `bytes` are those behind the UDP header; only the header has to be in the frame's first buffer. */
static __always_inline bool is_well_formed(const struct header *header, void *end, __s32 bytes)
{
    if (bytes < (__s32)sizeof(*header) + TAG_BYTES || (void *)(header + 1) > end)
        return false;
    if (header->magic != MAGIC || header->version != VERSION)
        return false;
    if (header->type == 0 || (header->type > TYPE_KNOWN_MAX && header->type < TYPE_OPTIONAL))
        return false;
    if (header->flags & ~FLAG_KEY_PHASE || header->reserved)
        return false;
    __s32 others = joined(header, bytes);
    if (others < 0 || (others && !settings.may_be_joined))
        return false;
    if (header->length < TAG_BYTES || header->length > PAYLOAD_BYTES_MAX)
        return false;
    return header->flow != 0 && header->number < NUMBER_END;
}

/* `whose`: an address, or what stands for a flow. */
static __always_inline enum action meter(const struct address *whose)
{
    __u64 now = bpf_ktime_get_ns();
    __u64 *due = bpf_map_lookup_elem(&buckets, whose);
    if (!due) {
        __u64 first = now + settings.interval_ns;
        if (bpf_map_update_elem(&buckets, whose, &first, BPF_NOEXIST) == 0)
            return PASSED;
        /* Another CPU was faster, or there is no memory. */
        due = bpf_map_lookup_elem(&buckets, whose);
        if (!due)
            return UNMETERED;
    }
    for (int i = 0; i < METER_TRIES_MAX; i++) {
        __u64 was = *(volatile __u64 *)due;
        __u64 from = was > now ? was : now;
        if (from - now > settings.tolerance_ns)
            return LIMITED;
        if (__sync_val_compare_and_swap(due, was, from + settings.interval_ns) == was)
            return PASSED;
    }
    return UNMETERED;
}

static __always_inline bool is_in(void *prefixes, const struct address *source)
{
    struct prefix key = { .bits = 128, .address = *source };
    return bpf_map_lookup_elem(prefixes, &key) != NULL;
}

/* Whose bucket a datagram of a known flow is charged to: the flow's own. Whoever floods with a peer's forged address empties
 * the bucket of that address, and not what the peer's own datagrams need; and whoever has seen a flow's id, which nobody
 * guesses, gets no more through with it than the peer may send. No source has an address of all these ones (RFC 4291 2.7). */
static __always_inline struct address bucket_of(__u64 flow)
{
    struct address whose = { .word = { 0xFFFFFFFF, 0xFFFFFFFF, flow >> 32, (__u32)flow } };
    return whose;
}

/* Whether a datagram may go on. Cheap checks and those that say most come first; only what passes them all takes a token. */
static __always_inline enum action judge(const struct found *found, void *end, __s32 frame_bytes, bool *is_known)
{
    if (settings.deny_any && is_in(&deny, &found->source))
        return DENIED;
    if (settings.allow_any && !is_in(&allow, &found->source))
        return NOT_ALLOWED;
    __s32 udp_bytes = bpf_ntohs(found->udp->len);
    if (udp_bytes > found->room || udp_bytes > frame_bytes)
        return MALFORMED;
    const struct header *header = (void *)(found->udp + 1);
    if (!is_well_formed(header, end, udp_bytes - (__s32)sizeof(*found->udp)))
        return MALFORMED;
    __u64 flow = header->flow;
    *is_known = bpf_map_lookup_elem(&flows, &flow) != NULL;
    if (!settings.interval_ns)
        return PASSED;
    struct address whose = *is_known ? bucket_of(flow) : found->source;
    return meter(&whose);
}

static __always_inline bool is_dropped(enum action action)
{
    switch (action) {
    case PASSED:
    case STEERED:
        return false;
    case UNMETERED:
        return !settings.fail_open;
    default:
        return true;
    }
}

/* How many of this processor that makes. */
static __always_inline __u64 count(enum action action, const struct address *source, __u64 bytes)
{
    __u32 index = action;
    __u64 packets = 0;
    struct count *total = bpf_map_lookup_elem(&totals, &index);
    if (total) {
        packets = ++total->packets;
        total->bytes += bytes;
    }
    struct peer *peer = bpf_map_lookup_elem(&peers, source);
    if (!peer) {
        struct peer none = {};
        bpf_map_update_elem(&peers, source, &none, BPF_NOEXIST);
        peer = bpf_map_lookup_elem(&peers, source);
    }
    if (peer && index < ACTIONS)
        peer->packets[index]++;
    return packets;
}

static __always_inline void tell(enum action action, const struct found *found, __u32 bytes)
{
    struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
    if (!event)
        return;
    event->source = found->source;
    event->time_ns = bpf_ktime_get_ns();
    event->bytes = bytes;
    event->source_port = bpf_ntohs(found->udp->source);
    event->action = action;
    event->reserved = 0;
    bpf_ringbuf_submit(event, 0);
}

/* XDP_REDIRECT, of a known flow, if its queue has a socket. What is joined only the kernel takes apart. */
static __always_inline int steer(struct xdp_md *ctx, const struct found *found, void *end)
{
    const struct header *header = (void *)(found->udp + 1);
    if ((void *)(header + 1) > end || joined(header, bpf_ntohs(found->udp->len) - (__s32)sizeof(*found->udp)))
        return XDP_PASS;
    return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
}

SEC("xdp.frags")
int dwcp_guard(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data;
    void *end = (void *)(long)ctx->data_end;
    struct found found;
    if (!find_udp(data, end, &found) || !is_guarded(&found))
        return XDP_PASS;
    __u32 bytes = bpf_xdp_get_buff_len(ctx);
    bool is_known = false;
    enum action action = judge(&found, end, bytes - found.offset, &is_known);
    int verdict = is_dropped(action) ? XDP_DROP : is_known ? steer(ctx, &found, end) : XDP_PASS;
    if (verdict == XDP_REDIRECT && action == PASSED)
        action = STEERED;
    __u64 packets = count(action, &found.source, bytes);
    if (verdict == XDP_DROP && settings.sample_every && packets % settings.sample_every == 0)
        tell(action, &found, bytes);
    return verdict;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
