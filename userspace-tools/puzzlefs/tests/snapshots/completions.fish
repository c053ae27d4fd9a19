# SPDX-License-Identifier: MIT OR Apache-2.0
# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_puzzlefs_global_optspecs
    string join \n h/help V/version
end

function __fish_puzzlefs_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_puzzlefs_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_puzzlefs_using_subcommand
    set -l cmd (__fish_puzzlefs_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -s h -l help -d 'Print help'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -s V -l version -d 'Print version'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "build" -d 'Build an image of a directory tree or a tar archive'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "import" -d 'Import a container image, in OCI or Docker format'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "convert" -d 'Convert an image to another version of the format, or a registry\'s container image'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "extract" -d 'Extract an image, or a part of it, into a directory'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "export" -d 'Export an image as a tar archive or as an ordinary OCI image'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "mount" -d 'Mount an image, read-only or writable, by the kernel module or over FUSE'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "umount" -d 'Unmount an image'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "record" -d 'Record which ranges of files a command reads when it starts'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "inspect" -d 'Show the properties of an image, or of a file in it'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "ls" -d 'List files in an image'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "cat" -d 'Write files of an image to standard output'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "list" -d 'List the images of a store'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "images" -d 'List the images of a store'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "tag" -d 'Add a tag to an image'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "untag" -d 'Remove a tag'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "copy" -d 'Copy an image to another store: only missing blobs'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "push" -d 'Push an image to a registry or an object store: only blobs that it lacks'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "pull" -d 'Pull an image from a registry or an object store: only data that the store lacks'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "fetch" -d 'Fetch the chunks of an image while it is mounted: those first that are read'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "status" -d 'Show the parts of images that a store has, and what its fetcher does'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "du" -d 'Show the size of each image of a store, and the part it shares with others'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "diff" -d 'Show the paths in which two images differ, and the chunks they share'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "gc" -d 'Remove the blobs of a store that no image needs'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "repack" -d 'Put the chunks of an image together in few packs'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "complete" -d 'Create the packs that an image lacks, so that other tools can copy it'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "verify" -d 'Check an image or a whole store, and report every fault'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "reindex" -d 'Rebuild the chunk index of a store from its packs'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "enable-verity" -d 'Enable fs-verity on the blobs of an image or a whole store'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "resolve" -d 'Print the digest of an image\'s metadata, the kernel\'s \'rootfs=\' option'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "completions" -d 'Print completions for a shell'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "man" -d 'Write manual pages into a directory'
complete -c puzzlefs -n "__fish_puzzlefs_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l retry-changed -d 'Read files that change up to N times more, 0 to 1000 [default: 0]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l exclude -d 'Leave out matching paths and everything below them (repeatable)' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l owner -d 'Give everything to one user and group' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l uid-map -d 'Map user IDs FROM..FROM+COUNT to TO.. (repeatable; every ID must be covered)' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l gid-map -d 'Map group IDs in the same way' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l source-date-epoch -d 'Lower modification times to at most this, in seconds since 1970' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l xattrs -d 'Keep only matching extended attributes, drop those matching \'!PATTERN\' (repeatable)' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l format -d 'Version of the image format, 3 or 4 [default: 4]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l parent -d 'Reuse chunks of this image of the store [default: the image of the tag]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l order -d 'Put the ranges of the start-up order in FILE first in packs' -r -F
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l base -d 'Build on the image of this tag in the same store' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -s z -l compress -d 'Compress with zstd, level 1 to 19; 0 stores raw data [default without LEVEL: 3]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l frame-size -d 'Set the minimum content of a frame, 4K to 256K [default: 128K]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l chunk-size -d 'Set the average size of a chunk, 4K to 256K [default: 128K]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -s j -l jobs -d 'Use N threads, 1 to 1024 [default: one per processor]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l config -d 'Start from this file, in OCI\'s JSON [default: that of the base]' -r -F
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l platform -d 'Name this platform [default: that of FILE, or this machine\'s]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l entrypoint -d 'Run this program (repeat per word, or a JSON array)' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l cmd -d 'Pass these arguments to it (repeat per word, or a JSON array)' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l env -d 'Set a variable of the environment (repeatable)' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l label -d 'Set a label (repeatable)' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l user -d 'Run as this user, by name or number' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l workdir -d 'Start in this directory, an absolute path' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -s x -l one-file-system -d 'Leave mount points below the directory empty'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l ignore-zeros -d 'Read an archive past zero blocks, to the end of its file'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l skip-unreadable -d 'Leave out and report unreadable files and directories\' contents'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l no-xattrs -d 'Keep no extended attributes'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l fresh -d 'Store all chunks in new packs, even if the store has them'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l check -d 'Read blobs that the store already has, and replace damaged ones'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -l json -d 'Print one JSON object on standard output'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -s q -l quiet -d 'Show no progress and no summary'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand build" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand import" -l platform -d 'Import the image of this platform, such as linux/arm64 [default: this machine\'s]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand import" -l exclude -d 'Leave out matching paths and everything below them (repeatable)' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand import" -l owner -d 'Give everything to one user and group' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand import" -l uid-map -d 'Map user IDs FROM..FROM+COUNT to TO.. (repeatable; every ID must be covered)' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand import" -l gid-map -d 'Map group IDs in the same way' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand import" -l source-date-epoch -d 'Lower modification times to at most this, in seconds since 1970' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand import" -l xattrs -d 'Keep only matching extended attributes, drop those matching \'!PATTERN\' (repeatable)' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand import" -l format -d 'Version of the image format, 3 or 4 [default: 4]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand import" -l parent -d 'Reuse chunks of this image of the store [default: the image of the tag]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand import" -l order -d 'Put the ranges of the start-up order in FILE first in packs' -r -F
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand import" -l base -d 'Build on the image of this tag in the same store' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand import" -s z -l compress -d 'Compress with zstd, level 1 to 19; 0 stores raw data [default without LEVEL: 3]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand import" -l frame-size -d 'Set the minimum content of a frame, 4K to 256K [default: 128K]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand import" -l chunk-size -d 'Set the average size of a chunk, 4K to 256K [default: 128K]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand import" -s j -l jobs -d 'Use N threads, 1 to 1024 [default: one per processor]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand import" -l layers -d 'Keep the image\'s layers, instead of merging them into one [format 3]'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand import" -l no-xattrs -d 'Keep no extended attributes'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand import" -l fresh -d 'Store all chunks in new packs, even if the store has them'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand import" -l check -d 'Read blobs that the store already has, and replace damaged ones'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand import" -l json -d 'Print one JSON object on standard output'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand import" -s q -l quiet -d 'Show no progress and no summary'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l exclude -d 'Leave out matching paths and everything below them (repeatable)' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l owner -d 'Give everything to one user and group' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l uid-map -d 'Map user IDs FROM..FROM+COUNT to TO.. (repeatable; every ID must be covered)' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l gid-map -d 'Map group IDs in the same way' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l source-date-epoch -d 'Lower modification times to at most this, in seconds since 1970' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l xattrs -d 'Keep only matching extended attributes, drop those matching \'!PATTERN\' (repeatable)' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l format -d 'Version of the image format, 3 or 4 [default: 4]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l parent -d 'Reuse chunks of this image of the store [default: the image of the tag]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l order -d 'Put the ranges of the start-up order in FILE first in packs' -r -F
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l base -d 'Build on the image of this tag in the same store' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -s z -l compress -d 'Compress with zstd, level 1 to 19; 0 stores raw data [default without LEVEL: 3]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l frame-size -d 'Set the minimum content of a frame, 4K to 256K [default: 128K]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l chunk-size -d 'Set the average size of a chunk, 4K to 256K [default: 128K]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -s j -l jobs -d 'Use N threads, 1 to 1024 [default: one per processor]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l platform -d 'Convert the images of these platforms of an index alone, such as linux/arm64 [default: all of Linux]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l store -d 'Keep the PuzzleFS images in this store, where the next version finds its chunks [default: none]' -r -F
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l src-creds -d 'Log in to IMAGE\'s registry with this user name and password; --creds is for that of TARGET' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l creds -d 'Log in with this user name and password; other users of this host can see the command line' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l authfile -d 'Read the credentials from FILE [default: the files of \'podman login\' and \'docker login\']' -r -F
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l cert-dir -d 'Trust the CA certificates *.crt in DIR, too [default: certs.d/HOST:PORT of Podman and Docker]' -r -F
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l tls-verify -d 'Verify certificates; with \'false\', accept any, and plain HTTP' -r -f -a "true\t''
false\t''"
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l request-timeout -d 'Give up a request after N seconds without an answer, 1 to 3600' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l retries -d 'Repeat a failed request up to N times, 0 to 20, after pauses of 0.5 s to 16 s' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l transfers -d 'Transfer N blobs or ranges at once, 1 to 64' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l no-xattrs -d 'Keep no extended attributes'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l fresh -d 'Store all chunks in new packs, even if the store has them'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l check -d 'Read blobs that the store already has, and replace damaged ones'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -l json -d 'Print one JSON object on standard output'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -s q -l quiet -d 'Show no progress and no summary'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand convert" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand extract" -l json -d 'Print one JSON object on standard output'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand extract" -s q -l quiet -d 'Show no progress and no summary'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand extract" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand export" -s o -l output -d 'Write the archive to this file instead of standard output' -r -F
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand export" -l oci -d 'Write an OCI image with one layer into this layout, created if it does not exist [default for TAG: the image\'s]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand export" -s c -l compress -d 'Compress the archive or layer [default: none for an archive, gzip for a layer]' -r -f -a "none\t'No compression'
gzip\t'gzip'
zstd\t'zstd'"
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand export" -l platform -d 'Set the platform of the OCI image [default: the image\'s, otherwise this machine\'s]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand export" -l json -d 'Print one JSON object on standard output'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand export" -s q -l quiet -d 'Show no progress and no summary'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand mount" -s o -l options -d 'Set mount options, separated by commas (repeatable)' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand mount" -l verify -d 'Choose how data is verified when it is read [default: none, with digest= fsverity]' -r -f -a "none\t'No verification'
fsverity\t'By the kernel, for blobs with fs-verity (\'puzzlefs enable-verity\')'
digest\t'By SHA-256, on any filesystem; not over FUSE'"
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand mount" -s w -l writable -d 'Make the mount writable by an overlay' -r -F
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand mount" -l store -d 'Store for the image, and the tag to set there [default: a directory for the image in /var/lib/puzzlefs/lazy; for TAG: the image\'s]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand mount" -l complete -d 'Choose when chunks are fetched that no reader has requested' -r -f -a "now\t'At once, beside requests, which come first'
idle\t'After 1 s without requests, one range at a time'
never\t'Not at all: requests are served until SIGTERM or SIGINT'"
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand mount" -l limit-rate -d 'Fetch chunks that no reader has requested at RATE bytes per second at most; with a suffix, KiB (K), MiB (M) or GiB (G) [default: no limit]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand mount" -l authfile -d 'Read the credentials from FILE [default: the files of \'podman login\' and \'docker login\']' -r -F
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand mount" -l cert-dir -d 'Trust the CA certificates *.crt in DIR, too [default: certs.d/HOST:PORT of Podman and Docker]' -r -F
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand mount" -l tls-verify -d 'Verify certificates; with \'false\', accept any, and plain HTTP' -r -f -a "true\t''
false\t''"
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand mount" -l request-timeout -d 'Give up a request after N seconds without an answer, 1 to 3600' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand mount" -l retries -d 'Repeat a failed request up to N times, 0 to 20, after pauses of 0.5 s to 16 s' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand mount" -l transfers -d 'Transfer N blobs or ranges at once, 1 to 64' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand mount" -l fuse -d 'Serve the image over FUSE, for a kernel without the module, or as an ordinary user'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand mount" -s f -l foreground -d 'Serve it in the foreground until it is unmounted, and report errors'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand mount" -l background -d 'Be the server in the background, for a parent that waits on standard output'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand mount" -l lazy -d 'Mount an image of a registry or an object store before its data has arrived'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand mount" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand umount" -s l -l lazy -d 'Detach a busy mount now, and unmount it when its last user has finished'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand umount" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand record" -s o -l output -d 'Write the order to FILE [default: standard output]' -r -F
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand record" -l timeout -d 'End COMMAND and its processes after SECONDS, 1 to 86400 [default: wait for its end]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand record" -s w -l workdir -d 'Run COMMAND in DIRECTORY [default: as the image\'s configuration has it]' -r -F
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand record" -l inside -d 'Be the first process in this root directory' -r -F
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand record" -l repack -d 'Repack the image with the order, as \'puzzlefs repack --order\' does'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand record" -s q -l quiet -d 'Show no progress and no summary'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand record" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand inspect" -l json -d 'Print one JSON object on standard output'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand inspect" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand ls" -s l -l long -d 'Show mode, links, owner, group, size and time (UTC) too'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand ls" -s R -l recursive -d 'List everything below a directory, each with its path from there'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand ls" -l json -d 'Print one JSON object per file on standard output'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand ls" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand cat" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand list" -l json -d 'Print one JSON object per image on standard output'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand list" -s h -l help -d 'Print help'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand images" -l json -d 'Print one JSON object per image on standard output'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand images" -s h -l help -d 'Print help'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand tag" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand untag" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand copy" -s j -l jobs -d 'Use N threads, 1 to 1024 [default: one per processor]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand copy" -s a -l all -d 'Copy all images of the store that have tags'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand copy" -l check -d 'Read blobs that the store already has, and replace damaged ones'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand copy" -l whole-packs -d 'Copy whole packs, also if the store has a part of their chunks'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand copy" -l json -d 'Print one JSON object on standard output'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand copy" -s q -l quiet -d 'Show no progress and no summary'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand copy" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand push" -l mount-from -d 'Take blobs from this repository of the same registry, if it has them and the registry permits it' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand push" -l creds -d 'Log in with this user name and password; other users of this host can see the command line' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand push" -l authfile -d 'Read the credentials from FILE [default: the files of \'podman login\' and \'docker login\']' -r -F
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand push" -l cert-dir -d 'Trust the CA certificates *.crt in DIR, too [default: certs.d/HOST:PORT of Podman and Docker]' -r -F
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand push" -l tls-verify -d 'Verify certificates; with \'false\', accept any, and plain HTTP' -r -f -a "true\t''
false\t''"
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand push" -l request-timeout -d 'Give up a request after N seconds without an answer, 1 to 3600' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand push" -l retries -d 'Repeat a failed request up to N times, 0 to 20, after pauses of 0.5 s to 16 s' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand push" -l transfers -d 'Transfer N blobs or ranges at once, 1 to 64' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand push" -l json -d 'Print one JSON object on standard output'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand push" -s q -l quiet -d 'Show no progress and no summary'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand push" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand pull" -l platform -d 'Pull the image of this platform, such as linux/arm64 [default: this machine\'s]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand pull" -s j -l jobs -d 'Use N threads, 1 to 1024 [default: one per processor]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand pull" -l creds -d 'Log in with this user name and password; other users of this host can see the command line' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand pull" -l authfile -d 'Read the credentials from FILE [default: the files of \'podman login\' and \'docker login\']' -r -F
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand pull" -l cert-dir -d 'Trust the CA certificates *.crt in DIR, too [default: certs.d/HOST:PORT of Podman and Docker]' -r -F
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand pull" -l tls-verify -d 'Verify certificates; with \'false\', accept any, and plain HTTP' -r -f -a "true\t''
false\t''"
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand pull" -l request-timeout -d 'Give up a request after N seconds without an answer, 1 to 3600' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand pull" -l retries -d 'Repeat a failed request up to N times, 0 to 20, after pauses of 0.5 s to 16 s' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand pull" -l transfers -d 'Transfer N blobs or ranges at once, 1 to 64' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand pull" -l json -d 'Print one JSON object on standard output'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand pull" -s q -l quiet -d 'Show no progress and no summary'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand pull" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand fetch" -l complete -d 'Choose when chunks are fetched that no reader has requested' -r -f -a "now\t'At once, beside requests, which come first'
idle\t'After 1 s without requests, one range at a time'
never\t'Not at all: requests are served until SIGTERM or SIGINT'"
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand fetch" -l limit-rate -d 'Fetch chunks that no reader has requested at RATE bytes per second at most; with a suffix, KiB (K), MiB (M) or GiB (G) [default: no limit]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand fetch" -l platform -d 'Fetch the image of this platform, such as linux/arm64 [default: this machine\'s]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand fetch" -l creds -d 'Log in with this user name and password; other users of this host can see the command line' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand fetch" -l authfile -d 'Read the credentials from FILE [default: the files of \'podman login\' and \'docker login\']' -r -F
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand fetch" -l cert-dir -d 'Trust the CA certificates *.crt in DIR, too [default: certs.d/HOST:PORT of Podman and Docker]' -r -F
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand fetch" -l tls-verify -d 'Verify certificates; with \'false\', accept any, and plain HTTP' -r -f -a "true\t''
false\t''"
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand fetch" -l request-timeout -d 'Give up a request after N seconds without an answer, 1 to 3600' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand fetch" -l retries -d 'Repeat a failed request up to N times, 0 to 20, after pauses of 0.5 s to 16 s' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand fetch" -l transfers -d 'Transfer N blobs or ranges at once, 1 to 64' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand fetch" -l device -d 'Use this device, for tests' -r -F
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand fetch" -s q -l quiet -d 'Show no progress and no summary'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand fetch" -l all -d 'Continue the images of all stores in /var/lib/puzzlefs/lazy, and of those that /etc/puzzlefs/fetchd.conf names, one a line'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand fetch" -l background -d 'Serve in the background, for a parent that waits on standard output'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand fetch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand status" -l json -d 'Print one JSON object on standard output'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand du" -l json -d 'Print one JSON object on standard output'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand du" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand diff" -l json -d 'Print one JSON object on standard output'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand diff" -s h -l help -d 'Print help'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand gc" -l max-dead -d 'Rewrite packs of which more than PERCENT is dead data, that is, chunks that no image needs [0-100]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand gc" -s n -l dry-run -d 'Show the blobs that would be removed, and remove nothing'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand gc" -l no-wait -d 'Fail if builders use the store, instead of waiting for them'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand gc" -l json -d 'Print one JSON object on standard output'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand gc" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand repack" -l order -d 'Put the ranges of the start-up order in FILE first [default: that of the image]' -r -F
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand repack" -l json -d 'Print one JSON object on standard output'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand repack" -s q -l quiet -d 'Show no progress and no summary'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand repack" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand complete" -l new-manifest -d 'Replace the manifest if a pack cannot be built again'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand complete" -l json -d 'Print one JSON object on standard output'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand complete" -s q -l quiet -d 'Show no progress and no summary'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand complete" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand verify" -s j -l jobs -d 'Use N threads, 1 to 1024 [default: one per processor]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand verify" -l json -d 'Print one JSON object on standard output'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand verify" -s q -l quiet -d 'Show no progress and no summary'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand reindex" -s j -l jobs -d 'Use N threads, 1 to 1024 [default: one per processor]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand reindex" -l json -d 'Print one JSON object on standard output'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand reindex" -s q -l quiet -d 'Show no progress and no summary'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand reindex" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand enable-verity" -s j -l jobs -d 'Use N threads, 1 to 1024 [default: one per processor]' -r
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand enable-verity" -l json -d 'Print one JSON object on standard output'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand enable-verity" -s q -l quiet -d 'Show no progress and no summary'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand enable-verity" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand resolve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand completions" -s h -l help -d 'Print help'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand man" -s h -l help -d 'Print help'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "build" -d 'Build an image of a directory tree or a tar archive'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "import" -d 'Import a container image, in OCI or Docker format'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "convert" -d 'Convert an image to another version of the format, or a registry\'s container image'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "extract" -d 'Extract an image, or a part of it, into a directory'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "export" -d 'Export an image as a tar archive or as an ordinary OCI image'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "mount" -d 'Mount an image, read-only or writable, by the kernel module or over FUSE'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "umount" -d 'Unmount an image'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "record" -d 'Record which ranges of files a command reads when it starts'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "inspect" -d 'Show the properties of an image, or of a file in it'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "ls" -d 'List files in an image'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "cat" -d 'Write files of an image to standard output'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "list" -d 'List the images of a store'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "tag" -d 'Add a tag to an image'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "untag" -d 'Remove a tag'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "copy" -d 'Copy an image to another store: only missing blobs'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "push" -d 'Push an image to a registry or an object store: only blobs that it lacks'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "pull" -d 'Pull an image from a registry or an object store: only data that the store lacks'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "fetch" -d 'Fetch the chunks of an image while it is mounted: those first that are read'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "status" -d 'Show the parts of images that a store has, and what its fetcher does'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "du" -d 'Show the size of each image of a store, and the part it shares with others'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "diff" -d 'Show the paths in which two images differ, and the chunks they share'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "gc" -d 'Remove the blobs of a store that no image needs'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "repack" -d 'Put the chunks of an image together in few packs'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "complete" -d 'Create the packs that an image lacks, so that other tools can copy it'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "verify" -d 'Check an image or a whole store, and report every fault'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "reindex" -d 'Rebuild the chunk index of a store from its packs'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "enable-verity" -d 'Enable fs-verity on the blobs of an image or a whole store'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "resolve" -d 'Print the digest of an image\'s metadata, the kernel\'s \'rootfs=\' option'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "completions" -d 'Print completions for a shell'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "man" -d 'Write manual pages into a directory'
complete -c puzzlefs -n "__fish_puzzlefs_using_subcommand help; and not __fish_seen_subcommand_from build import convert extract export mount umount record inspect ls cat list tag untag copy push pull fetch status du diff gc repack complete verify reindex enable-verity resolve completions man help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
