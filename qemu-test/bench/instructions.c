// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * A plugin for QEMU's emulation that counts the guest's instructions, on all processors and in
 * kernel and programs alike. Whenever the guest executes MARK, which does nothing, the count is
 * appended to a file, as a line. A halted processor executes nothing.
 *
 *     qemu-system-x86_64 -accel tcg,thread=multi -plugin instructions.so,to=FILE[,blocks=FILE]
 *
 * With blocks=FILE, every second mark appends to that file a line "run", then a line
 * "ADDRESS COUNT" for each basic block of the kernel that was executed since the mark before: the
 * address in hexadecimal, and how many of its instructions were executed. Address 0 stands for all
 * programs. `functions.py` sums them by function.
 *
 * Debian has no package with qemu-plugin.h; what is used of the interface, which is stable, is
 * declared here. See https://www.qemu.org/docs/master/devel/tcg-plugins.html
 */
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_scoreboard;
typedef uint64_t qemu_plugin_id_t;
typedef struct {
	struct qemu_plugin_scoreboard *score;
	size_t offset;
} qemu_plugin_u64;
enum { QEMU_PLUGIN_CB_NO_REGS };
enum { QEMU_PLUGIN_INLINE_ADD_U64 };

struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t element_size);
uint64_t qemu_plugin_u64_sum(qemu_plugin_u64 entry);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *to, size_t len);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
					   void (*cb)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(struct qemu_plugin_tb *tb, int op,
						       qemu_plugin_u64 entry, uint64_t imm);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
					    void (*cb)(unsigned int, void *), int flags, void *data);

/* The interface's version that the declarations are of. */
__attribute__((visibility("default"))) int qemu_plugin_version = 4;

/* nopw 0x4d534650(%rax,%rax,1): an address that nobody needs to do nothing with. */
static const uint8_t MARK[] = { 0x66, 0x0f, 0x1f, 0x84, 0x00, 0x50, 0x46, 0x53, 0x4d };

static qemu_plugin_u64 executed;
static FILE *to;

/*
 * A hash table of the blocks by address, with open addressing. Its slot is the block's place in
 * `counts`, too; slot 0 is for programs, and for blocks beyond those that fit.
 */
enum { SLOTS = 1 << 19 };
static uint64_t addresses[SLOTS], *seen;
static size_t blocks;
static qemu_plugin_u64 counts;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static FILE *blocks_to;

static qemu_plugin_u64 count_of(size_t slot)
{
	return (qemu_plugin_u64){ counts.score, slot * sizeof(uint64_t) };
}

/* Two processors may translate at once. */
static size_t slot_of(uint64_t address)
{
	size_t slot = (address * 0x9e3779b97f4a7c15) >> (64 - 19);

	/* Programs have the lower half of the addresses. */
	if (!(address >> 63))
		return 0;
	pthread_mutex_lock(&lock);
	while (slot == 0 || (addresses[slot] && addresses[slot] != address))
		slot = (slot + 1) % SLOTS;
	if (addresses[slot] != address) {
		if (blocks < SLOTS / 4 * 3) {
			addresses[slot] = address;
			blocks++;
		} else {
			slot = 0;
		}
	}
	pthread_mutex_unlock(&lock);
	return slot;
}

/* Writes what was executed since the last call, if that is wanted. */
static void take_blocks(int write)
{
	if (write)
		fprintf(blocks_to, "run\n");
	for (size_t slot = 0; slot < SLOTS; slot++) {
		uint64_t count;

		if (slot && !addresses[slot])
			continue;
		count = qemu_plugin_u64_sum(count_of(slot));
		if (write && count != seen[slot])
			fprintf(blocks_to, "%llx %llu\n", (unsigned long long)addresses[slot],
				(unsigned long long)(count - seen[slot]));
		seen[slot] = count;
	}
	fflush(blocks_to);
}

static void mark(unsigned int cpu, void *data)
{
	static int marks;

	(void)cpu;
	(void)data;
	fprintf(to, "%llu\n", (unsigned long long)qemu_plugin_u64_sum(executed));
	fflush(to);
	if (blocks_to)
		take_blocks(marks++ % 2);
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	size_t count = qemu_plugin_tb_n_insns(tb);
	uint8_t bytes[sizeof(MARK)];

	(void)id;
	qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64, executed,
							  count);
	if (blocks_to)
		qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
			tb, QEMU_PLUGIN_INLINE_ADD_U64, count_of(slot_of(qemu_plugin_tb_vaddr(tb))),
			count);
	for (size_t index = 0; index < count; index++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, index);

		if (qemu_plugin_insn_data(insn, bytes, sizeof(bytes)) == sizeof(MARK) &&
		    !memcmp(bytes, MARK, sizeof(MARK)))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, mark, QEMU_PLUGIN_CB_NO_REGS, NULL);
	}
}

/* Opens the file that the argument names, if it has the key. */
static int takes(const char *argument, const char *key, FILE **file)
{
	size_t len = strlen(key);

	if (strncmp(argument, key, len))
		return 0;
	*file = fopen(argument + len, "a");
	if (!*file)
		perror(argument + len);
	return *file != NULL;
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const void *info,
							       int argc, char **argv)
{
	(void)info;
	for (int index = 0; index < argc; index++)
		if (!takes(argv[index], "to=", &to) && !takes(argv[index], "blocks=", &blocks_to))
			return 1;
	if (!to) {
		fprintf(stderr, "instructions: to=FILE is needed\n");
		return 1;
	}
	executed.score = qemu_plugin_scoreboard_new(sizeof(uint64_t));
	if (blocks_to) {
		seen = calloc(SLOTS, sizeof(*seen));
		if (!seen)
			return 1;
		counts.score = qemu_plugin_scoreboard_new(SLOTS * sizeof(uint64_t));
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
	return 0;
}
