"""Imported where the commands of `warm.py` are forked: what each of them would synthesise anew."""

import torch

from crnn.training.outliers import outlier_log_mels

torch.set_num_threads(1)  # threads do not survive a fork
outlier_log_mels()
