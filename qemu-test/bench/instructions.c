// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * A plugin for QEMU's emulation that counts the guest's instructions, on all processors and in
 * kernel and programs alike. Whenever the guest executes MARK, which does nothing, the count is
 * appended to a file, as a line. A halted processor executes nothing.
 *
 *     qemu-system-x86_64 -accel tcg,thread=multi -plugin instructions.so,to=FILE
 *
 * Debian has no package with qemu-plugin.h; what is used of the interface, which is stable, is
 * declared here. See https://www.qemu.org/docs/master/devel/tcg-plugins.html
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
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

static void mark(unsigned int cpu, void *data)
{
	(void)cpu;
	(void)data;
	fprintf(to, "%llu\n", (unsigned long long)qemu_plugin_u64_sum(executed));
	fflush(to);
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	size_t count = qemu_plugin_tb_n_insns(tb);
	uint8_t bytes[sizeof(MARK)];

	(void)id;
	qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64, executed,
							  count);
	for (size_t index = 0; index < count; index++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, index);

		if (qemu_plugin_insn_data(insn, bytes, sizeof(bytes)) == sizeof(MARK) &&
		    !memcmp(bytes, MARK, sizeof(MARK)))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, mark, QEMU_PLUGIN_CB_NO_REGS, NULL);
	}
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const void *info,
							       int argc, char **argv)
{
	(void)info;
	if (argc != 1 || strncmp(argv[0], "to=", 3)) {
		fprintf(stderr, "instructions: to=FILE is needed\n");
		return 1;
	}
	to = fopen(argv[0] + 3, "a");
	if (!to) {
		perror(argv[0] + 3);
		return 1;
	}
	executed.score = qemu_plugin_scoreboard_new(sizeof(uint64_t));
	qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
	return 0;
}
