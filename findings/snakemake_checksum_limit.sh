#!/usr/bin/env bash
# snakemake 9.27.1: an unchanged file with a newer time runs the rules after it again if it is over a megabyte
#
# Snakemake records checksums of input files, and a newer file with the content of before runs nothing again. Whoever tries that
# with small files will rely on it. Above a limit, time alone decides: a checkpoint that was copied or restored exports and
# predicts again. Only the help of `--max-checksum-file-size`, which raises the limit, says so.
#
# Seen, after `touch` of both inputs: small: nothing to do; large: "Updated input files"; with the option: nothing to do.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q snakemake==9.27.1
cd "$work"
cat >Snakefile <<'SNAKEMAKE'
rule copy:
    input: "{name}.in"
    output: "{name}.out"
    shell: "cp {input} {output}"
SNAKEMAKE
head -c 100000 /dev/zero >small.in
head -c 2000000 /dev/zero >large.in

after_touch() { # of the input of $1; further options of snakemake follow
    "$work/venv/bin/snakemake" --quiet all --cores 1 "$@"
    sleep 1.1
    touch "${1%.out}.in"
    "$work/venv/bin/snakemake" --dry-run "$@" >said 2>&1
    grep -o -e "Nothing to be done" -e "Updated input files" said | sort -u || cat said >&2
}

small=$(after_touch small.out)
large=$(after_touch large.out)
with_option=$(after_touch large.out --max-checksum-file-size 5000000)
echo "small: $small; large: $large; large, with the option: $with_option"
[ "$small" = "Nothing to be done" ] && [ "$large" = "Updated input files" ] && [ "$with_option" = "Nothing to be done" ]
