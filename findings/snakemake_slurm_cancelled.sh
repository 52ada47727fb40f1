#!/usr/bin/env bash
# snakemake-executor-plugin-slurm 2.8.0, snakemake 9.27.1: a job cancelled with `scancel` counts as running
#
# The plugin compares the state that sacct prints with the word CANCELLED. For a job that a user has cancelled, sacct prints
# "CANCELLED by 1000", the number of that user (seen with Slurm 22.05.8), so Snakemake goes on waiting for the job: other
# branches end, and then it looks every 180 seconds. With `--slurm-status-command squeue` the state is CANCELLED, and the
# job fails at the next look. Here Slurm's commands are scripts; sacct prints "CANCELLED by 1000" twice, then CANCELLED.
#
# Seen: looks at a job that sacct calls CANCELLED by 1000: 2, failed: 0; CANCELLED: 1, failed: 1
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q snakemake==9.27.1 snakemake-executor-plugin-slurm==2.8.0
mkdir "$work/bin"
cd "$work"
cat >bin/sacct <<'SACCT'
#!/usr/bin/env bash
[[ " $* " == *" --name "* ]] || exit 1 # another question than that for the states of all jobs
if [ "$(cat looks 2>/dev/null | wc -l)" -lt 2 ]; then state="CANCELLED by 1000"; else state=CANCELLED; fi
echo "$state" >>looks
echo "7|$state"
SACCT
echo 'echo 7' >bin/sbatch
echo 'echo "MinJobAge = 300 sec"' >bin/scontrol
for name in sinfo squeue scancel sacctmgr sshare; do echo 'exit 0' >"bin/$name"; done
for name in sbatch scontrol sinfo squeue scancel sacctmgr sshare; do sed -i '1i #!/usr/bin/env bash' "bin/$name"; done
chmod +x bin/*
cat >Snakefile <<'RULES'
rule one:
    output: "one"
    shell: "touch {output}"
RULES
PATH=$work/bin:$PATH timeout 300 "$work/venv/bin/snakemake" --executor slurm --jobs 1 --slurm-status-command sacct \
    --slurm-init-seconds-before-status-checks 1 --default-resources mem_mb=100 runtime=1 &>log || true
by=$(grep -c "by 1000" looks) plain=$(grep -vc "by 1000" looks) failed=$(grep -c "^Error in rule one" log)
echo "looks at a job that sacct calls CANCELLED by 1000: $by, failed: $((failed - plain)); CANCELLED: $plain, failed: $failed"
[ "$by $plain $failed" = "2 1 1" ] || { cat log && exit 1; }
