# shellcheck shell=bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# An extended regular expression for lines of the kernel's log that fail any case.
kernel_faults='WARNING|BUG:|\bOops|general protection|KASAN|UBSAN|KCSAN|KFENCE|kmemleak|Call Trace'
kernel_faults+='|possible (circular|recursive) locking|held lock|suspicious RCU'
kernel_faults+='|INFO: (task|rcu)|rcu.*stall|soft lockup|refcount_t|list_(add|del) corruption'
kernel_faults+='|scheduling while atomic|sleeping function called|Bad page|slab .*(Redzone|Poison)'
kernel_faults+='|Objects remaining|VFS: Busy inodes|Kernel panic|invalid opcode|unable to handle'
readonly kernel_faults
