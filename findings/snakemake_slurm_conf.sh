#!/usr/bin/env bash
# snakemake-executor-plugin-slurm-jobstep 0.6.1, snakemake 9.27.1: jobs lose SLURM_CONF, so that srun finds no cluster
#
# The plugin runs each job on its node with `srun`, and first removes from the environment all variables that begin with
# SLURM_, except for ten that name the job. SLURM_CONF is not among the ten. Where Slurm's configuration is found by that
# variable alone, sbatch, squeue and sacct work, each job starts, and its srun ends with "Could not establish a
# configuration source" (seen with Slurm 22.05.8); Snakemake says "Reason: Unknown". Here srun is a script that notes what
# it is given.
#
# Seen: submitted with: SLURM_CONF SLURM_JOB_ID SLURM_SUBMIT_DIR; srun has: SLURM_JOB_ID SLURM_SUBMIT_DIR
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q snakemake==9.27.1 snakemake-executor-plugin-slurm-jobstep==0.6.1
mkdir "$work/bin"
cat >"$work/bin/srun" <<'SRUN'
#!/usr/bin/env bash
env | sed -n 's/^\(SLURM_[A-Z_]*\)=.*/\1/p' | sort | paste -sd' ' >seen
while [[ $1 == -* ]]; do shift; done
exec "$@"
SRUN
chmod +x "$work/bin/srun"
cat >"$work/Snakefile" <<'RULES'
rule one:
    output: "one"
    shell: "touch {output}"
RULES
cd "$work"
export SLURM_CONF=/opt/slurm/slurm.conf SLURM_JOB_ID=1 SLURM_SUBMIT_DIR=$work PATH=$work/bin:$PATH
"$work/venv/bin/snakemake" --executor slurm-jobstep --mode remote --jobs 1 &>log || { cat log && exit 1; }
echo "submitted with: SLURM_CONF SLURM_JOB_ID SLURM_SUBMIT_DIR; srun has: $(cat seen)"
[ "$(cat seen)" = "SLURM_JOB_ID SLURM_SUBMIT_DIR" ]
