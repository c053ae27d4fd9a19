# SPDX-License-Identifier: MIT OR Apache-2.0
#compdef puzzlefs

autoload -U is-at-least

_puzzlefs() {
    typeset -A opt_args
    typeset -a _arguments_options
    local ret=1

    if is-at-least 5.2; then
        _arguments_options=(-s -S -C)
    else
        _arguments_options=(-s -C)
    fi

    local context curcontext="$curcontext" state line
    _arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
'-V[Print version]' \
'--version[Print version]' \
":: :_puzzlefs_commands" \
"*::: :->puzzlefs" \
&& ret=0
    case $state in
    (puzzlefs)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:puzzlefs-command-$line[1]:"
        case $line[1] in
            (build)
_arguments "${_arguments_options[@]}" : \
'--retry-changed=[Read files that change up to N times more, 0 to 1000 \[default\: 0\]]:N:_default' \
'*--exclude=[Leave out matching paths and everything below them (repeatable)]:PATTERN:_default' \
'(--uid-map --gid-map)--owner=[Give everything to one user and group]:UID:GID:_default' \
'*--uid-map=[Map user IDs FROM..FROM+COUNT to TO.. (repeatable; every ID must be covered)]:FROM:TO:COUNT:_default' \
'*--gid-map=[Map group IDs in the same way]:FROM:TO:COUNT:_default' \
'--source-date-epoch=[Lower modification times to at most this, in seconds since 1970]:SECONDS:_default' \
'*--xattrs=[Keep only matching extended attributes, drop those matching '\''!PATTERN'\'' (repeatable)]:PATTERN:_default' \
'--format=[Version of the image format, 3 or 4 \[default\: 4\]]:VERSION:_default' \
'(--fresh)--parent=[Reuse chunks of this image of the store \[default\: the image of the tag\]]:IMAGE:_default' \
'--order=[Put the ranges of the start-up order in FILE first in packs]:FILE|parent:_files' \
'--base=[Build on the image of this tag in the same store]:TAG:_default' \
'-z+[Compress with zstd, level 1 to 19; 0 stores raw data \[default without LEVEL\: 3\]]::LEVEL:_default' \
'--compress=[Compress with zstd, level 1 to 19; 0 stores raw data \[default without LEVEL\: 3\]]::LEVEL:_default' \
'--frame-size=[Set the minimum content of a frame, 4K to 256K \[default\: 128K\]]:SIZE:_default' \
'--chunk-size=[Set the average size of a chunk, 4K to 256K \[default\: 128K\]]:SIZE:_default' \
'-j+[Use N threads, 1 to 1024 \[default\: one per processor\]]:N:_default' \
'--jobs=[Use N threads, 1 to 1024 \[default\: one per processor\]]:N:_default' \
'--config=[Start from this file, in OCI'\''s JSON \[default\: that of the base\]]:FILE:_files' \
'--platform=[Name this platform \[default\: that of FILE, or this machine'\''s\]]:OS/ARCH[/VARIANT]:_default' \
'*--entrypoint=[Run this program (repeat per word, or a JSON array)]:WORD:_default' \
'*--cmd=[Pass these arguments to it (repeat per word, or a JSON array)]:WORD:_default' \
'*--env=[Set a variable of the environment (repeatable)]:KEY=VALUE:_default' \
'*--label=[Set a label (repeatable)]:KEY=VALUE:_default' \
'--user=[Run as this user, by name or number]:USER[:GROUP]:_default' \
'--workdir=[Start in this directory, an absolute path]:DIRECTORY:_default' \
'-x[Leave mount points below the directory empty]' \
'--one-file-system[Leave mount points below the directory empty]' \
'--ignore-zeros[Read an archive past zero blocks, to the end of its file]' \
'--skip-unreadable[Leave out and report unreadable files and directories'\'' contents]' \
'(--xattrs)--no-xattrs[Keep no extended attributes]' \
'--fresh[Store all chunks in new packs, even if the store has them]' \
'--check[Read blobs that the store already has, and replace damaged ones]' \
'--json[Print one JSON object on standard output]' \
'-q[Show no progress and no summary]' \
'--quiet[Show no progress and no summary]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':source -- Directory, or tar archive; '\''-'\'' reads an archive from standard input:_files' \
':image -- Store, created if it does not exist, and the tag to set:_default' \
&& ret=0
;;
(import)
_arguments "${_arguments_options[@]}" : \
'--platform=[Import the image of this platform, such as linux/arm64 \[default\: this machine'\''s\]]:OS/ARCH[/VARIANT]:_default' \
'*--exclude=[Leave out matching paths and everything below them (repeatable)]:PATTERN:_default' \
'(--uid-map --gid-map)--owner=[Give everything to one user and group]:UID:GID:_default' \
'*--uid-map=[Map user IDs FROM..FROM+COUNT to TO.. (repeatable; every ID must be covered)]:FROM:TO:COUNT:_default' \
'*--gid-map=[Map group IDs in the same way]:FROM:TO:COUNT:_default' \
'--source-date-epoch=[Lower modification times to at most this, in seconds since 1970]:SECONDS:_default' \
'*--xattrs=[Keep only matching extended attributes, drop those matching '\''!PATTERN'\'' (repeatable)]:PATTERN:_default' \
'--format=[Version of the image format, 3 or 4 \[default\: 4\]]:VERSION:_default' \
'(--fresh)--parent=[Reuse chunks of this image of the store \[default\: the image of the tag\]]:IMAGE:_default' \
'--order=[Put the ranges of the start-up order in FILE first in packs]:FILE|parent:_files' \
'--base=[Build on the image of this tag in the same store]:TAG:_default' \
'-z+[Compress with zstd, level 1 to 19; 0 stores raw data \[default without LEVEL\: 3\]]::LEVEL:_default' \
'--compress=[Compress with zstd, level 1 to 19; 0 stores raw data \[default without LEVEL\: 3\]]::LEVEL:_default' \
'--frame-size=[Set the minimum content of a frame, 4K to 256K \[default\: 128K\]]:SIZE:_default' \
'--chunk-size=[Set the average size of a chunk, 4K to 256K \[default\: 128K\]]:SIZE:_default' \
'-j+[Use N threads, 1 to 1024 \[default\: one per processor\]]:N:_default' \
'--jobs=[Use N threads, 1 to 1024 \[default\: one per processor\]]:N:_default' \
'--layers[Keep the image'\''s layers, instead of merging them into one \[format 3\]]' \
'(--xattrs)--no-xattrs[Keep no extended attributes]' \
'--fresh[Store all chunks in new packs, even if the store has them]' \
'--check[Read blobs that the store already has, and replace damaged ones]' \
'--json[Print one JSON object on standard output]' \
'-q[Show no progress and no summary]' \
'--quiet[Show no progress and no summary]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':source -- OCI image layout (directory or archive) or '\''docker save'\'' archive; '\''-'\'' reads an archive from standard input:_default' \
':image -- Store, created if it does not exist, and the tag to set:_default' \
&& ret=0
;;
(convert)
_arguments "${_arguments_options[@]}" : \
'*--exclude=[Leave out matching paths and everything below them (repeatable)]:PATTERN:_default' \
'(--uid-map --gid-map)--owner=[Give everything to one user and group]:UID:GID:_default' \
'*--uid-map=[Map user IDs FROM..FROM+COUNT to TO.. (repeatable; every ID must be covered)]:FROM:TO:COUNT:_default' \
'*--gid-map=[Map group IDs in the same way]:FROM:TO:COUNT:_default' \
'--source-date-epoch=[Lower modification times to at most this, in seconds since 1970]:SECONDS:_default' \
'*--xattrs=[Keep only matching extended attributes, drop those matching '\''!PATTERN'\'' (repeatable)]:PATTERN:_default' \
'--format=[Version of the image format, 3 or 4 \[default\: 4\]]:VERSION:_default' \
'(--fresh)--parent=[Reuse chunks of this image of the store \[default\: the image of the tag\]]:IMAGE:_default' \
'--order=[Put the ranges of the start-up order in FILE first in packs]:FILE|parent:_files' \
'--base=[Build on the image of this tag in the same store]:TAG:_default' \
'-z+[Compress with zstd, level 1 to 19; 0 stores raw data \[default without LEVEL\: 3\]]::LEVEL:_default' \
'--compress=[Compress with zstd, level 1 to 19; 0 stores raw data \[default without LEVEL\: 3\]]::LEVEL:_default' \
'--frame-size=[Set the minimum content of a frame, 4K to 256K \[default\: 128K\]]:SIZE:_default' \
'--chunk-size=[Set the average size of a chunk, 4K to 256K \[default\: 128K\]]:SIZE:_default' \
'-j+[Use N threads, 1 to 1024 \[default\: one per processor\]]:N:_default' \
'--jobs=[Use N threads, 1 to 1024 \[default\: one per processor\]]:N:_default' \
'*--platform=[Convert the images of these platforms of an index alone, such as linux/arm64 \[default\: all of Linux\]]:OS/ARCH[/VARIANT]:_default' \
'--store=[Keep the PuzzleFS images in this store, where the next version finds its chunks \[default\: none\]]:STORE:_files' \
'--src-creds=[Log in to IMAGE'\''s registry with this user name and password; --creds is for that of TARGET]:USER:PASSWORD:_default' \
'(--authfile)--creds=[Log in with this user name and password; other users of this host can see the command line]:USER:PASSWORD:_default' \
'--authfile=[Read the credentials from FILE \[default\: the files of '\''podman login'\'' and '\''docker login'\''\]]:FILE:_files' \
'--cert-dir=[Trust the CA certificates *.crt in DIR, too \[default\: certs.d/HOST\:PORT of Podman and Docker\]]:DIR:_files' \
'--tls-verify=[Verify certificates; with '\''false'\'', accept any, and plain HTTP]::BOOL:(true false)' \
'--request-timeout=[Give up a request after N seconds without an answer, 1 to 3600]:N:_default' \
'--retries=[Repeat a failed request up to N times, 0 to 20, after pauses of 0.5 s to 16 s]:N:_default' \
'--transfers=[Transfer N blobs or ranges at once, 1 to 64]:N:_default' \
'(--xattrs)--no-xattrs[Keep no extended attributes]' \
'--fresh[Store all chunks in new packs, even if the store has them]' \
'--check[Read blobs that the store already has, and replace damaged ones]' \
'--json[Print one JSON object on standard output]' \
'-q[Show no progress and no summary]' \
'--quiet[Show no progress and no summary]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':image -- Image, STORE\:TAG, STORE@sha256\:DIGEST, docker\://HOST/NAME\:TAG or s3\://BUCKET/PREFIX\:TAG:_default' \
'::target -- Store, created if it does not exist, and the tag to set; or docker\://HOST/NAME\:TAG, or s3\://BUCKET/PREFIX\:TAG \[default\: IMAGE\]:_default' \
&& ret=0
;;
(extract)
_arguments "${_arguments_options[@]}" : \
'--json[Print one JSON object on standard output]' \
'-q[Show no progress and no summary]' \
'--quiet[Show no progress and no summary]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':image -- Image, and the file or directory of it to extract \[default\: all of it\]:_default' \
':directory -- Directory to extract into; must be empty or not exist:_files' \
&& ret=0
;;
(export)
_arguments "${_arguments_options[@]}" : \
'(--oci)-o+[Write the archive to this file instead of standard output]:FILE:_files' \
'(--oci)--output=[Write the archive to this file instead of standard output]:FILE:_files' \
'--oci=[Write an OCI image with one layer into this layout, created if it does not exist \[default for TAG\: the image'\''s\]]:DIR[:TAG]:_default' \
'-c+[Compress the archive or layer \[default\: none for an archive, gzip for a layer\]]:METHOD:((none\:"No compression"
gzip\:"gzip"
zstd\:"zstd"))' \
'--compress=[Compress the archive or layer \[default\: none for an archive, gzip for a layer\]]:METHOD:((none\:"No compression"
gzip\:"gzip"
zstd\:"zstd"))' \
'--platform=[Set the platform of the OCI image \[default\: the image'\''s, otherwise this machine'\''s\]]:OS/ARCH[/VARIANT]:_default' \
'--json[Print one JSON object on standard output]' \
'-q[Show no progress and no summary]' \
'--quiet[Show no progress and no summary]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':image -- Image, and the file or directory of it to export \[default\: all of it\]:_default' \
&& ret=0
;;
(mount)
_arguments "${_arguments_options[@]}" : \
'*-o+[Set mount options, separated by commas (repeatable)]:OPTIONS:_default' \
'*--options=[Set mount options, separated by commas (repeatable)]:OPTIONS:_default' \
'--verify=[Choose how data is verified when it is read \[default\: none, with digest= fsverity\]]:MODE:((none\:"No verification"
fsverity\:"By the kernel, for blobs with fs-verity ('\''puzzlefs enable-verity'\'')"
digest\:"By SHA-256, on any filesystem; not over FUSE"))' \
'-w+[Make the mount writable by an overlay]::UPPERDIR:_files' \
'--writable=[Make the mount writable by an overlay]::UPPERDIR:_files' \
'--store=[Store for the image, and the tag to set there \[default\: a directory for the image in /var/lib/puzzlefs/lazy; for TAG\: the image'\''s\]]:STORE[:TAG]:_default' \
'--complete=[Choose when chunks are fetched that no reader has requested]:WHEN:((now\:"At once, beside requests, which come first"
idle\:"After 1 s without requests, one range at a time"
never\:"Not at all\: requests are served until SIGTERM or SIGINT"))' \
'--limit-rate=[Fetch chunks that no reader has requested at RATE bytes per second at most; with a suffix, KiB (K), MiB (M) or GiB (G) \[default\: no limit\]]:RATE:_default' \
'--authfile=[Read the credentials from FILE \[default\: the files of '\''podman login'\'' and '\''docker login'\''\]]:FILE:_files' \
'--cert-dir=[Trust the CA certificates *.crt in DIR, too \[default\: certs.d/HOST\:PORT of Podman and Docker\]]:DIR:_files' \
'--tls-verify=[Verify certificates; with '\''false'\'', accept any, and plain HTTP]::BOOL:(true false)' \
'--request-timeout=[Give up a request after N seconds without an answer, 1 to 3600]:N:_default' \
'--retries=[Repeat a failed request up to N times, 0 to 20, after pauses of 0.5 s to 16 s]:N:_default' \
'--transfers=[Transfer N blobs or ranges at once, 1 to 64]:N:_default' \
'--fuse[Serve the image over FUSE, for a kernel without the module, or as an ordinary user]' \
'(-w --writable)-f[Serve it in the foreground until it is unmounted, and report errors]' \
'(-w --writable)--foreground[Serve it in the foreground until it is unmounted, and report errors]' \
'(-f --foreground -w --writable)--background[Be the server in the background, for a parent that waits on standard output]' \
'(--fuse -w --writable)--lazy[Mount an image of a registry or an object store before its data has arrived]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':image -- Image, STORE\:TAG or STORE@sha256\:DIGEST:_default' \
':directory -- Mount point:_files' \
&& ret=0
;;
(umount)
_arguments "${_arguments_options[@]}" : \
'-l[Detach a busy mount now, and unmount it when its last user has finished]' \
'--lazy[Detach a busy mount now, and unmount it when its last user has finished]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':directory -- Mount point of the image:_files' \
&& ret=0
;;
(record)
_arguments "${_arguments_options[@]}" : \
'-o+[Write the order to FILE \[default\: standard output\]]:FILE:_files' \
'--output=[Write the order to FILE \[default\: standard output\]]:FILE:_files' \
'--timeout=[End COMMAND and its processes after SECONDS, 1 to 86400 \[default\: wait for its end\]]:SECONDS:_default' \
'-w+[Run COMMAND in DIRECTORY \[default\: as the image'\''s configuration has it\]]:DIRECTORY:_files' \
'--workdir=[Run COMMAND in DIRECTORY \[default\: as the image'\''s configuration has it\]]:DIRECTORY:_files' \
'--inside=[Be the first process in this root directory]:DIR:_files' \
'--repack[Repack the image with the order, as '\''puzzlefs repack --order'\'' does]' \
'-q[Show no progress and no summary]' \
'--quiet[Show no progress and no summary]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':image -- Image, STORE\:TAG or STORE@sha256\:DIGEST:_default' \
'*::command -- Program and its arguments \[default\: entry point and command of the image\]:_default' \
&& ret=0
;;
(inspect)
_arguments "${_arguments_options[@]}" : \
'--json[Print one JSON object on standard output]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':image -- Image, STORE\:TAG or STORE@sha256\:DIGEST:_default' \
'::path -- File in the image\: show its inode, extended attributes and extents:_default' \
&& ret=0
;;
(ls)
_arguments "${_arguments_options[@]}" : \
'-l[Show mode, links, owner, group, size and time (UTC) too]' \
'--long[Show mode, links, owner, group, size and time (UTC) too]' \
'-R[List everything below a directory, each with its path from there]' \
'--recursive[List everything below a directory, each with its path from there]' \
'--json[Print one JSON object per file on standard output]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':image -- Image, STORE\:TAG or STORE@sha256\:DIGEST:_default' \
'::path -- Directory or file, from the image'\''s root:_default' \
&& ret=0
;;
(cat)
_arguments "${_arguments_options[@]}" : \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':image -- Image, STORE\:TAG or STORE@sha256\:DIGEST:_default' \
'*::paths -- Paths from the image'\''s root; symbolic links are followed within the image:_default' \
&& ret=0
;;
(list)
_arguments "${_arguments_options[@]}" : \
'--json[Print one JSON object per image on standard output]' \
'-h[Print help]' \
'--help[Print help]' \
':store -- Directory of the store, an OCI image layout:_files' \
&& ret=0
;;
(images)
_arguments "${_arguments_options[@]}" : \
'--json[Print one JSON object per image on standard output]' \
'-h[Print help]' \
'--help[Print help]' \
':store -- Directory of the store, an OCI image layout:_files' \
&& ret=0
;;
(tag)
_arguments "${_arguments_options[@]}" : \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':image -- Image, STORE\:TAG or STORE@sha256\:DIGEST:_default' \
':tag -- Tag to set in the same store; a tag of another image is moved:_default' \
&& ret=0
;;
(untag)
_arguments "${_arguments_options[@]}" : \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':image -- Image, STORE\:TAG or STORE@sha256\:DIGEST:_default' \
&& ret=0
;;
(copy)
_arguments "${_arguments_options[@]}" : \
'-j+[Use N threads, 1 to 1024 \[default\: one per processor\]]:N:_default' \
'--jobs=[Use N threads, 1 to 1024 \[default\: one per processor\]]:N:_default' \
'-a[Copy all images of the store that have tags]' \
'--all[Copy all images of the store that have tags]' \
'--check[Read blobs that the store already has, and replace damaged ones]' \
'--whole-packs[Copy whole packs, also if the store has a part of their chunks]' \
'--json[Print one JSON object on standard output]' \
'-q[Show no progress and no summary]' \
'--quiet[Show no progress and no summary]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':image -- Image, STORE\:TAG or STORE@sha256\:DIGEST; with --all, the directory of a store:_default' \
':target -- Store, created if it does not exist, and the tag to set there \[default for TAG\: the image'\''s\]:_default' \
&& ret=0
;;
(push)
_arguments "${_arguments_options[@]}" : \
'--mount-from=[Take blobs from this repository of the same registry, if it has them and the registry permits it]:NAME:_default' \
'(--authfile)--creds=[Log in with this user name and password; other users of this host can see the command line]:USER:PASSWORD:_default' \
'--authfile=[Read the credentials from FILE \[default\: the files of '\''podman login'\'' and '\''docker login'\''\]]:FILE:_files' \
'--cert-dir=[Trust the CA certificates *.crt in DIR, too \[default\: certs.d/HOST\:PORT of Podman and Docker\]]:DIR:_files' \
'--tls-verify=[Verify certificates; with '\''false'\'', accept any, and plain HTTP]::BOOL:(true false)' \
'--request-timeout=[Give up a request after N seconds without an answer, 1 to 3600]:N:_default' \
'--retries=[Repeat a failed request up to N times, 0 to 20, after pauses of 0.5 s to 16 s]:N:_default' \
'--transfers=[Transfer N blobs or ranges at once, 1 to 64]:N:_default' \
'--json[Print one JSON object on standard output]' \
'-q[Show no progress and no summary]' \
'--quiet[Show no progress and no summary]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':image -- Image, STORE\:TAG or STORE@sha256\:DIGEST:_default' \
':target -- Name in a registry, docker\://HOST\:PORT/NAME\:TAG, or the address of an image layout in an object store, s3\://BUCKET/PREFIX\:TAG, gs\://…, az\://…, abfs\://… or file\:///… \[default for TAG\: latest\]:_default' \
&& ret=0
;;
(pull)
_arguments "${_arguments_options[@]}" : \
'--platform=[Pull the image of this platform, such as linux/arm64 \[default\: this machine'\''s\]]:OS/ARCH[/VARIANT]:_default' \
'-j+[Use N threads, 1 to 1024 \[default\: one per processor\]]:N:_default' \
'--jobs=[Use N threads, 1 to 1024 \[default\: one per processor\]]:N:_default' \
'(--authfile)--creds=[Log in with this user name and password; other users of this host can see the command line]:USER:PASSWORD:_default' \
'--authfile=[Read the credentials from FILE \[default\: the files of '\''podman login'\'' and '\''docker login'\''\]]:FILE:_files' \
'--cert-dir=[Trust the CA certificates *.crt in DIR, too \[default\: certs.d/HOST\:PORT of Podman and Docker\]]:DIR:_files' \
'--tls-verify=[Verify certificates; with '\''false'\'', accept any, and plain HTTP]::BOOL:(true false)' \
'--request-timeout=[Give up a request after N seconds without an answer, 1 to 3600]:N:_default' \
'--retries=[Repeat a failed request up to N times, 0 to 20, after pauses of 0.5 s to 16 s]:N:_default' \
'--transfers=[Transfer N blobs or ranges at once, 1 to 64]:N:_default' \
'--json[Print one JSON object on standard output]' \
'-q[Show no progress and no summary]' \
'--quiet[Show no progress and no summary]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':image -- Image in a registry, docker\://HOST\:PORT/NAME\:TAG or docker\://HOST\:PORT/NAME@sha256\:DIGEST, or in an image layout at the address s3\://BUCKET/PREFIX\:TAG, gs\://…, az\://…, abfs\://…, file\:///… or https\://HOST/PATH\:TAG \[default for TAG\: latest\]:_default' \
':target -- Store, created if it does not exist, and the tag to set there \[default for TAG\: the image'\''s\]:_default' \
&& ret=0
;;
(fetch)
_arguments "${_arguments_options[@]}" : \
'--complete=[Choose when chunks are fetched that no reader has requested]:WHEN:((now\:"At once, beside requests, which come first"
idle\:"After 1 s without requests, one range at a time"
never\:"Not at all\: requests are served until SIGTERM or SIGINT"))' \
'--limit-rate=[Fetch chunks that no reader has requested at RATE bytes per second at most; with a suffix, KiB (K), MiB (M) or GiB (G) \[default\: no limit\]]:RATE:_default' \
'--platform=[Fetch the image of this platform, such as linux/arm64 \[default\: this machine'\''s\]]:OS/ARCH[/VARIANT]:_default' \
'(--authfile)--creds=[Log in with this user name and password; other users of this host can see the command line]:USER:PASSWORD:_default' \
'--authfile=[Read the credentials from FILE \[default\: the files of '\''podman login'\'' and '\''docker login'\''\]]:FILE:_files' \
'--cert-dir=[Trust the CA certificates *.crt in DIR, too \[default\: certs.d/HOST\:PORT of Podman and Docker\]]:DIR:_files' \
'--tls-verify=[Verify certificates; with '\''false'\'', accept any, and plain HTTP]::BOOL:(true false)' \
'--request-timeout=[Give up a request after N seconds without an answer, 1 to 3600]:N:_default' \
'--retries=[Repeat a failed request up to N times, 0 to 20, after pauses of 0.5 s to 16 s]:N:_default' \
'--transfers=[Transfer N blobs or ranges at once, 1 to 64]:N:_default' \
'--device=[Use this device, for tests]:PATH:_files' \
'-q[Show no progress and no summary]' \
'--quiet[Show no progress and no summary]' \
'(--background --platform)--all[Continue the images of all stores in /var/lib/puzzlefs/lazy, and of those that /etc/puzzlefs/fetchd.conf names, one a line]' \
'--background[Serve in the background, for a parent that waits on standard output]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'::image -- Image in a registry, docker\://HOST\:PORT/NAME\:TAG or docker\://HOST\:PORT/NAME@sha256\:DIGEST, or in an image layout at the address s3\://BUCKET/PREFIX\:TAG, gs\://…, az\://…, abfs\://…, file\:///… or https\://HOST/PATH\:TAG \[default for TAG\: latest\]; or the store whose images are continued:_default' \
'::target -- Store, created if it does not exist, and the tag to set there \[default for TAG\: the image'\''s\]:_default' \
&& ret=0
;;
(status)
_arguments "${_arguments_options[@]}" : \
'--json[Print one JSON object on standard output]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':store -- Directory of the store, an OCI image layout:_files' \
&& ret=0
;;
(du)
_arguments "${_arguments_options[@]}" : \
'--json[Print one JSON object on standard output]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':store -- Directory of the store, an OCI image layout:_files' \
&& ret=0
;;
(diff)
_arguments "${_arguments_options[@]}" : \
'--json[Print one JSON object on standard output]' \
'-h[Print help]' \
'--help[Print help]' \
':old -- Old image, STORE\:TAG or STORE@sha256\:DIGEST:_default' \
':new -- New image, of the same store or another:_default' \
&& ret=0
;;
(gc)
_arguments "${_arguments_options[@]}" : \
'--max-dead=[Rewrite packs of which more than PERCENT is dead data, that is, chunks that no image needs \[0-100\]]:PERCENT:_default' \
'-n[Show the blobs that would be removed, and remove nothing]' \
'--dry-run[Show the blobs that would be removed, and remove nothing]' \
'--no-wait[Fail if builders use the store, instead of waiting for them]' \
'--json[Print one JSON object on standard output]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':store -- Directory of the store, an OCI image layout:_files' \
&& ret=0
;;
(repack)
_arguments "${_arguments_options[@]}" : \
'--order=[Put the ranges of the start-up order in FILE first \[default\: that of the image\]]:FILE:_files' \
'--json[Print one JSON object on standard output]' \
'-q[Show no progress and no summary]' \
'--quiet[Show no progress and no summary]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':image -- Image, STORE\:TAG or STORE@sha256\:DIGEST:_default' \
&& ret=0
;;
(complete)
_arguments "${_arguments_options[@]}" : \
'--new-manifest[Replace the manifest if a pack cannot be built again]' \
'--json[Print one JSON object on standard output]' \
'-q[Show no progress and no summary]' \
'--quiet[Show no progress and no summary]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':image -- Image, STORE\:TAG or STORE@sha256\:DIGEST:_default' \
&& ret=0
;;
(verify)
_arguments "${_arguments_options[@]}" : \
'-j+[Use N threads, 1 to 1024 \[default\: one per processor\]]:N:_default' \
'--jobs=[Use N threads, 1 to 1024 \[default\: one per processor\]]:N:_default' \
'--json[Print one JSON object on standard output]' \
'-q[Show no progress and no summary]' \
'--quiet[Show no progress and no summary]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':name -- Image, STORE\:TAG or STORE@sha256\:DIGEST, or the directory of a store:_default' \
&& ret=0
;;
(reindex)
_arguments "${_arguments_options[@]}" : \
'-j+[Use N threads, 1 to 1024 \[default\: one per processor\]]:N:_default' \
'--jobs=[Use N threads, 1 to 1024 \[default\: one per processor\]]:N:_default' \
'--json[Print one JSON object on standard output]' \
'-q[Show no progress and no summary]' \
'--quiet[Show no progress and no summary]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':store -- Directory of the store, an OCI image layout:_files' \
&& ret=0
;;
(enable-verity)
_arguments "${_arguments_options[@]}" : \
'-j+[Use N threads, 1 to 1024 \[default\: one per processor\]]:N:_default' \
'--jobs=[Use N threads, 1 to 1024 \[default\: one per processor\]]:N:_default' \
'--json[Print one JSON object on standard output]' \
'-q[Show no progress and no summary]' \
'--quiet[Show no progress and no summary]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':name -- Image, STORE\:TAG or STORE@sha256\:DIGEST, or the directory of a store:_default' \
&& ret=0
;;
(resolve)
_arguments "${_arguments_options[@]}" : \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':image -- Image, STORE\:TAG or STORE@sha256\:DIGEST:_default' \
&& ret=0
;;
(completions)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
':shell -- Shell that reads the completions:(bash elvish fish powershell zsh)' \
&& ret=0
;;
(man)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
':directory -- Directory for the pages, created if it does not exist:_files' \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
":: :_puzzlefs__subcmd__help_commands" \
"*::: :->help" \
&& ret=0

    case $state in
    (help)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:puzzlefs-help-command-$line[1]:"
        case $line[1] in
            (build)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(import)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(convert)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(extract)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(export)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(mount)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(umount)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(record)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(inspect)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(ls)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(cat)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(list)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(tag)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(untag)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(copy)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(push)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(pull)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(fetch)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(status)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(du)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(diff)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(gc)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(repack)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(complete)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(verify)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(reindex)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(enable-verity)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(resolve)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(completions)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(man)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
        esac
    ;;
esac
}

(( $+functions[_puzzlefs_commands] )) ||
_puzzlefs_commands() {
    local commands; commands=(
'build:Build an image of a directory tree or a tar archive' \
'import:Import a container image, in OCI or Docker format' \
'convert:Convert an image to another version of the format, or a registry'\''s container image' \
'extract:Extract an image, or a part of it, into a directory' \
'export:Export an image as a tar archive or as an ordinary OCI image' \
'mount:Mount an image, read-only or writable, by the kernel module or over FUSE' \
'umount:Unmount an image' \
'record:Record which ranges of files a command reads when it starts' \
'inspect:Show the properties of an image, or of a file in it' \
'ls:List files in an image' \
'cat:Write files of an image to standard output' \
'list:List the images of a store' \
'images:List the images of a store' \
'tag:Add a tag to an image' \
'untag:Remove a tag' \
'copy:Copy an image to another store\: only missing blobs' \
'push:Push an image to a registry or an object store\: only blobs that it lacks' \
'pull:Pull an image from a registry or an object store\: only data that the store lacks' \
'fetch:Fetch the chunks of an image while it is mounted\: those first that are read' \
'status:Show the parts of images that a store has, and what its fetcher does' \
'du:Show the size of each image of a store, and the part it shares with others' \
'diff:Show the paths in which two images differ, and the chunks they share' \
'gc:Remove the blobs of a store that no image needs' \
'repack:Put the chunks of an image together in few packs' \
'complete:Create the packs that an image lacks, so that other tools can copy it' \
'verify:Check an image or a whole store, and report every fault' \
'reindex:Rebuild the chunk index of a store from its packs' \
'enable-verity:Enable fs-verity on the blobs of an image or a whole store' \
'resolve:Print the digest of an image'\''s metadata, the kernel'\''s '\''rootfs='\'' option' \
'completions:Print completions for a shell' \
'man:Write manual pages into a directory' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'puzzlefs commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__build_commands] )) ||
_puzzlefs__subcmd__build_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs build commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__cat_commands] )) ||
_puzzlefs__subcmd__cat_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs cat commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__complete_commands] )) ||
_puzzlefs__subcmd__complete_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs complete commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__completions_commands] )) ||
_puzzlefs__subcmd__completions_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs completions commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__convert_commands] )) ||
_puzzlefs__subcmd__convert_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs convert commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__copy_commands] )) ||
_puzzlefs__subcmd__copy_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs copy commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__diff_commands] )) ||
_puzzlefs__subcmd__diff_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs diff commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__du_commands] )) ||
_puzzlefs__subcmd__du_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs du commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__enable-verity_commands] )) ||
_puzzlefs__subcmd__enable-verity_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs enable-verity commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__export_commands] )) ||
_puzzlefs__subcmd__export_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs export commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__extract_commands] )) ||
_puzzlefs__subcmd__extract_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs extract commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__fetch_commands] )) ||
_puzzlefs__subcmd__fetch_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs fetch commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__gc_commands] )) ||
_puzzlefs__subcmd__gc_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs gc commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help_commands] )) ||
_puzzlefs__subcmd__help_commands() {
    local commands; commands=(
'build:Build an image of a directory tree or a tar archive' \
'import:Import a container image, in OCI or Docker format' \
'convert:Convert an image to another version of the format, or a registry'\''s container image' \
'extract:Extract an image, or a part of it, into a directory' \
'export:Export an image as a tar archive or as an ordinary OCI image' \
'mount:Mount an image, read-only or writable, by the kernel module or over FUSE' \
'umount:Unmount an image' \
'record:Record which ranges of files a command reads when it starts' \
'inspect:Show the properties of an image, or of a file in it' \
'ls:List files in an image' \
'cat:Write files of an image to standard output' \
'list:List the images of a store' \
'tag:Add a tag to an image' \
'untag:Remove a tag' \
'copy:Copy an image to another store\: only missing blobs' \
'push:Push an image to a registry or an object store\: only blobs that it lacks' \
'pull:Pull an image from a registry or an object store\: only data that the store lacks' \
'fetch:Fetch the chunks of an image while it is mounted\: those first that are read' \
'status:Show the parts of images that a store has, and what its fetcher does' \
'du:Show the size of each image of a store, and the part it shares with others' \
'diff:Show the paths in which two images differ, and the chunks they share' \
'gc:Remove the blobs of a store that no image needs' \
'repack:Put the chunks of an image together in few packs' \
'complete:Create the packs that an image lacks, so that other tools can copy it' \
'verify:Check an image or a whole store, and report every fault' \
'reindex:Rebuild the chunk index of a store from its packs' \
'enable-verity:Enable fs-verity on the blobs of an image or a whole store' \
'resolve:Print the digest of an image'\''s metadata, the kernel'\''s '\''rootfs='\'' option' \
'completions:Print completions for a shell' \
'man:Write manual pages into a directory' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'puzzlefs help commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__build_commands] )) ||
_puzzlefs__subcmd__help__subcmd__build_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help build commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__cat_commands] )) ||
_puzzlefs__subcmd__help__subcmd__cat_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help cat commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__complete_commands] )) ||
_puzzlefs__subcmd__help__subcmd__complete_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help complete commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__completions_commands] )) ||
_puzzlefs__subcmd__help__subcmd__completions_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help completions commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__convert_commands] )) ||
_puzzlefs__subcmd__help__subcmd__convert_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help convert commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__copy_commands] )) ||
_puzzlefs__subcmd__help__subcmd__copy_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help copy commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__diff_commands] )) ||
_puzzlefs__subcmd__help__subcmd__diff_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help diff commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__du_commands] )) ||
_puzzlefs__subcmd__help__subcmd__du_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help du commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__enable-verity_commands] )) ||
_puzzlefs__subcmd__help__subcmd__enable-verity_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help enable-verity commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__export_commands] )) ||
_puzzlefs__subcmd__help__subcmd__export_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help export commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__extract_commands] )) ||
_puzzlefs__subcmd__help__subcmd__extract_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help extract commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__fetch_commands] )) ||
_puzzlefs__subcmd__help__subcmd__fetch_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help fetch commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__gc_commands] )) ||
_puzzlefs__subcmd__help__subcmd__gc_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help gc commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__help_commands] )) ||
_puzzlefs__subcmd__help__subcmd__help_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help help commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__import_commands] )) ||
_puzzlefs__subcmd__help__subcmd__import_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help import commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__inspect_commands] )) ||
_puzzlefs__subcmd__help__subcmd__inspect_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help inspect commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__list_commands] )) ||
_puzzlefs__subcmd__help__subcmd__list_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help list commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__ls_commands] )) ||
_puzzlefs__subcmd__help__subcmd__ls_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help ls commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__man_commands] )) ||
_puzzlefs__subcmd__help__subcmd__man_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help man commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__mount_commands] )) ||
_puzzlefs__subcmd__help__subcmd__mount_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help mount commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__pull_commands] )) ||
_puzzlefs__subcmd__help__subcmd__pull_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help pull commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__push_commands] )) ||
_puzzlefs__subcmd__help__subcmd__push_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help push commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__record_commands] )) ||
_puzzlefs__subcmd__help__subcmd__record_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help record commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__reindex_commands] )) ||
_puzzlefs__subcmd__help__subcmd__reindex_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help reindex commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__repack_commands] )) ||
_puzzlefs__subcmd__help__subcmd__repack_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help repack commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__resolve_commands] )) ||
_puzzlefs__subcmd__help__subcmd__resolve_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help resolve commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__status_commands] )) ||
_puzzlefs__subcmd__help__subcmd__status_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help status commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__tag_commands] )) ||
_puzzlefs__subcmd__help__subcmd__tag_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help tag commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__umount_commands] )) ||
_puzzlefs__subcmd__help__subcmd__umount_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help umount commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__untag_commands] )) ||
_puzzlefs__subcmd__help__subcmd__untag_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help untag commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__help__subcmd__verify_commands] )) ||
_puzzlefs__subcmd__help__subcmd__verify_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs help verify commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__import_commands] )) ||
_puzzlefs__subcmd__import_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs import commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__inspect_commands] )) ||
_puzzlefs__subcmd__inspect_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs inspect commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__list_commands] )) ||
_puzzlefs__subcmd__list_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs list commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__ls_commands] )) ||
_puzzlefs__subcmd__ls_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs ls commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__man_commands] )) ||
_puzzlefs__subcmd__man_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs man commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__mount_commands] )) ||
_puzzlefs__subcmd__mount_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs mount commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__pull_commands] )) ||
_puzzlefs__subcmd__pull_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs pull commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__push_commands] )) ||
_puzzlefs__subcmd__push_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs push commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__record_commands] )) ||
_puzzlefs__subcmd__record_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs record commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__reindex_commands] )) ||
_puzzlefs__subcmd__reindex_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs reindex commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__repack_commands] )) ||
_puzzlefs__subcmd__repack_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs repack commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__resolve_commands] )) ||
_puzzlefs__subcmd__resolve_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs resolve commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__status_commands] )) ||
_puzzlefs__subcmd__status_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs status commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__tag_commands] )) ||
_puzzlefs__subcmd__tag_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs tag commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__umount_commands] )) ||
_puzzlefs__subcmd__umount_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs umount commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__untag_commands] )) ||
_puzzlefs__subcmd__untag_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs untag commands' commands "$@"
}
(( $+functions[_puzzlefs__subcmd__verify_commands] )) ||
_puzzlefs__subcmd__verify_commands() {
    local commands; commands=()
    _describe -t commands 'puzzlefs verify commands' commands "$@"
}

if [ "$funcstack[1]" = "_puzzlefs" ]; then
    _puzzlefs "$@"
else
    compdef _puzzlefs puzzlefs
fi
