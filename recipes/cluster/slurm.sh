#!/bin/bash
# Train on several hosts with Slurm: docs/howto-several-hosts.md
#     sbatch recipes/cluster/slurm.sh RECIPE RUN_DIR
# Each task is one worker: one per node. reszoo reads the hosts from Slurm's variables. If a worker
# was lost (status 200 or 142), the job is queued again and resumes, at most 10 times.
#SBATCH --job-name=reszoo
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
# For GPUs add the same number per node: #SBATCH --gpus-per-node=8
set -u
: "${2:?usage: sbatch slurm.sh RECIPE RUN_DIR}"

# Workers end by themselves when another is lost. --wait ends one that is frozen.
srun --kill-on-bad-exit=0 --wait=120 --distribution=block \
  reszoo train "$1" --run-dir "$2" --resume
status=$?
if [[ $status == 200 || $status == 142 ]] && ((${SLURM_RESTART_COUNT:-0} < 10)); then
  echo "a worker was lost; job $SLURM_JOB_ID is queued again"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
