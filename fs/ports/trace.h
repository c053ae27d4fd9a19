/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The tracepoints puzzlefs:*. Documentation/tracing.md explains each.
 *
 * Each takes one structure of plain numbers, which Rust fills: no pointer is followed but that to
 * the structure. A digest is given by its first eight bytes, in the order in which it is printed.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM puzzlefs

#ifndef _PORTS_TRACE_TYPES_H
#define _PORTS_TRACE_TYPES_H

#include <linux/types.h>

struct ports_trace_request {
	u64 ino;
	u64 offset;
	u64 len;
	u32 dev;
	u32 folios;
	u8 is_readahead;
};

struct ports_trace_request_end {
	u64 ino;
	u64 offset;
	u64 len;
	u64 duration;
	u32 dev;
	u32 failed;
};

struct ports_trace_chunk {
	u64 chunk;
	u64 file;
	u64 offset;
	u64 len;
	u64 wait;
	u8 encoding;
	u8 source;
};

struct ports_trace_read {
	u64 len;
	u64 wait;
	u32 reads;
};

struct ports_trace_decode {
	u64 stored;
	u64 content;
	u64 duration;
	u8 step;
};

struct ports_trace_prefetch {
	u64 file;
	u64 offset;
	u64 len;
};

#define PORTS_TRACE_CAUSE 96

struct ports_trace_error {
	u64 image;
	u64 ino;
	u64 offset;
	u64 digest;
	int error;
	/* Ends at the first zero. */
	char cause[PORTS_TRACE_CAUSE];
};

void ports_trace_request(const struct ports_trace_request *event);
void ports_trace_request_end(const struct ports_trace_request_end *event);
void ports_trace_chunk(const struct ports_trace_chunk *event);
void ports_trace_read(const struct ports_trace_read *event);
void ports_trace_decode(const struct ports_trace_decode *event);
void ports_trace_prefetch(const struct ports_trace_prefetch *event);
void ports_trace_error(const struct ports_trace_error *event);

#endif

#if !defined(_PORTS_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _PORTS_TRACE_H

#include <linux/kdev_t.h>
#include <linux/tracepoint.h>

TRACE_EVENT(puzzlefs_request,
	    TP_PROTO(const struct ports_trace_request *event),
	    TP_ARGS(event),
	    TP_STRUCT__entry(__field(u64, ino)
			     __field(u64, offset)
			     __field(u64, len)
			     __field(dev_t, dev)
			     __field(u32, folios)
			     __field(u8, is_readahead)),
	    TP_fast_assign(__entry->ino = event->ino;
			   __entry->offset = event->offset;
			   __entry->len = event->len;
			   __entry->dev = event->dev;
			   __entry->folios = event->folios;
			   __entry->is_readahead = event->is_readahead;),
	    TP_printk("dev=%u:%u ino=%llu offset=%llu len=%llu folios=%u kind=%s",
		      MAJOR(__entry->dev), MINOR(__entry->dev), __entry->ino, __entry->offset,
		      __entry->len, __entry->folios,
		      __print_symbolic(__entry->is_readahead,
				       { 0, "read" }, { 1, "readahead" })));

TRACE_EVENT(puzzlefs_request_end,
	    TP_PROTO(const struct ports_trace_request_end *event),
	    TP_ARGS(event),
	    TP_STRUCT__entry(__field(u64, ino)
			     __field(u64, offset)
			     __field(u64, len)
			     __field(u64, duration_ns)
			     __field(dev_t, dev)
			     __field(u32, failed)),
	    TP_fast_assign(__entry->ino = event->ino;
			   __entry->offset = event->offset;
			   __entry->len = event->len;
			   __entry->duration_ns = event->duration;
			   __entry->dev = event->dev;
			   __entry->failed = event->failed;),
	    TP_printk("dev=%u:%u ino=%llu offset=%llu len=%llu failed=%u duration_ns=%llu",
		      MAJOR(__entry->dev), MINOR(__entry->dev), __entry->ino, __entry->offset,
		      __entry->len, __entry->failed, __entry->duration_ns));

TRACE_EVENT(puzzlefs_chunk,
	    TP_PROTO(const struct ports_trace_chunk *event),
	    TP_ARGS(event),
	    TP_STRUCT__entry(__field(u64, chunk)
			     __field(u64, file)
			     __field(u64, offset)
			     __field(u64, len)
			     __field(u64, wait_ns)
			     __field(u8, encoding)
			     __field(u8, source)),
	    TP_fast_assign(__entry->chunk = event->chunk;
			   __entry->file = event->file;
			   __entry->offset = event->offset;
			   __entry->len = event->len;
			   __entry->wait_ns = event->wait;
			   __entry->encoding = event->encoding;
			   __entry->source = event->source;),
	    TP_printk("chunk=%016llx file=%016llx offset=%llu len=%llu encoding=%s source=%s wait_ns=%llu",
		      __entry->chunk, __entry->file, __entry->offset, __entry->len,
		      __print_symbolic(__entry->encoding,
				       { 0, "unknown" }, { 1, "raw" }, { 2, "zstd" }),
		      __print_symbolic(__entry->source,
				       { 0, "cache" }, { 1, "buffer" }, { 2, "prefetched" },
				       { 3, "read" }, { 4, "lower" }),
		      __entry->wait_ns));

TRACE_EVENT(puzzlefs_read,
	    TP_PROTO(const struct ports_trace_read *event),
	    TP_ARGS(event),
	    TP_STRUCT__entry(__field(u64, len)
			     __field(u64, wait_ns)
			     __field(u32, reads)),
	    TP_fast_assign(__entry->len = event->len;
			   __entry->wait_ns = event->wait;
			   __entry->reads = event->reads;),
	    TP_printk("reads=%u len=%llu wait_ns=%llu",
		      __entry->reads, __entry->len, __entry->wait_ns));

TRACE_EVENT(puzzlefs_decode,
	    TP_PROTO(const struct ports_trace_decode *event),
	    TP_ARGS(event),
	    TP_STRUCT__entry(__field(u64, stored_len)
			     __field(u64, content_len)
			     __field(u64, duration_ns)
			     __field(u8, step)),
	    TP_fast_assign(__entry->stored_len = event->stored;
			   __entry->content_len = event->content;
			   __entry->duration_ns = event->duration;
			   __entry->step = event->step;),
	    TP_printk("step=%s stored_len=%llu content_len=%llu duration_ns=%llu",
		      __print_symbolic(__entry->step, { 0, "hash" }, { 1, "zstd" }),
		      __entry->stored_len, __entry->content_len, __entry->duration_ns));

TRACE_EVENT(puzzlefs_prefetch,
	    TP_PROTO(const struct ports_trace_prefetch *event),
	    TP_ARGS(event),
	    TP_STRUCT__entry(__field(u64, file)
			     __field(u64, offset)
			     __field(u64, len)),
	    TP_fast_assign(__entry->file = event->file;
			   __entry->offset = event->offset;
			   __entry->len = event->len;),
	    TP_printk("file=%016llx offset=%llu len=%llu",
		      __entry->file, __entry->offset, __entry->len));

TRACE_EVENT(puzzlefs_error,
	    TP_PROTO(const struct ports_trace_error *event),
	    TP_ARGS(event),
	    TP_STRUCT__entry(__field(u64, image)
			     __field(u64, ino)
			     __field(u64, offset)
			     __field(u64, digest)
			     __field(int, error)
			     __string_len(cause, event->cause,
					  strnlen(event->cause, PORTS_TRACE_CAUSE))),
	    TP_fast_assign(__entry->image = event->image;
			   __entry->ino = event->ino;
			   __entry->offset = event->offset;
			   __entry->digest = event->digest;
			   __entry->error = event->error;
			   __assign_str(cause);),
	    TP_printk("image=%016llx ino=%llu offset=%llu digest=%016llx error=%d cause=\"%s\"",
		      __entry->image, __entry->ino, __entry->offset, __entry->digest,
		      __entry->error, __get_str(cause)));

#endif

/* This part must be outside protection */
#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
