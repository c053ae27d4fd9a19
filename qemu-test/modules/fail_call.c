// SPDX-License-Identifier: GPL-2.0
/*
 * Makes calls of one kernel function fail, for cases on a kernel without fault injection: instead
 * of running, the function returns a value at once.
 *
 *	insmod fail_call.ko function=NAME value=-12 [argument=N least=BYTES]
 *	echo PID >/sys/module/fail_call/parameters/pid
 *
 * Calls fail if the process makes them (0: none; -1: any process) and, with argument=N, if the
 * function's Nth argument is not less than `least`. `failed` counts the calls that have failed.
 */
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/objtool.h>
#include <linux/ptrace.h>
#include <linux/sched.h>

#ifndef CONFIG_X86_64
#error "fail_call knows the calling convention of x86-64 only"
#endif

static char *function;
module_param(function, charp, 0444);
static long value;
module_param(value, long, 0444);
static unsigned int argument;
module_param(argument, uint, 0444);
static unsigned long least;
module_param(least, ulong, 0444);
static int pid;
module_param(pid, int, 0644);
static unsigned long failed;
module_param(failed, ulong, 0444);

/* Returns to the caller of the function that is being entered. */
void fail_call_return(void);
asm(".text\n"
    ".type fail_call_return, @function\n"
    "fail_call_return:\n"
    ANNOTATE_NOENDBR "\n"
    ASM_RET "\n"
    ".size fail_call_return, .-fail_call_return\n");

static int fail_call(struct kprobe *probe, struct pt_regs *regs)
{
	int wanted = READ_ONCE(pid);

	if (!wanted || (wanted > 0 && wanted != task_tgid_nr(current)))
		return 0;
	if (argument && regs_get_kernel_argument(regs, argument - 1) < least)
		return 0;
	WRITE_ONCE(failed, failed + 1);
	regs_set_return_value(regs, value);
	instruction_pointer_set(regs, (unsigned long)fail_call_return);
	return 1;
}
NOKPROBE_SYMBOL(fail_call);

static struct kprobe probe = { .pre_handler = fail_call };

static int __init fail_call_init(void)
{
	if (!function)
		return -EINVAL;
	probe.symbol_name = function;
	return register_kprobe(&probe);
}

static void __exit fail_call_exit(void)
{
	unregister_kprobe(&probe);
}

module_init(fail_call_init);
module_exit(fail_call_exit);
MODULE_DESCRIPTION("Makes calls of one kernel function fail, for tests");
MODULE_LICENSE("GPL");
