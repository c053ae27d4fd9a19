// SPDX-License-Identifier: GPL-2.0
/* The tracepoints puzzlefs:*, and the functions through which Rust reaches them; see trace.h. */
#define CREATE_TRACE_POINTS
#include "trace.h"

void ports_trace_request(const struct ports_trace_request *event)
{
	trace_puzzlefs_request(event);
}

void ports_trace_request_end(const struct ports_trace_request_end *event)
{
	trace_puzzlefs_request_end(event);
}

void ports_trace_chunk(const struct ports_trace_chunk *event)
{
	trace_puzzlefs_chunk(event);
}

void ports_trace_read(const struct ports_trace_read *event)
{
	trace_puzzlefs_read(event);
}

void ports_trace_decode(const struct ports_trace_decode *event)
{
	trace_puzzlefs_decode(event);
}

void ports_trace_prefetch(const struct ports_trace_prefetch *event)
{
	trace_puzzlefs_prefetch(event);
}

void ports_trace_error(const struct ports_trace_error *event)
{
	trace_puzzlefs_error(event);
}
