"""One thread for every test: small tensors gain nothing from more, and threads that wait slow a busy machine down."""

import torch

torch.set_num_threads(1)
