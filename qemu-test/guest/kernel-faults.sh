# shellcheck shell=bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# An extended regular expression for lines of the kernel's log that fail any case.
kernel_faults='WARNING|BUG:|\bOops|general protection|KASAN|UBSAN|KCSAN|KFENCE|possible (circular|recursive) locking'
kernel_faults+='|INFO: (task|rcu)|rcu.*stall|soft lockup|refcount_t|list_(add|del) corruption|Call Trace|kmemleak'
kernel_faults+='|scheduling while atomic|sleeping function called|Bad page|slab .*(Redzone|Poison)|Objects remaining'
kernel_faults+='|VFS: Busy inodes|Kernel panic|invalid opcode|unable to handle|held lock|suspicious RCU'
readonly kernel_faults
