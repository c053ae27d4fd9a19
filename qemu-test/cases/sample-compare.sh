# SPDX-License-Identifier: MIT OR Apache-2.0
# A real root filesystem, Debian's unless another is given: every path, type, mode, owner, size, link
# count, time, target, device number, xattr and byte is the source's.
# needs: sample
# timeout: 600
# kernels: every

mount_image "/payload/store:$(cat /payload/sample.tag)"
/payload/inventory "$mnt" >inventory

metric entries "$(grep -c $'\tstat\t' inventory)"
metric bytes "$(sed -nE 's/.*\tstat\tf.* size=([0-9]+) .*/\1/p' inventory |
	awk '{ n += $1 } END { print n }')"
diff /payload/sample.inventory inventory >differences || true
mismatches=$(grep -c '^[<>]' differences) || true
metric mismatches "$mismatches"
if ((mismatches)); then
	grep '^[<>]' differences | head -50
	fail "$mismatches lines differ from the source's (<) to the mount's (>)"
fi
