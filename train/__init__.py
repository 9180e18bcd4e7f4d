"""Data and training. The ECG room (train/ecg) knows nothing of torch; everything else here does."""
