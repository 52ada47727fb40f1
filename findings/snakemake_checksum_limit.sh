#!/usr/bin/env bash
# snakemake 9.27.1: a file that is written again with the same content runs the rules after it again if it is large
#
# Snakemake records checksums of input files, and a newer file with the content of before runs nothing again, which can be
# relied on while one tries it with small files. Above 1,000,000 bytes, time alone decides: a copied or restored
# checkpoint trains, exports and predicts again. `--max-checksum-file-size` raises the limit, from the run on that has it.
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
    grep -o -e "Nothing to be done" -e "Updated input files" said | sort -u
}

small=$(after_touch small.out)
large=$(after_touch large.out)
with_option=$(after_touch large.out --max-checksum-file-size 5000000)
echo "small: $small; large: $large; large, with the option: $with_option"
[ "$small" = "Nothing to be done" ] && [ "$large" = "Updated input files" ] && [ "$with_option" = "Nothing to be done" ]
