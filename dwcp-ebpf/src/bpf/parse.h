/* Finds the UDP header of a frame, where it came from and where it goes. What is no whole UDP header of an unfragmented packet is not
 * found, and so not touched. */
#ifndef DWCP_PARSE_H
#define DWCP_PARSE_H

#define VLAN_TAGS_MAX 2
#define EXTENSION_HEADERS_MAX 6
#define FRAGMENT_MASK 0x3FFF /* more fragments, or an offset */

struct vlan_tag {
    __be16 tag;
    __be16 protocol;
};

struct found {
    struct udphdr *udp;
    struct address source;
    struct address destination;
    /* Where it begins in the frame. Counted along: to subtract pointers takes CAP_PERFMON. */
    __u32 offset;
    /* Bytes of the IP packet from there on, as the IP header says. */
    __s32 room;
};

static __always_inline bool find_udp_ipv4(void *at, void *end, struct found *found)
{
    struct iphdr *ip = at;
    if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
        return false;
    if (ip->protocol != IPPROTO_UDP || ip->frag_off & bpf_htons(FRAGMENT_MASK))
        return false;
    __u32 header_bytes = ip->ihl * 4;
    found->udp = at + header_bytes;
    found->offset += header_bytes;
    found->source.word[0] = 0;
    found->source.word[1] = 0;
    found->source.word[2] = bpf_htonl(0xFFFF);
    found->source.word[3] = ip->saddr;
    found->destination.word[0] = 0;
    found->destination.word[1] = 0;
    found->destination.word[2] = bpf_htonl(0xFFFF);
    found->destination.word[3] = ip->daddr;
    found->room = bpf_ntohs(ip->tot_len) - (__s32)header_bytes;
    return (void *)(found->udp + 1) <= end;
}

static __always_inline bool find_udp_ipv6(void *at, void *end, struct found *found)
{
    struct ipv6hdr *ip = at;
    if ((void *)(ip + 1) > end || ip->version != 6)
        return false;
    __u8 next = ip->nexthdr;
    at = ip + 1;
    found->offset += sizeof(*ip);
    found->room = bpf_ntohs(ip->payload_len);
    __builtin_memcpy(&found->source, &ip->saddr, sizeof(found->source));
    __builtin_memcpy(&found->destination, &ip->daddr, sizeof(found->destination));
#pragma unroll
    for (int i = 0; i < EXTENSION_HEADERS_MAX; i++) {
        if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS)
            break;
        struct ipv6_opt_hdr *extension = at;
        if ((void *)(extension + 1) > end)
            return false;
        __u32 bytes = (extension->hdrlen + 1) * 8;
        next = extension->nexthdr;
        found->offset += bytes;
        found->room -= bytes;
        at += bytes;
    }
    found->udp = at;
    return next == IPPROTO_UDP && (void *)(found->udp + 1) <= end;
}

static __always_inline bool find_udp(void *data, void *end, struct found *found)
{
    struct ethhdr *ethernet = data;
    if ((void *)(ethernet + 1) > end)
        return false;
    __be16 protocol = ethernet->h_proto;
    void *at = ethernet + 1;
    found->offset = sizeof(*ethernet);
#pragma unroll
    for (int i = 0; i < VLAN_TAGS_MAX; i++) {
        if (protocol != bpf_htons(ETH_P_8021Q) && protocol != bpf_htons(ETH_P_8021AD))
            break;
        struct vlan_tag *tag = at;
        if ((void *)(tag + 1) > end)
            return false;
        protocol = tag->protocol;
        at = tag + 1;
        found->offset += sizeof(*tag);
    }
    if (protocol == bpf_htons(ETH_P_IP))
        return find_udp_ipv4(at, end, found);
    if (protocol == bpf_htons(ETH_P_IPV6))
        return find_udp_ipv6(at, end, found);
    return false;
}

#endif
