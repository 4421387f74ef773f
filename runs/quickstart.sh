#!/usr/bin/env bash
# The quick start: synthetic lesions of 32 x 32 pixels, without any download.
#
#     bash runs/quickstart.sh
#
# Expected: GED16 0.239 and HM-IoU16 0.549 on the test split (0.239 and 0.542, 0.241 and 0.546 with the seeds 1 and 2);
# in float32, 4 min 17 s of training and 32 s of evaluation on two cores of an AMD EPYC (Zen 4).
set -euo pipefail
cd "$(dirname "$0")/.."

python ddpm_train.py params.yml output_path=logs/quickstart load_from=auto
python ddpm_eval.py params_eval.yml load_from=logs/quickstart/last.pt
