#!/usr/bin/env bash
# LIDC on a CPU with a small network: 2.9 M parameters, 0.8 GFLOP per label map and step, 400,000 images.
#
#     bash runs/lidc_cpu.sh data_lidc.hdf5
#
# Repeating the command resumes an interrupted training.
# Expected: GED16 0.272 and HM-IoU16 0.556 on the test split of docs/results.md; 1 h 44 min of training on two cores of
# an Intel Xeon (AVX-512, float32), and about 25 minutes of evaluation. The result is weights/lidc_small.pt.
set -euo pipefail
data=$(realpath "$1")
cd "$(dirname "$0")/.."

python ddpm_train.py params.yml dataset_file=datasets.lidc dataset_params.path="$data" \
    output_path=logs/lidc_cpu load_from=auto checkpoint_freq=250 \
    "train_for=400000 images" batch_size=32 mp_loaders=0 \
    "optim={learning_rate: 1.0e-3, lr_params: {warmup: 0.01, min_lr: 1.0e-5}}" polyak_alpha=null \
    "loss={raters: all, cross_entropy: 0.02}" time_sampling=stratified \
    "network_params={patch_size: 4, base_channels: 32, channel_mult: [1, 2, 4], num_res_blocks: 1}" \
    "network_params.attention_resolutions=[16]" network_params.scale_shift_norm=true \
    validation_freq=2500 dataset_val_max_size=64 num_samples=8
python ddpm_eval.py params_eval.yml load_from=logs/lidc_cpu/last.pt
